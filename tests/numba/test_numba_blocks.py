"""The numba kernels of the codecs with tables against the reference, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from kakeya_fast.numba_cpu import Backend
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import KakeyaError, Malformed, RangeError, ShapeError, UsageError
from kakeya_ref.layout import page_layout, table_layout
from kakeya_ref.skeletons import Skeleton, table_body, widen16
from kakeya_ref.types import PageLayout

NUMBA, REFERENCE = Backend(), ReferenceBackend()
# Ranks of one and of all components, padded and whole; one centre, few, most; pages of 16 to 192.
LAYOUTS = [
    ("skeleton:rank=5,k=3,res=2", 24, 48),
    ("skeleton:rank=1,k=1,time=none", 8, 16),
    ("skeleton:rank=16,k=16,res=16,store=bf16", 64, 64),
    ("skeleton:rank=37,k=256,res=7,time=none,store=bf16", 80, 32),
    ("skeleton:rank=128,k=5,res=64", 128, 16),
    ("turbo:rank=5,k=3", 24, 48),
    ("turbo:rank=1,k=1,b=1,out=16", 8, 16),
    ("turbo:rank=16,b=2,levels=own,seed=0,out=8", 64, 64),
    ("turbo:rank=37,b=4,k=256,store=bf16,out=40", 80, 32),
    ("turbo:rank=24,b=4,levels=own,store=bf16,seed=9", 96, 192),
    ("turbo:rank=128,k=5,out=2048", 128, 16),
]
LAYOUT_IDS = [f"{codec} D={d} P={p}" for codec, d, p in LAYOUTS]


def skeleton(layout: PageLayout, count: int, seed: int = 0, scale: float = 1.0) -> Skeleton:
    """Tables of numbers that are nearly, but not exactly, orthonormal."""
    rng, codec, d = np.random.default_rng(seed), layout.codec, layout.head_dim
    rank, k = codec.integer("rank"), codec.integer("k")
    bodies = []
    for _ in range(count):
        basis, _ = np.linalg.qr(rng.standard_normal((d, rank)))
        centres = rng.standard_normal((k, rank))
        centres[-1] = -centres[0]  # a tie of magnitudes for every vector
        numbers = {"mean": rng.standard_normal(d), "basis": basis.T, "centres": centres}
        numbers["trend"] = rng.standard_normal(rank) / np.sqrt(rank)
        if codec.id == "turbo":
            numbers["levels"] = np.sort(rng.standard_normal(1 << codec.integer("b")))
        bodies.append(table_body(codec, d, **{n: a * scale for n, a in numbers.items()}))
    return Skeleton(np.stack(bodies))


def vectors(layout: PageLayout, pages: int, seed: int = 0) -> dict[str, np.ndarray]:
    """(pages, P, D) arrays by name: ordinary, tied, tiny, huge, zero."""
    rng = np.random.default_rng(seed)
    g = rng.standard_normal((pages, layout.tokens, layout.head_dim)).astype(np.float32)
    wide = np.exp(rng.uniform(-20, 9, (*g.shape[:2], 1))).astype(np.float32)
    return {
        "gauss": g,
        "spread": g * wide,
        "halves": (rng.integers(-2, 3, g.shape) * 0.5).astype(np.float32),
        "subnormal": g * np.float32(1e-40),
        "zeros": np.where(rng.random(g.shape) < 0.5, np.float32(0), np.float32(-0.0)),
        "one": np.where(np.arange(g.shape[2]) == 3, g * np.float32(40), np.float32(0)),
        "large": g * np.float32(2e4),
        "huge": g.clip(-3, 3) * np.float32(1e38),
        "float16": g.astype(np.float16),
    }


def outcome(call: Callable[[], np.ndarray]) -> tuple[Any, ...]:
    """Shape and bytes of an array, or the kind and rule of a refusal."""
    try:
        got = call()
    except KakeyaError as error:
        return type(error).__name__, error.rule
    return got.shape, got.dtype.str, got.tobytes()


def same(method: str, *args: Any, **options: Any) -> tuple[Any, ...]:
    """What both backends answer, which must be the same."""
    with np.errstate(all="ignore"):
        want = outcome(partial(getattr(REFERENCE, method), *args, **options))
    assert outcome(partial(getattr(NUMBA, method), *args, **options)) == want
    return want


@pytest.mark.parametrize(("codec", "d", "tokens"), LAYOUTS, ids=LAYOUT_IDS)
@pytest.mark.parametrize("count", [1, 3])
def test_equals_the_reference(codec: str, d: int, tokens: int, count: int) -> None:
    layout = page_layout(codec, d, tokens)
    read = set()
    for scale in (1.0, 0.0, 1e-6, 200.0):
        tables = skeleton(layout, count, seed=d, scale=scale)
        for name, x in vectors(layout, 3, seed=tokens).items():
            found = same("encode", x, layout, tables=tables)
            if len(found) == 3:
                read.add((name, scale))
                pages = np.frombuffer(found[2], np.uint8).reshape(found[0])
                same("decode", pages, layout, tables=tables)
                same("decode", pages.tobytes(), layout, tables=tables, basis="coefficients")
            else:
                assert found[0] == "RangeError"
    assert {(name, 1.0) for name in ("gauss", "halves", "subnormal", "zeros")} <= read
    assert ("huge", 1.0) not in read


@pytest.mark.parametrize(("codec", "d", "tokens"), LAYOUTS, ids=LAYOUT_IDS)
def test_an_analysis_of_its_own_is_projected_on(codec: str, d: int, tokens: int) -> None:
    layout = page_layout(codec, d, tokens)
    rank = layout.codec.integer("rank")
    rng = np.random.default_rng(4)
    # Strided, as a cache that keeps the factors of all layers may hand it over.
    analysis = rng.standard_normal((d, rank, 2)).astype(np.float32).transpose(2, 1, 0)
    tables = Skeleton(skeleton(layout, 2).bodies, analysis)
    x = vectors(layout, 2)["gauss"]
    with_it = same("encode", x, layout, tables=tables)
    assert with_it != same("encode", x, layout, tables=Skeleton(tables.bodies))
    broken = np.where(np.arange(d) == 0, np.float32(np.nan), analysis)
    assert same("encode", x, layout, tables=Skeleton(tables.bodies, broken))[0] == "RangeError"


@pytest.mark.parametrize(("codec", "d", "tokens"), LAYOUTS, ids=LAYOUT_IDS)
def test_any_bytes_are_read_or_refused_alike(codec: str, d: int, tokens: int) -> None:
    layout = page_layout(codec, d, tokens)
    tables = skeleton(layout, 1)
    sound = REFERENCE.encode(vectors(layout, 3)["gauss"], layout, tables=tables)
    rng = np.random.default_rng(1)
    rules = set()
    for plane in layout.planes:
        for byte in (0, 0x7C, 0xFF, None):
            pages = sound.copy()
            where = np.s_[1:, plane.offset : plane.offset + plane.nbytes]
            pages[where] = rng.integers(0, 256, pages[where].shape) if byte is None else byte
            rules.add(same("decode", pages, layout, tables=tables)[1])
    for high in (2, 256):
        pages = rng.integers(0, high, sound.shape, dtype=np.uint8)
        rules.add(same("decode", pages, layout, tables=tables)[1])
    assert f"{layout.codec.id}.value.finite" in rules
    assert "<f4" in rules


@pytest.mark.parametrize(("codec", "d", "tokens"), LAYOUTS, ids=LAYOUT_IDS)
def test_any_table_is_taken_or_refused_alike(codec: str, d: int, tokens: int) -> None:
    layout = page_layout(codec, d, tokens)
    x, rng, rules = vectors(layout, 3)["gauss"], np.random.default_rng(2), set()
    sound = skeleton(layout, 3).bodies
    pages = REFERENCE.encode(x, layout, tables=Skeleton(sound))
    for plane in table_layout(codec, d).planes:
        for byte in (0x7B, 0x80, 0xFF, None):
            bodies = sound.copy()
            where = np.s_[1:, plane.offset : plane.offset + plane.nbytes]
            bodies[where] = rng.integers(0, 256, bodies[where].shape) if byte is None else byte
            for tables in (Skeleton(bodies), Skeleton(bodies[1:2])):
                rules.add(same("decode", pages, layout, tables=tables)[1])
                rules.add(same("encode", x, layout, tables=tables)[1])
    assert "codec.table.finite" in rules
    assert "own" not in codec or "turbo.levels.ascending" in rules


def test_the_first_fault_of_the_first_page_is_named() -> None:
    layout = page_layout("turbo:rank=8,k=2,levels=own,store=bf16,out=8", 16, 128)
    tables = skeleton(layout, 3)
    x = vectors(layout, 3)["gauss"]
    x[1, 0] *= 1e6
    assert same("encode", x, layout, tables=tables)[1] == "scale.byte.range"
    # Past the first lanes, but judged before any gain of the page.
    x[1, 100] = np.copysign(np.float32(3e38), x[1, 100])
    with pytest.raises(RangeError, match=r"\[turbo.value.range\] page 1 "):
        NUMBA.encode(x, layout, tables=tables)
    assert same("encode", x, layout, tables=tables)[1] == "turbo.value.range"
    broken = Skeleton(tables.bodies.copy())
    broken.bodies[2, :2] = 0xFF
    assert same("encode", x, layout, tables=broken)[1] == "turbo.value.range"
    broken.bodies[1, :2] = 0xFF
    assert same("encode", x, layout, tables=broken)[1] == "codec.table.finite"
    x[2, 7, 3] = np.nan
    with pytest.raises(RangeError, match=r"\[num.input.finite\].*page 2, token 7"):
        NUMBA.encode(x, layout, tables=broken)
    with pytest.raises(RangeError, match=r"\[num.input.finite\].*page 2, token 7"):
        NUMBA.encode(x, layout)


@pytest.mark.parametrize("codec", ["skeleton:rank=8", "turbo:rank=8"])
def test_wrong_tables_are_refused(codec: str) -> None:
    layout = page_layout(codec, 16, 16)
    tables, x = skeleton(layout, 2), vectors(layout, 3)["gauss"]
    pages = NUMBA.encode(x[:2], layout, tables=tables)
    with pytest.raises(UsageError, match=r"\[codec.table.given\]"):
        NUMBA.encode(x, layout)
    with pytest.raises(UsageError, match=r"\[codec.table.given\]"):
        NUMBA.decode(pages, layout, tables=tables.bodies)
    with pytest.raises(Malformed, match=r"\[codec.table.shape\]"):
        NUMBA.encode(x, layout, tables=tables)
    with pytest.raises(Malformed, match=r"\[codec.table.shape\]"):
        NUMBA.decode(pages, layout, tables=Skeleton(tables.bodies[:, 1:]))
    analysed = Skeleton(tables.bodies, np.zeros((2, 7, 16), np.float32))
    with pytest.raises(ShapeError, match=r"\[codec.table.shape\]"):
        NUMBA.encode(x[:2], layout, tables=analysed)
    assert NUMBA.encode(x[:0], layout).shape == (0, layout.nbytes)
    assert NUMBA.decode(b"", layout).shape == (0, 16, 16)


@pytest.mark.parametrize("store", ["f16", "bf16"])
def test_outliers_are_the_largest_numbers_of_the_page(store: str) -> None:
    """Told from the floats, not from the reference: nothing left in the codes is larger."""
    layout = page_layout(f"turbo:rank=24,k=1,store={store},out=32", 24, 48)
    tables = skeleton(layout, 1)
    body = NUMBA.encode(vectors(layout, 1)["halves"], layout, tables=tables)[0]
    plane = layout.plane("outvalue")
    bits = body[plane.offset : plane.offset + plane.nbytes].view("<u2")
    kept = np.abs(widen16(bits, store))
    every = page_layout(f"turbo:rank=24,k=1,store={store},out={48 * 24}", 24, 48)
    body = NUMBA.encode(vectors(layout, 1)["halves"], every, tables=tables)[0]
    plane = every.plane("outvalue")
    bits = body[plane.offset : plane.offset + plane.nbytes].view("<u2")
    np.testing.assert_array_equal(np.sort(kept), np.sort(np.abs(widen16(bits, store)))[-32:])


@pytest.mark.parametrize("codec", ["skeleton:rank=9,res=3", "turbo:rank=9,out=8"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_tensors_of_every_type_and_stride(codec: str, dtype: torch.dtype) -> None:
    layout = page_layout(codec, 24, 32)
    tables = skeleton(layout, 4)
    x = torch.from_numpy(vectors(layout, 4)["gauss"]).to(dtype)
    x = x.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    want = REFERENCE.encode(x.float().numpy(), layout, tables=tables)
    pool = torch.full((8, layout.nbytes + 16), 7, dtype=torch.uint8)
    rows = pool[::2, 16:]
    assert NUMBA.encode_tensor(x, layout, rows, tables=tables) is rows
    np.testing.assert_array_equal(rows.numpy(), want)
    assert bool((pool[1::2] == 7).all())
    full = torch.from_numpy(REFERENCE.decode(want, layout, tables=tables))
    assert torch.equal(
        NUMBA.decode_tensor(rows, layout, dtype=dtype, tables=tables), full.to(dtype)
    )
    if dtype != torch.float64:
        target = torch.empty(4, 32, 2, 24, dtype=dtype)[:, :, 1]
        assert NUMBA.decode_tensor(rows, layout, out=target, tables=tables) is target
        assert torch.equal(target, full.to(dtype))


@pytest.mark.parametrize("codec", ["skeleton:rank=9,res=3", "turbo:rank=9,out=8"])
def test_a_refusal_leaves_out_alone(codec: str) -> None:
    layout = page_layout(codec, 24, 32)
    tables, x = skeleton(layout, 1), torch.from_numpy(vectors(layout, 3)["gauss"])
    pages = NUMBA.encode_tensor(x, layout, tables=tables)
    plane = layout.plane("proj")
    pages[2, plane.offset : plane.offset + plane.nbytes] = 0x7C
    y = torch.full((3, 32, 24), 2.5)
    with pytest.raises(Malformed, match=rf"\[{layout.codec.id}.value.finite\] page 2 "):
        NUMBA.decode_tensor(pages, layout, out=y, tables=tables)
    assert bool((y == 2.5).all())
    x[2] *= 3e37
    rows = torch.full((3, layout.nbytes), 9, dtype=torch.uint8)
    with pytest.raises(RangeError, match=r" page 2 "):
        NUMBA.encode_tensor(x, layout, rows, tables=tables)
    assert bool((rows == 9).all())
