"""``attend`` against a float64 softmax over exactly the tokens that the rule lets a query see."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hf_tiny import held_bytes

import kakeya_fast
from kakeya_fast.hf import attention as module
from kakeya_fast.hf.basis import rotation
from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.policy import Policy
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec

P, SINKS = 16, 3


def layer(codec="scalar:b=2", **options) -> PackedLayer:
    parsed = parse_codec(codec)
    return PackedLayer(Policy(parsed, parsed, SINKS, P, "torch"), **options)


def causal(rows, new, total, pads=None):
    """Bool mask (B, 1, Q, T) of the library: causal, left padding hidden."""
    q = torch.arange(total - new, total)
    mask = (torch.arange(total) <= q[:, None]).expand(rows, 1, new, total).clone()
    for row, n in enumerate(pads or []):
        mask[row, :, :, :n] = False
    return mask


def expected(query, exact, decoded, start, scaling, softcap=None, s_aux=None, extra=None):
    """One row by the rule, query by query, in float64."""
    heads, new, _ = query.shape
    total, groups = exact[0].shape[1], heads // exact[0].shape[0]
    out = torch.zeros(heads, new, exact[1].shape[2], dtype=torch.float64)
    for i in range(new):
        q = total - new + i
        own = start + SINKS + (q - start - SINKS) // P * P if q >= start + SINKS else q + 1
        packed = slice(start + SINKS, max(own, start + SINKS))
        for head in range(heads):
            k, v = (x[head // groups].double().clone() for x in exact)
            k[packed], v[packed] = (x[head // groups].double()[packed] for x in decoded)
            if q < start:
                continue
            score = k[start : q + 1] @ query[head, i].double() * scaling
            if softcap:
                score = softcap * torch.tanh(score / softcap)
            if extra is not None:
                score = score + extra[head, i, start : q + 1].double()
            if s_aux is not None:
                score = torch.cat([score, s_aux[head].double()[None]])
            weight = score.softmax(0)[: q + 1 - start]
            out[head, i] = weight @ v[start : q + 1]
    return out.transpose(0, 1)


def run(pads, cuts, total, groups=2, mask_kind="bool", k_dim=16, v_dim=24, **options):
    """Feed random tokens in pieces; compare the output of every piece."""
    torch.manual_seed(len(cuts))
    rows, heads = len(pads), 2
    k, v = torch.randn(rows, heads, total, k_dim) * 2, torch.randn(rows, heads, total, v_dim)
    query = torch.randn(rows, heads * groups, total, k_dim) * 2
    past = layer()
    bounds = [0, *cuts, total]
    pieces = []
    for a, b in pairwise(bounds):
        past.update(k[:, :, a:b], v[:, :, a:b])
        mask = causal(rows, b - a, b, pads)
        if mask_kind == "float":
            mask = torch.where(mask, 0.0, torch.finfo(torch.float32).min)
        pieces.append(past.attend(query[:, :, a:b], mask, 0.3, **options))
    got = torch.cat(pieces, 1)
    decoded = past.state.dense()
    for row, pad in enumerate(pads):
        ref = expected(query[row], (k[row], v[row]), [x[row] for x in decoded], pad, 0.3, **options)
        torch.testing.assert_close(got[row].double(), ref, rtol=2e-5, atol=2e-5)
    return past, got


@pytest.mark.parametrize("cuts", [[], [1], [19, 20], [50], list(range(1, 75))], ids=str)
@pytest.mark.parametrize("pads", [[0], [0, 7], [40, 0, 61]], ids=str)
def test_the_visibility_rule(pads, cuts):
    past, _ = run(pads, cuts, 75)
    assert past.state.pages.count.tolist() == [(75 - pad - SINKS) // P for pad in pads]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("mask_kind", ["bool", "float"])
def test_groups_and_mask_kinds(groups, mask_kind):
    _, got = run([0, 9], [33], 70, groups=groups, mask_kind=mask_kind)
    assert got.shape == (2, 70, 2 * groups, 24)


def test_softcap_and_learned_sinks():
    _, plain = run([0, 5], [20, 55], 70)
    _, capped = run([0, 5], [20, 55], 70, softcap=3.0)
    _, sunk = run([0, 5], [20, 55], 70, s_aux=torch.tensor([0.5, -1.0, 2.0, 0.0]))
    # ``run`` holds each to float64; that they differ shows the options were not ignored by both.
    assert not torch.allclose(capped, plain)
    assert not torch.allclose(sunk, plain)


def test_no_mask_is_causal():
    torch.manual_seed(1)
    k, v, q = torch.randn(3, 2, 2, 90, 16).unbind(0)
    with_mask, without = layer(), layer()
    for a, b in [(0, 50), (50, 51), (51, 90)]:
        with_mask.update(k[:, :, a:b], v[:, :, a:b])
        without.update(k[:, :, a:b], v[:, :, a:b])
        mine = with_mask.attend(q[:, :, a:b], causal(2, b - a, b), 0.3)
        torch.testing.assert_close(without.attend(q[:, :, a:b], None, 0.3), mine)


def test_additive_bias_and_a_mask_per_head():
    torch.manual_seed(2)
    k, v, q = torch.randn(3, 1, 2, 80, 16).unbind(0)
    bias = torch.randn(1, 2, 80, 80)
    mask = torch.where(causal(1, 80, 80), bias, torch.finfo(torch.float32).min)
    past = layer()
    past.update(k, v)
    got = past.attend(q, mask, 0.3)
    ref = expected(q[0], (k[0], v[0]), [x[0] for x in past.dense()], 0, 0.3, extra=bias[0])
    torch.testing.assert_close(got[0].double(), ref, rtol=2e-5, atol=2e-5)


def test_a_row_begins_where_any_query_of_any_head_sees_a_token():
    torch.manual_seed(5)
    k, v, q = torch.randn(3, 1, 2, 70, 16).unbind(0)
    mask = causal(1, 70, 70).repeat(1, 2, 1, 1)
    mask[:, :, -1, :-1] = False
    mask[:, 0, :, :9] = False
    past = layer("raw")
    past.update(k, v)
    got = past.attend(q, mask, 0.3)
    score = (q @ k.mT * 0.3).masked_fill(~mask, -torch.inf)
    expected_out = (score.softmax(-1).nan_to_num() @ v).transpose(1, 2)
    torch.testing.assert_close(got, expected_out, rtol=1e-5, atol=1e-5)
    assert past.state.starts.tolist() == [0]


@pytest.mark.parametrize(("tile", "scores"), [(16, 1), (48, 1 << 12)])
def test_tiles_do_not_change_the_result(monkeypatch, tile, scores):
    _, wide = run([0, 11], [90, 91], 200)
    monkeypatch.setattr(module, "TILE", tile)
    monkeypatch.setattr(module, "SCORES", scores)
    _, narrow = run([0, 11], [90, 91], 200)
    torch.testing.assert_close(narrow, wide, rtol=1e-5, atol=1e-5)


def test_extra_memory_does_not_grow_with_context(monkeypatch):
    past = layer("scalar:b=4")
    seen = []
    decode, fold = past.policy.__class__.open, module._Run.fold

    def watch(self, i0, i1, keys, values, columns, visible):
        seen.append(max(keys.shape[2] * keys.shape[1], (i1 - i0) * keys.shape[2]))
        return fold(self, i0, i1, keys, values, columns, visible)

    class Backend:
        def __init__(self, inner):
            self.inner = inner
            self.encode_tensor = inner.encode_tensor

        def decode_tensor(self, pages, layout, **options):
            assert len(pages) <= 2 * module.TILE // P
            return self.inner.decode_tensor(pages, layout, **options)

    monkeypatch.setattr(module._Run, "fold", watch)
    monkeypatch.setattr(Policy, "open", lambda *a: Backend(decode(*a)))
    monkeypatch.setattr(module, "SCORES", 1 << 16)
    most = []
    for new in (600, 1, 2400, 1):
        x = torch.randn(1, 2, new, 16)
        seen.clear()
        past.update(x, x)
        past.attend(torch.randn(1, 4, new, 16), None, 0.3)
        most.append(max(seen))
    assert most[1] == most[3]
    assert most[2] <= (1 << 16)
    assert past.state.tail_k.shape[2] < P


def test_nothing_dense_stays_reachable():
    past = layer("scalar:b=4")
    x = torch.randn(2, 2, 1500, 16)
    past.update(x, x)
    past.attend(torch.randn(2, 4, 1500, 16), None, 0.3)
    dense = 2 * x.numel() * 2
    assert held_bytes(SimpleNamespace(layer=past)) < dense * 0.4
    assert isinstance(past.state.pages.first, np.ndarray)


@pytest.mark.parametrize("codec", ["raw", "fp8", "int", "scalar:seed=7", "e8", "d4:seed=0"])
@pytest.mark.parametrize("size", [8, 64, 96, 80])
def test_the_coded_basis_is_the_one_of_the_backend(codec, size):
    layout = page_layout(codec, size, 16)
    backend = kakeya_fast.get_backend("torch")
    pages = backend.encode_tensor(torch.randn(3, 16, size), layout)
    vectors = backend.decode_tensor(pages, layout)
    coefficients = backend.decode_tensor(pages, layout, basis="coefficients")
    basis = rotation(layout, torch.float32, torch.device("cpu"))
    assert (basis is None) == torch.equal(vectors, coefficients)
    if basis is not None:
        torch.testing.assert_close(coefficients @ basis, vectors, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(basis @ basis.T, torch.eye(size), rtol=1e-5, atol=1e-5)


def test_two_readers_see_the_same_step():
    torch.manual_seed(4)
    k, v, q = torch.randn(3, 1, 2, 80, 16).unbind(0)
    one, two = layer(), layer(readers=2)
    for a, b in [(0, 60), (60, 61), (61, 80)]:
        one.update(k[:, :, a:b], v[:, :, a:b])
        two.update(k[:, :, a:b], v[:, :, a:b])
        expected_out = one.attend(q[:, :, a:b], None, 0.3)
        assert torch.equal(two.attend(q[:, :, a:b], None, 0.3), expected_out)
        # The second reader may ask for the last tokens only.
        last = two.attend(q[:, :, b - 1 : b], None, 0.3)
        torch.testing.assert_close(last, expected_out[:, -1:], rtol=1e-5, atol=1e-5)
        assert two.state.tail_k.shape[2] < P
