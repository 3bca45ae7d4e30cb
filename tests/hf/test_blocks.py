"""Fitted tables and the residual: what a page's table may depend on, and who reads which page."""

from itertools import pairwise

import pytest
import torch
from hf_tiny import page_bytes

from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.policy import Policy
from kakeya_ref.registry import parse_codec

P, SINKS, D = 16, 3, 16
OWN = ("skeleton:k=4", "turbo:b=2,k=4")
SHARED = "turbo:b=2,k=4,share=1"


def layer(codec: str, residual: int = 0) -> PackedLayer:
    parsed = parse_codec(codec)
    return PackedLayer(Policy(parsed, parsed, SINKS, P, "numba", residual=residual))


def tokens(total: int, seed: int, rows: int = 1) -> torch.Tensor:
    made = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 2, total, D, generator=made)


def feed(past: PackedLayer, x: torch.Tensor, cuts=()) -> torch.Tensor:
    """Append keys and, as values, their opposites, in pieces; what all queries got."""
    out = []
    for a, b in pairwise([0, *cuts, x.shape[2]]):
        past.update(x[:, :, a:b], -x[:, :, a:b])
        out.append(past.attend(x[:, :, a:b].repeat_interleave(2, 1), None, 0.3))
    return torch.cat(out, 1)


def blocks(past: PackedLayer, slot: int) -> tuple[bytes, bytes]:
    """Bodies and tables of one page, all heads, both streams."""
    page = [block for stream in past.state.pages.blocks[0][slot] for block in stream]
    return b"".join(x.body.numpy().tobytes() for x in page), tables(past, slot)


def tables(past: PackedLayer, slot: int) -> bytes:
    page = [block for stream in past.state.pages.blocks[0][slot] for block in stream]
    return b"".join(x.table.tobytes() for x in page)


def filled(codec: str, x: torch.Tensor, cuts=()) -> PackedLayer:
    past = layer(codec)
    feed(past, x, cuts)
    return past


def changed(x: torch.Tensor, page: int) -> torch.Tensor:
    """The same tokens but for those of one page."""
    y = x.clone()
    own = slice(SINKS + page * P, SINKS + (page + 1) * P)
    y[:, :, own] = tokens(P, seed=99)
    return y


@pytest.mark.parametrize("codec", OWN)
def test_the_table_of_a_page_is_made_of_its_own_tokens_alone(codec):
    """Rule: cache.table.causal"""
    x = tokens(SINKS + 3 * P + 5, seed=1)
    before = filled(codec, x)
    for page in range(3):
        after = filled(codec, changed(x, page))
        for slot in range(3):
            assert (tables(before, slot) == tables(after, slot)) == (slot != page)


def test_a_shared_table_is_made_of_the_first_page_alone():
    """Rule: cache.table.causal"""
    x = tokens(SINKS + 3 * P + 5, seed=1)
    before = filled(SHARED, x)
    first = tables(before, 0)
    assert [tables(before, slot) for slot in range(3)] == [first] * 3
    for page in range(3):
        after = filled(SHARED, changed(x, page))
        assert (tables(after, 0) == first) == (page != 0)
        assert [tables(after, slot) for slot in range(3)] == [tables(after, 0)] * 3
        # Bytes of earlier pages never hear of later tokens.
        assert [blocks(after, s) for s in range(page)] == [blocks(before, s) for s in range(page)]


def test_rows_do_not_share_a_table():
    """Rule: cache.table.causal, cache.row.independent"""
    x = tokens(SINKS + 2 * P, seed=1, rows=2)
    both = filled(SHARED, x)
    for row in (0, 1):
        alone = filled(SHARED, x[row : row + 1])
        assert page_bytes(both, row) == page_bytes(alone, 0)
    assert page_bytes(both, 0) != page_bytes(both, 1)


@pytest.mark.parametrize("codec", [*OWN, SHARED])
@pytest.mark.parametrize("cuts", [[1], [20], [19, 35, 50], list(range(1, 56))], ids=len)
def test_fitted_pages_do_not_depend_on_the_cuts(codec, cuts):
    """Rule: cache.append.causal, cache.table.causal"""
    x = tokens(SINKS + 3 * P + 5, seed=1)
    one, many = filled(codec, x), filled(codec, x, cuts)
    assert page_bytes(one, 0) == page_bytes(many, 0)


def by_the_rule(x: torch.Tensor, decoded: tuple, residual: int) -> torch.Tensor:
    """Attention query by query in float64: bytes up to the page of token q - residual."""
    out = torch.zeros(x.shape[2], 4, D, dtype=torch.float64)
    for q in range(x.shape[2]):
        packed = slice(SINKS, SINKS + max(0, q - residual - SINKS) // P * P)
        for head in range(4):
            own = x[0, head // 2, : q + 1].double()
            k, v = own.clone(), -own
            k[packed], v[packed] = (y[0, head // 2, packed].double() for y in decoded)
            out[q, head] = (k @ own[q] * 0.3).softmax(0) @ v
    return out


@pytest.mark.parametrize("codec", ["scalar:b=1", "turbo:b=1,k=1"])
@pytest.mark.parametrize("residual", [1, P - 1, P, P + 1, 3 * P + 5, 200])
def test_a_residual_reads_exactly_the_pages_that_end_before_it(codec, residual):
    """Rule: cache.read.recent-exact"""
    total = SINKS + 6 * P + 7
    x = tokens(total, seed=2)
    # Without a residual the same pages and more are packed: the bytes of all that is read.
    decoded = filled(codec, x).state.dense()
    expected = by_the_rule(x, decoded, residual)
    for cuts in ([], [40], list(range(9, total, 11))):
        past = layer(codec, residual)
        got = feed(past, x, cuts)[0].double()
        torch.testing.assert_close(got, expected, rtol=2e-5, atol=2e-5)
        assert past.state.pages.used == max(0, total - SINKS - residual) // P


def test_a_residual_keeps_what_it_reads_exactly():
    """Rule: cache.read.recent-exact, rate.sequence.parts"""
    past = layer("scalar:b=1", residual=2 * P)
    feed(past, tokens(45, seed=3), range(9, 45, 9))
    past.crop(0)
    pages = (45 - SINKS - 2 * P) // P
    assert past.state.pages.used == pages
    assert past.state.tail_k.shape[2] == 45 - SINKS - pages * P
