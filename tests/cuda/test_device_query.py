"""Calibrated keys through tensors: tables, their places, faults in order, and pools.

On the CPU the kernels come from the host build; on a GPU they are the device's.
"""

from __future__ import annotations

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hostlaunch import HostLauncher

from kakeya_conformance.tables import build, given, numbers_of
from kakeya_fast.cuda import launch
from kakeya_fast.cuda.backend import Backend
from kakeya_fast.cuda.tables import frozen
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import Malformed, RangeError, UsageError
from kakeya_ref.layout import page_layout
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import PageLayout

REF = ReferenceBackend()
# Head dims of 1 to 32 lanes, of two and of four vectors at a time, teams with lanes to spare; bands
# of all widths and of none.
LAYOUTS = [
    ("query:b=1", 8, 32),
    ("query:b=7", 24, 48),
    ("query:b=2.1", 40, 16),
    ("query", 64, 16),
    ("query:b=2.5", 128, 32),
    ("query:b=6.5", 136, 16),
    ("query:b=3.3", 256, 16),
    ("query:b=1.2", 264, 16),
    ("query:b=2.5", 576, 16),
]
PLAIN = page_layout("query", 64, 16)


@pytest.fixture(params=["cpu", "cuda"])
def cuda(request) -> Backend:
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("torch sees no GPU")
        return Backend("cuda")
    request.getfixturevalue("compiler")
    return Backend(launcher=HostLauncher())


def vectors(layout: PageLayout, pages: int = 3, seed: int = 1) -> np.ndarray:
    """Vectors of very different sizes: zeros of both signs, subnormals, ties."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((pages, layout.tokens, layout.head_dim), dtype=np.float32)
    x *= np.exp2(rng.integers(-18, 8, (pages, layout.tokens, 1))).astype(np.float32)
    x[0, 0], x[0, 1], x[0, 2] = 0.0, -0.0, 1e-42
    x[0, 3] = rng.integers(-4, 5, layout.head_dim) / 2
    return x


def there(cuda: Backend, x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x)).to(cuda.device)


@pytest.mark.parametrize("recipe", ["plausible", "axes", "foreign", "zeros"])
@pytest.mark.parametrize(("codec", "d", "tokens"), LAYOUTS)
def test_bytes_and_numbers_are_the_references(cuda, codec, d, tokens, recipe) -> None:
    """Rule: query.encode.project, query.code.trellis, query.code.boundary, query.bits.greedy"""
    layout = page_layout(codec, d, tokens)
    x, known = vectors(layout), given(recipe, 4, 3, layout)
    want = REF.encode(x, layout, tables=known)
    body = cuda.encode_tensor(there(cuda, x), layout, tables=known)
    np.testing.assert_array_equal(body.cpu().numpy(), want)
    for basis in ("coefficients", "vectors"):
        y = REF.decode(want, layout, basis=basis, tables=known)
        got = cuda.decode_tensor(body, layout, basis=basis, tables=known).cpu().numpy()
        np.testing.assert_array_equal(got.view(np.uint32), y.view(np.uint32))


def test_bf16_in_any_strides(cuda) -> None:
    """Rule: num.input.widen, encode.input.strided"""
    layout, known = PLAIN, given("metric", 2, 1, PLAIN)
    x = there(cuda, vectors(layout)).bfloat16()
    want = REF.encode(x.float().cpu().numpy(), layout, tables=known)
    spread = torch.zeros(16, 64, 6, dtype=torch.bfloat16, device=cuda.device)[:, :, ::2]
    spread.copy_(x.permute(1, 2, 0))
    for seen in (x, spread.permute(2, 0, 1)):
        body = cuda.encode_tensor(seen, layout, tables=known)
        np.testing.assert_array_equal(body.cpu().numpy(), want)
    y = REF.decode(want, layout, tables=known)
    got = cuda.decode_tensor(body, layout, tables=known, dtype=torch.bfloat16)
    assert torch.equal(got.cpu(), torch.from_numpy(y).bfloat16())


@pytest.mark.parametrize("graph", [False, True], ids=["checked", "graph"])
def test_pages_of_several_heads_and_layers_go_to_a_pool_at_once(cuda, graph) -> None:
    """Tables counted round need no list; with a list, any page may have any table.

    Rule: codec.table.given, backend.pool.fits
    """
    layout, known = PLAIN, given("metric", 3, 3, PLAIN)
    x, slots = vectors(layout, 6), np.array([7, 0, -1, 4, 2, 6])
    pool = torch.full((9, 2 * layout.nbytes), 0xA5, dtype=torch.uint8, device=cuda.device)
    status = cuda.new_status() if graph else None
    for of in (np.arange(6) % 3, np.array([2, 2, 1, 0, 1, 0])):
        tables = replace(known, of_page=of)
        cuda.append(
            there(cuda, x), layout, pool[:, layout.nbytes :], there(cuda, slots),
            status=status, tables=tables,
        )  # fmt: skip
        want, used = REF.encode(x, layout, tables=tables), slots >= 0
        held = pool.cpu().numpy()
        np.testing.assert_array_equal(held[slots[used], layout.nbytes :], want[used])
        assert (held[[1, 3, 5, 8]] == 0xA5).all()
        y = cuda.read(
            pool[:, layout.nbytes :], layout, there(cuda, slots), status=status, tables=tables
        )
        back = REF.decode(want, layout, tables=tables)
        np.testing.assert_array_equal(y.cpu().numpy()[used], back[used])
        assert bool((y[2] == 0).all())


def test_faults_are_named_page_by_page(cuda) -> None:
    """Rule: query.value.range, scale.byte.range, num.input.finite"""
    part, _ = next(numbers_of(given("transparent", 1, 1, PLAIN), PLAIN, 1))
    known = build(PLAIN, [vars(part) | {"basis": part.basis * np.float32(4)}])
    x = np.zeros((3, 16, 64), np.float32)
    x[1, 2, 0], x[1, 9, 3], x[2, 0, 0] = 1e30, 3e38, 3e38
    with pytest.raises(RangeError, match=r"\[query\.value\.range\].*page 1, token 9"):
        cuda.encode_tensor(there(cuda, x), PLAIN, tables=known)
    x[1, 9, 3] = 0
    with pytest.raises(RangeError, match=r"\[scale\.byte\.range\].*page 1, token 2"):
        cuda.encode_tensor(there(cuda, x), PLAIN, tables=known)
    x[2, 5, 5] = np.inf
    for tables in (known, Skeleton(known.bodies[:, 1:]), None):
        with pytest.raises(RangeError, match=r"\[num\.input\.finite\].*page 2, token 5"):
            cuda.encode_tensor(there(cuda, x), PLAIN, tables=tables)
    status = cuda.new_status()
    pool = torch.full((3, PLAIN.nbytes), 7, dtype=torch.uint8, device=cuda.device)
    slots = there(cuda, np.arange(3))
    cuda.append(there(cuda, x), PLAIN, pool, slots, status=status, tables=known)
    assert int(pool[1, 2]) == 0
    assert bool((pool[1, 16 + 2 * 24 : 16 + 3 * 24] == 0).all())
    with pytest.raises(RangeError, match=r"\[num\.input\.finite\].*page 2, token 5"):
        cuda.raise_if_bad(status, PLAIN, "encode")


def test_the_largest_numbers_stay_inside_of_float32(cuda) -> None:
    """Whatever the bytes and the table: decoding has nothing to refuse.

    Rule: query.decode.synthesis
    """
    layout = page_layout("query:b=4", 256, 16)
    part, _ = next(numbers_of(given("transparent", 1, 1, layout), layout, 1))
    known = build(layout, [vars(part) | {"basis": np.full((256, 256), 65504.0)}])
    pages = np.full((1, layout.nbytes), 255, np.uint8)
    want = REF.decode(pages, layout, tables=known)
    got = cuda.decode_tensor(there(cuda, pages), layout, tables=known)
    np.testing.assert_array_equal(got.cpu().numpy(), want)


@pytest.mark.parametrize(
    ("tables", "error"),
    [
        (None, UsageError),
        (Skeleton(np.zeros((1, 3), np.uint8)), Malformed),
        (Skeleton(np.full(given("zeros", 1, 1, PLAIN).bodies.shape, 0x7C, np.uint8)), Malformed),
    ],
    ids=["none", "short", "infinite"],
)
def test_tables_that_do_not_fit(cuda, tables, error) -> None:
    """Rule: codec.table.given, codec.table.shape, codec.table.finite, backend.error.atomic"""
    x, pool = there(cuda, vectors(PLAIN)), torch.full((3, PLAIN.nbytes), 9, dtype=torch.uint8)
    pool, slots = pool.to(cuda.device), there(cuda, np.arange(3))
    with pytest.raises(error, match=r"\[codec\.table\."):
        cuda.append(x, PLAIN, pool, slots, status=cuda.new_status(), tables=tables)
    with pytest.raises(error, match=r"\[codec\.table\."):
        cuda.read(pool, PLAIN, slots, tables=tables)
    assert bool((pool == 9).all())
    assert cuda.encode_tensor(x[:0], PLAIN).shape == (0, PLAIN.nbytes)


def test_tables_nobody_can_write_to_are_brought_over_once(cuda) -> None:
    kept = given("plausible", 1, 2, PLAIN)
    bodies = kept.bodies.copy()
    x = there(cuda, vectors(PLAIN, 2))
    lent = cuda._calls._tables._lent
    cuda.encode_tensor(x, PLAIN, tables=Skeleton(bodies))
    assert not lent
    bodies.setflags(write=False)
    for _ in range(2):
        cuda.encode_tensor(x, PLAIN, tables=Skeleton(bodies))
    assert len(lent) == 1
    cuda.decode_tensor(cuda.encode_tensor(x, PLAIN, tables=kept), PLAIN, tables=kept)
    assert len(lent) == 3
    del bodies
    gc.collect()
    assert len(lent) == 2
    view = np.zeros(4)[:2]
    view.setflags(write=False)
    assert not frozen(view)
    assert frozen(np.frombuffer(b"abcd", np.uint8)[1:])


def test_what_is_not_at_hand_cannot_be_captured(cuda, monkeypatch) -> None:
    """Rule: backend.graph.prepared"""
    kept = replace(given("plausible", 7, 2, PLAIN), of_page=np.array([1, 0]))
    kept.of_page.setflags(write=False)
    x, pool = there(cuda, vectors(PLAIN, 2)), torch.zeros(2, PLAIN.nbytes, dtype=torch.uint8)
    pool, slots, status = pool.to(cuda.device), there(cuda, np.arange(2)), cuda.new_status()
    cuda.prepare(PLAIN)

    def refuse(device, what):
        raise UsageError("backend.graph.prepared", what)

    with monkeypatch.context() as m:
        m.setattr("kakeya_fast.cuda.tables.refuse_while_capturing", refuse)
        with pytest.raises(UsageError, match=r"\[backend\.graph\.prepared\] tables of"):
            cuda.append(x, PLAIN, pool, slots, status=status, tables=kept)
    cuda.prepare(PLAIN, tables=kept)
    monkeypatch.setattr("kakeya_fast.cuda.tables.refuse_while_capturing", refuse)
    cuda.append(x, PLAIN, pool, slots, status=status, tables=kept)
    cuda.read(pool, PLAIN, slots, status=status, tables=kept)
    want = REF.encode(x.cpu().numpy(), PLAIN, tables=kept)
    np.testing.assert_array_equal(pool.cpu().numpy(), want)
    assert launch.refuse_while_capturing(torch.device("cpu"), "") is None


def test_a_graph_is_captured_and_replayed(cuda) -> None:
    """Rule: backend.graph.prepared"""
    if cuda.device.type != "cuda":
        pytest.skip("graphs are the device's")
    kept = given("metric", 7, 2, PLAIN)
    x, pool = there(cuda, vectors(PLAIN, 4)), torch.zeros(4, PLAIN.nbytes, dtype=torch.uint8)
    kept = replace(kept, of_page=np.array([1, 0, 1, 1]))
    kept.of_page.setflags(write=False)
    pool, slots, status = pool.to(cuda.device), there(cuda, np.arange(4)), cuda.new_status()
    cuda.prepare(PLAIN, tables=kept)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        cuda.append(x, PLAIN, pool, slots, status=status, tables=kept)
    for seed in range(2):
        x.copy_(there(cuda, vectors(PLAIN, 4, seed)))
        graph.replay()
        want = REF.encode(x.cpu().numpy(), PLAIN, tables=kept)
        np.testing.assert_array_equal(pool.cpu().numpy(), want)
    cuda.raise_if_bad(status, PLAIN, "encode")
