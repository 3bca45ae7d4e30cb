"""Pages in slots of a pool, and calls that do not wait for the device."""

from __future__ import annotations

import pytest
import torch
from hostlaunch import HostLauncher

from kakeya_fast.cuda.backend import Backend
from kakeya_ref.errors import Malformed, RangeError, ShapeError, UsageError
from kakeya_ref.layout import page_layout

SCALAR, E8 = (page_layout(c, 64, 16) for c in ("scalar:b=3", "e8"))
FILL = 0xA5

pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture(scope="module")
def cuda() -> Backend:
    return Backend(launcher=HostLauncher())


def vectors(pages: int = 3) -> torch.Tensor:
    return torch.randn(pages, 16, 64, generator=torch.Generator().manual_seed(5))


def pool_of(layout, size: int = 6) -> torch.Tensor:
    """Rows with room between them, as where K and V of a page lie side by side."""
    return torch.full((size, 2 * layout.nbytes), FILL, dtype=torch.uint8)[:, layout.nbytes :]


def slots_of(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int64)


@pytest.mark.parametrize("graph", [False, True], ids=["checked", "graph"])
def test_pages_go_to_their_slots_and_nowhere_else(cuda, graph) -> None:
    """Rule: backend.pool.fits"""
    x, pool, slots = vectors(), pool_of(SCALAR), slots_of(4, -1, 0)
    status = cuda.new_status() if graph else None
    cuda.append(x, SCALAR, pool, slots, status=status)
    want = cuda.encode_tensor(x, SCALAR)
    assert torch.equal(pool[[4, 0]], want[[0, 2]])
    assert bool((pool[[1, 2, 3, 5]] == FILL).all())
    assert bool((pool._base[:, : SCALAR.nbytes] == FILL).all())
    y = cuda.read(pool, SCALAR, slots, status=status)
    assert torch.equal(y[[0, 2]], cuda.decode_tensor(want, SCALAR)[[0, 2]])
    assert bool((y[1] == 0).all())


def test_pages_of_several_tensors_go_out_in_one_launch(cuda) -> None:
    """Rule: backend.pool.fits, page.shape.exact"""
    x, pool, slots = vectors(5), pool_of(SCALAR), slots_of(3, 1, 0, 5, 4)
    fresh = Backend(launcher=HostLauncher())
    parts = [x[:2], x[2:3].clone(), x[3:]]
    fresh.append(parts, SCALAR, pool, slots, status=fresh.new_status())
    assert torch.equal(pool[slots], cuda.encode_tensor(x, SCALAR))
    assert [pages for *_, pages, _ in fresh._calls._launcher.seen] == [5]
    with pytest.raises(ShapeError, match=r"page\.shape\.exact"):
        cuda.append([x[:2], x[2:, :8]], SCALAR, pool, slots)
    with pytest.raises(ShapeError, match=r"page\.shape\.exact"):
        cuda.append([], SCALAR, pool, slots)
    with pytest.raises(ShapeError, match=r"num\.input\.widen"):
        cuda.append([x, None], SCALAR, pool, slots)


def test_numbers_are_read_into_what_is_given(cuda) -> None:
    x, pool, slots = vectors(), pool_of(SCALAR), slots_of(2, 0, 5)
    cuda.append(x.bfloat16(), SCALAR, pool, slots)
    out = torch.full((3, 2, 16, 64), 7.0, dtype=torch.bfloat16)
    assert cuda.read(pool, SCALAR, slots_of(5, -1, 2), out=out[:, 1]) is not None
    want = cuda.decode_tensor(pool[[5, 2]], SCALAR, dtype=torch.bfloat16)
    assert torch.equal(out[[0, 2], 1], want)
    assert bool((out[:, 0] == 7).all() and (out[1, 1] == 7).all())
    narrow = cuda.read(pool, SCALAR, slots, basis="coefficients", dtype=torch.float16)
    wide = cuda.decode_tensor(pool[[2, 0, 5]], SCALAR, basis="coefficients")
    assert torch.equal(narrow, wide.half())


@pytest.mark.parametrize("bad", [float("nan"), 3e38])
def test_a_refusal_comes_before_the_first_byte(cuda, bad) -> None:
    """Rule: backend.error.atomic"""
    x, pool = vectors(), pool_of(SCALAR)
    x[2, 9, 1] = bad
    with pytest.raises(RangeError, match="page 2, token 9"):
        cuda.append(x, SCALAR, pool, slots_of(0, 1, 2))
    assert bool((pool == FILL).all())


def test_a_graph_keeps_the_first_refusal_until_asked(cuda) -> None:
    """Rule: backend.graph.sticky"""
    x, pool, status = vectors(), pool_of(SCALAR), cuda.new_status()
    cuda.append(x, SCALAR, pool, slots_of(0, 1, 2), status=status)
    cuda.raise_if_bad(status, SCALAR, "encode")
    good = pool.clone()
    x[1, 3, 60] = 3e38
    cuda.append(x, SCALAR, pool, slots_of(0, 1, 2), status=status)
    changed = (pool != good).nonzero()[:, 0].unique()
    assert changed.tolist() == [1]
    assert bool((cuda.read(pool, SCALAR, slots_of(1))[0, 3] == 0).all())
    cuda.append(vectors(), SCALAR, pool, slots_of(0, 1, 2), status=status)
    with pytest.raises(RangeError, match=r"\[scale\.byte\.range\].*page 1, token 3"):
        cuda.raise_if_bad(status, SCALAR, "encode")
    status.fill_(-1)
    cuda.raise_if_bad(status, SCALAR, "encode")
    assert torch.equal(pool, good)


def test_a_malformed_slot_is_named_or_read_as_zero(cuda) -> None:
    """Rule: backend.graph.sticky"""
    pool, slots, status = pool_of(E8), slots_of(0, 1, 2), cuda.new_status()
    cuda.append(vectors(), E8, pool, slots)
    pool[1] = 0xFF
    out = torch.full((3, 16, 64), 2.5)
    with pytest.raises(Malformed, match=r"\[e8\.index\.range\].*page 1"):
        cuda.read(pool, E8, slots, out=out)
    assert bool((out == 2.5).all())
    got = cuda.read(pool, E8, slots, out=out, status=status)
    assert bool(got.isfinite().all())
    with pytest.raises(Malformed, match="page 1, token 0"):
        cuda.raise_if_bad(status, E8, "decode")


@pytest.mark.parametrize(
    ("slots", "text"),
    [
        (slots_of(0, 1, 6), r"slot 6 of page 2 is not in 0\.\.5"),
        (slots_of(0, -2, 1), "slot -2 of page 1"),
        (slots_of(0, 1, 0), "two pages"),
        (slots_of(0, 1), "want 3 slots"),
        (slots_of(0, 1, 2).int(), "int64"),
        (slots_of(0, 1, 2, 3, 4, 5)[::2], "side by side"),
        ([0, 1, 2], "int64 tensor, not list"),
    ],
    ids=str,
)
def test_slots_that_do_not_fit(cuda, slots, text) -> None:
    """Rule: backend.pool.fits"""
    pool = pool_of(SCALAR)
    with pytest.raises(ShapeError, match=rf"\[backend\.pool\.fits\].*{text}"):
        cuda.append(vectors(), SCALAR, pool, slots)
    assert bool((pool == FILL).all())


def test_pools_that_do_not_fit(cuda) -> None:
    """Rule: backend.pool.fits"""
    x, slots, n = vectors(), slots_of(0, 1, 2), SCALAR.nbytes
    wide = torch.zeros(6, n + 32, dtype=torch.uint8)
    bad = {
        "want (S": wide,
        "uint8": torch.zeros(6, n),
        "multiples of 16": wide[:, 8 : n + 8],
        "overlap": wide[:1, :n].expand(6, -1),
    }
    for text, pool in bad.items():
        with pytest.raises(ShapeError, match=r"\[backend\.pool\.fits\]") as error:
            cuda.append(x, SCALAR, pool, slots)
        assert text in str(error.value)
    with pytest.raises(ShapeError, match=r"num\.input\.device"):
        cuda.append(x, SCALAR, wide[:, :n].to("meta"), slots)
    with pytest.raises(ShapeError, match=r"backend\.pool\.fits"):
        cuda.read(wide[:, :n], SCALAR, slots_of(9))
    assert bool((wide == 0).all())


def test_a_status_that_kernels_cannot_write_to(cuda) -> None:
    """Rule: backend.graph.sticky"""
    pool = pool_of(SCALAR)
    for status in (torch.zeros(2), torch.zeros(1, dtype=torch.int64), 0):
        with pytest.raises(ShapeError, match=r"backend\.graph\.sticky"):
            cuda.append(vectors(), SCALAR, pool, slots_of(0, 1, 2), status=status)
    assert bool((pool == FILL).all())


def test_preparing_starts_every_kernel_on_nothing(cuda) -> None:
    """Rule: backend.graph.prepared"""
    fresh = Backend(launcher=HostLauncher())
    fresh.prepare(SCALAR, torch.bfloat16, basis="coefficients")
    seen = fresh._calls._launcher.seen
    assert [(entry, pages) for _, entry, pages, _ in seen] == [
        ("kakeya_encode", 0),
        ("kakeya_check_input", 0),
        ("kakeya_decode", 0),
        ("kakeya_check_pages", 0),
    ]
    assert [("KIND=2" in str(u), "VECTORS=0" in str(u)) for u, *_ in seen] == [
        (True, False),
        (True, False),
        (True, True),
        (True, True),
    ]
    with pytest.raises(ShapeError, match=r"num\.input\.widen"):
        fresh.prepare(SCALAR, torch.float64)
    with pytest.raises(UsageError, match=r"decode\.basis\.known"):
        fresh.prepare(SCALAR, basis="rows")


def test_a_graph_call_is_one_launch(cuda) -> None:
    launcher = HostLauncher()
    backend = Backend(launcher=launcher)
    x, pool, slots, status = vectors(), pool_of(SCALAR), slots_of(0, 1, 2), backend.new_status()
    backend.append(x, SCALAR, pool, slots, status=status)
    backend.read(pool, SCALAR, slots, out=torch.empty_like(x), status=status)
    assert [entry for _, entry, _, _ in launcher.seen] == ["kakeya_encode", "kakeya_decode"]
