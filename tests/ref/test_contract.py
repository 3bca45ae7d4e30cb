"""Codec strings, page layouts and byte accounting: what every backend and cache relies on."""

import pickle

import numpy as np
import pytest

from kakeya_ref import (
    KakeyaError,
    Malformed,
    PageLayout,
    RangeError,
    ReferenceBackend,
    ShapeError,
    UsageError,
    codec_ids,
    page_layout,
    parse_codec,
    sequence_bits_per_element,
    sequence_nbytes,
)
from kakeya_ref.layout import table_layout
from kakeya_ref.registry import is_resolved, resolved, table_kind
from kakeya_ref.skeletons import Skeleton


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("scalar", "scalar"),
        ("scalar:b=4", "scalar"),
        ("scalar:seed=7,b=3", "scalar:b=3,seed=7"),
        ("int:axis=channel,g=32", "int:g=32,axis=channel"),
        ("raw:dtype=bf16", "raw:dtype=bf16"),
    ],
)
def test_canonical_strings(text: str, canonical: str) -> None:
    """Rule: codec.string.canonical"""
    codec = parse_codec(text)
    assert str(codec) == canonical
    assert parse_codec(str(codec)) == codec


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "codec.string.canonical"),
        ("scalar:", "codec.string.canonical"),
        ("scalar:b=3,b=3", "codec.string.canonical"),
        ("Scalar", "codec.string.canonical"),
        ("nope", "codec.string.known"),
        ("scalar:q=3", "codec.string.known"),
        ("scalar:b=0", "codec.params.range"),
        ("scalar:b=9", "codec.params.range"),
        ("scalar:b=04", "codec.params.range"),
        ("int:g=12", "codec.params.range"),
        ("raw:dtype=f64", "codec.params.range"),
    ],
)
def test_wrong_strings_name_the_rule(text: str, rule: str) -> None:
    """Rule: codec.string.known, codec.params.range"""
    with pytest.raises(UsageError) as caught:
        parse_codec(text)
    assert caught.value.rule == rule
    assert str(caught.value).startswith(f"[{rule}]")


@pytest.mark.parametrize("head_dim", [0, 4, 12, 100, 1032, 64.0, "64", None])
def test_head_dims_outside_the_format_are_refused(head_dim: int) -> None:
    """Rule: page.head-dim.multiple-of-8"""
    with pytest.raises(ShapeError, match=r"\[page.head-dim.multiple-of-8\]"):
        page_layout("scalar", head_dim)
    # Nor is it taken for the number that it equals, which may be at hand.
    assert type(page_layout("scalar", 64).head_dim) is int
    with pytest.raises(ShapeError, match=r"\[page.head-dim.multiple-of-8\]"):
        page_layout("scalar", head_dim)


@pytest.mark.parametrize("tokens", [0, 8, 17, 16.0, "32", None])
def test_page_lengths_outside_the_format_are_refused(tokens: int) -> None:
    """Rule: page.tokens.multiple-of-16"""
    with pytest.raises(ShapeError, match=r"\[page.tokens.multiple-of-16\]"):
        page_layout("scalar", 64, tokens)


TABLED = [
    "skeleton:rank=7", "skeleton:k=1,res=64,time=none,rank=3", "skeleton:k=256,res=1,rank=8",
    "turbo:rank=7", "turbo:b=4,k=1,levels=own,rank=8,out=128", "turbo:b=1,k=9,rank=1,out=8",
]  # fmt: skip
WITHOUT = [name for name in codec_ids() if not table_kind(parse_codec(name))]


def tiled(layout: PageLayout) -> bool:
    """Every plane begins at the first multiple of 16 after the one before it; none is missing."""
    end = 0
    for plane in layout.planes:
        assert plane.offset % 16 == 0
        assert end <= plane.offset < end + 16
        assert plane.nbytes == plane.rows * plane.row * plane.width // 8 > 0
        end = plane.offset + plane.nbytes
    return end <= layout.nbytes < end + 16


@pytest.mark.parametrize("codec", [*WITHOUT, *TABLED])
@pytest.mark.parametrize("head_dim", [8, 80, 96, 576])
def test_planes_tile_the_body(codec: str, head_dim: int) -> None:
    """Rule: page.plane.aligned"""
    layout = page_layout(codec, head_dim, 16)
    assert tiled(layout)
    assert layout.bits_per_element == 8 * layout.nbytes / (16 * head_dim)


@pytest.mark.parametrize("codec", TABLED)
@pytest.mark.parametrize("head_dim", [8, 80])
def test_planes_tile_a_table(codec: str, head_dim: int) -> None:
    """Rule: page.plane.aligned, skeleton.table.layout, turbo.table.layout"""
    assert tiled(table_layout(codec, head_dim))


@pytest.mark.parametrize("codec", ["skeleton", "turbo:b=2", "turbo:vr=90,share=1"])
def test_a_codec_without_a_rank_has_no_layout(codec: str) -> None:
    """Rule: codec.fit.resolved"""
    for layout in (page_layout, table_layout):
        with pytest.raises(UsageError, match=r"^\[codec.fit.resolved\]"):
            layout(codec, 64)
    done = resolved(parse_codec(codec), rank=9)
    assert (is_resolved(done), done.integer("rank")) == (True, 9)
    assert page_layout(done, 64).nbytes > 0


@pytest.mark.parametrize("codec", TABLED)
def test_tables_of_a_call_are_checked(codec: str) -> None:
    """Rule: codec.table.given, codec.table.shape"""
    layout, ref = page_layout(codec, 8, 16), ReferenceBackend()
    x, rank = np.zeros((2, 16, 8), dtype=np.float32), layout.codec.integer("rank")
    bodies = np.zeros((1, table_layout(codec, 8).nbytes), dtype=np.uint8)
    pages = ref.encode(x, layout, tables=Skeleton(bodies))
    assert np.array_equal(ref.encode(x, layout, tables=Skeleton(bodies.repeat(2, axis=0))), pages)
    for tables in (None, bodies):
        with pytest.raises(UsageError, match=r"^\[codec.table.given\]"):
            ref.encode(x, layout, tables=tables)
        with pytest.raises(UsageError, match=r"^\[codec.table.given\]"):
            ref.decode(pages, layout, tables=tables)
    for wrong in (bodies[:, 1:], bodies.repeat(3, axis=0), bodies.view(np.int8), bodies[0]):
        with pytest.raises(Malformed, match=r"^\[codec.table.shape\]"):
            ref.decode(pages, layout, tables=Skeleton(wrong))
    for shape, kind in (((1, rank, 16), np.float32), ((1, rank, 8), np.float64)):
        with pytest.raises(ShapeError, match=r"^\[codec.table.shape\]"):
            ref.encode(x, layout, tables=Skeleton(bodies, np.zeros(shape, dtype=kind)))


def test_rate_is_the_length_of_the_bytes() -> None:
    """Rule: rate.bytes.true"""
    x = np.random.default_rng(0).standard_normal((3, 32, 64)).astype(np.float32)
    for codec in ("raw", "fp8", "int", "scalar:b=3", "d4", "e8:q=3"):
        layout = page_layout(codec, 64)
        assert len(ReferenceBackend().encode(x, layout).tobytes()) == 3 * layout.nbytes


def test_sequence_bytes_count_sinks_and_tail() -> None:
    """Rule: rate.sequence.parts"""
    k, v = page_layout("scalar:b=3", 64), page_layout("scalar:b=2", 64)
    exact_token = 2 * 64 * 2
    assert sequence_nbytes(k, v, 3, 4, 16) == 3 * exact_token
    assert sequence_nbytes(k, v, 35, 4, 16) == 35 * exact_token
    assert sequence_nbytes(k, v, 36, 4, 16) == 4 * exact_token + k.nbytes + v.nbytes
    assert sequence_nbytes(k, v, 67, 4, 16) == 35 * exact_token + k.nbytes + v.nbytes
    assert sequence_nbytes(k, v, 67, 4, 16, 31) == 35 * exact_token + k.nbytes + v.nbytes
    assert sequence_nbytes(k, v, 67, 4, 16, 32) == 67 * exact_token
    # Far out, sinks and tail no longer matter.
    limit = (k.bits_per_element + v.bits_per_element) / 2
    assert sequence_bits_per_element(k, v, 10**6, 4, 16) == pytest.approx(limit, rel=1e-3)


def test_refusals_name_page_and_token() -> None:
    """Rule: num.input.finite, page.shape.exact, page.length.exact"""
    layout, ref = page_layout("scalar", 64), ReferenceBackend()
    x = np.zeros((2, 32, 64), dtype=np.float32)
    x[1, 5, 3] = np.nan
    with pytest.raises(RangeError, match=r"\[num.input.finite\].*page 1, token 5"):
        ref.encode(x, layout)
    with pytest.raises(ShapeError, match=r"\[page.shape.exact\]"):
        ref.encode(x[:, :31], layout)
    with pytest.raises(ShapeError, match=r"\[num.input.widen\]"):
        ref.encode(x.astype(np.float64), layout)
    with pytest.raises(Malformed, match=r"\[page.length.exact\]"):
        ref.decode(bytes(layout.nbytes - 1), layout)


def test_errors_survive_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(Malformed("page.length.exact", "too short")))
    assert isinstance(error, KakeyaError)
    assert (error.rule, str(error)) == ("page.length.exact", "[page.length.exact] too short")


@pytest.mark.parametrize("first", [0.0, -0.0])
def test_a_group_of_zeros_of_both_signs_has_step_plus_zero(first: float) -> None:
    """Rule: int.step.rounded, int.lo.positive-zero"""
    layout = page_layout("int:b=4,g=8", 8, 16)
    x = np.zeros((1, 16, 8), dtype=np.float32)
    x[..., ::2] = first
    x[..., 1::2] = -first
    page = ReferenceBackend().encode(x, layout)
    assert not page.any(), "stored zeros are +0, whatever their signs were"
