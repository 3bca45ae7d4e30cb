"""Page layout: which bytes of a page body hold what, and how many bytes a sequence costs.

Layout is part of the contract, not of the arithmetic: fast backends share this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from numbers import Integral

from kakeya_ref.errors import ShapeError, UsageError
from kakeya_ref.registry import is_resolved, parse_codec, registry, table_kind
from kakeya_ref.types import Codec, PageLayout, Plane

WIDTHS = (32, 16, 8, 4, 2, 1)
ALIGN = 16
LATTICE_BLOCK = {"d4": 4, "e8": 8}


@lru_cache(maxsize=4096, typed=True)
def page_layout(codec: str | Codec, head_dim: int, tokens: int = 32) -> PageLayout:
    """Layout of one page body.

    Rule: page.head-dim.multiple-of-8, page.tokens.multiple-of-16, page.plane.aligned,
    page.plane.split, page.plane.strided, page.header.none

    Raises
    ------
    UsageError
        The codec string is wrong, or leaves a rank to a fit.
    ShapeError
        ``head_dim`` is not a multiple of 8 in 8..1024, or ``tokens`` not a multiple of 16.

    Examples
    --------
    >>> page_layout("scalar:b=3", 64, 32).nbytes
    800
    >>> [p.name for p in page_layout("scalar:b=3", 64, 32).planes]
    ['scales', 'codes2', 'codes1']
    """
    parsed = parse_codec(codec)
    _check_head_dim(parsed, head_dim)
    multiple = registry()["page"]["tokens_multiple"]
    if not isinstance(tokens, Integral) or tokens < 1 or tokens % multiple:
        raise ShapeError("page.tokens.multiple-of-16", f"{tokens} tokens: no multiple of 16")
    return _placed(parsed, head_dim, tokens, _fields(parsed, head_dim, tokens))


@lru_cache(maxsize=1024)
def table_layout(codec: str | Codec, head_dim: int) -> PageLayout:
    """Layout of the table that a page of some codecs is read with; ``tokens`` is 0.

    Rule: skeleton.table.layout, turbo.table.layout, query.table.layout, page.plane.aligned

    Raises
    ------
    UsageError
        A codec without such a table, or one that leaves the rank to a fit.

    Examples
    --------
    >>> [(p.name, p.row) for p in table_layout("turbo:rank=8,k=2", 64).planes]
    [('mean', 64), ('basis', 64), ('centres', 8)]
    """
    parsed = parse_codec(codec)
    if not table_kind(parsed):
        raise UsageError("codec.table.given", f"{parsed} needs no table")
    _check_head_dim(parsed, head_dim)
    if parsed.id == "query":
        rows = [("mean", 1, head_dim), ("basis", head_dim, head_dim), ("spread", 1, head_dim // 8)]
        return _placed(parsed, head_dim, 0, [(name, 16, r, n, 0) for name, r, n in rows])
    r = parsed.integer("rank")
    fields = [
        ("mean", 16, 1, head_dim, 0),
        ("basis", 16, r, head_dim, 0),
        ("centres", 16, parsed.integer("k"), r, 0),
    ]
    if parsed.id == "skeleton" and parsed["time"] == "trend":
        fields.append(("trend", 16, 1, r, 0))
    if parsed.id == "turbo" and parsed["levels"] == "own":
        fields.append(("levels", 16, 1, 1 << parsed.integer("b"), 0))
    return _placed(parsed, head_dim, 0, fields)


def _check_head_dim(codec: Codec, head_dim: int) -> None:
    limits = registry()["page"]
    whole = isinstance(head_dim, Integral) and not head_dim % limits["head_dim_multiple"]
    if not whole or not 8 <= head_dim <= limits["head_dim_max"]:
        raise ShapeError(
            "page.head-dim.multiple-of-8",
            f"head dim {head_dim} is not a multiple of 8 in 8..{limits['head_dim_max']}",
        )
    if not is_resolved(codec):
        raise UsageError("codec.fit.resolved", f"{codec} leaves its rank to a fit; fit first")
    if table_kind(codec) == "skeleton" and codec.integer("rank") > head_dim:
        raise ShapeError("codec.rank.head-dim", f"{codec}: more components than {head_dim} numbers")


Field = tuple[str, int, int, int, int]


def _placed(codec: Codec, head_dim: int, tokens: int, fields: Sequence[Field]) -> PageLayout:
    planes: list[Plane] = []
    end = 0
    for name, width, rows, row, shift in fields:
        nbytes = rows * row * width // 8
        planes.append(Plane(name, end, nbytes, width, rows, row, shift))
        end += -(-nbytes // ALIGN) * ALIGN
    return PageLayout(codec, head_dim, tokens, tuple(planes), end)


def _fields(codec: Codec, d: int, p: int) -> Sequence[Field]:
    """(name, width, rows, row, shift) of every plane of a codec."""
    if codec.id == "raw":
        return [("values", 32 if codec["dtype"] == "f32" else 16, p, d, 0)]
    if codec.id == "fp8":
        return [("scales", 8, 1, p, 0), ("codes8", 8, p, d, 0)]
    if codec.id == "int":
        g = codec.integer("g")
        rows, row = (p, -(-d // g)) if codec["axis"] == "token" else (-(-p // g), d)
        params = [("lo", 16, rows, row, 0), ("step", 16, rows, row, 0)]
        return params + split("codes", codec.integer("b"), p, d)
    if codec.id in ("scalar", "trellis"):
        return [("scales", 8, 1, p, 0), *split("codes", codec.integer("b"), p, d)]
    if codec.id in LATTICE_BLOCK:
        block = LATTICE_BLOCK[codec.id]
        bits = (lattice_count(codec) - 1).bit_length()
        return [("scales", 8, 1, p, 0), *split("index", bits, 1, p * d // block)]
    if codec.id == "query":
        return [("scales", 8, 1, p, 0), ("codes8", 8, p, band_bits(codec, d), 0)]
    if codec.id == "skeleton":
        return _skeleton_fields(codec, p)
    if codec.id == "turbo":
        return _turbo_fields(codec, p)
    raise AssertionError(f"registry names {codec.id}, layout does not")


def _skeleton_fields(codec: Codec, p: int) -> list[Field]:
    """Rule: skeleton.page.layout"""
    r, kept = codec.integer("rank"), residual_kept(codec)
    fields = split("seg", (codec.integer("k") - 1).bit_length(), 1, p)
    if codec["time"] == "trend":
        fields.append(("along", 16, 1, p, 0))
    fields += [("proj", 16, 1, p, 0), ("value", 16, p, kept, 0)]
    # All kept: their places need no saying.
    return fields + (split("place", (r - 1).bit_length(), 1, p * kept) if kept < r else [])


def _turbo_fields(codec: Codec, p: int) -> list[Field]:
    """Rule: turbo.page.layout, turbo.out.range"""
    width, out = residual_width(codec), codec.integer("out")
    if out > p * width:
        raise ShapeError("turbo.out.range", f"{out} outliers in {p * width} numbers of a page")
    fields = [("scales", 8, 1, p, 0), *split("seg", (codec.integer("k") - 1).bit_length(), 1, p)]
    fields += [("proj", 16, 1, p, 0), *split("codes", codec.integer("b"), p, width)]
    if out:
        fields += [("outvalue", 16, 1, out, 0)]
        fields += split("outplace", (p * width - 1).bit_length(), 1, out)
    return fields


def band_bits(codec: Codec, head_dim: int) -> int:
    """Bits that ``query`` shares out to the bands of 8 coefficients; bytes of a token's codes.

    Rule: query.page.layout

    Examples
    --------
    >>> band_bits(parse_codec("query:b=2.5"), 64)
    20
    """
    return codec.integer("b") * head_dim // 80


def residual_kept(codec: Codec) -> int:
    """Residual numbers that ``skeleton`` keeps of a token."""
    return min(codec.integer("res"), codec.integer("rank"))


def residual_width(codec: Codec) -> int:
    """Length of ``turbo``'s residual, padded to the next multiple of 8.

    Rule: turbo.residual.padded
    """
    return -(-codec.integer("rank") // 8) * 8


def split(name: str, bits: int, rows: int, row: int) -> list[Field]:
    """Planes of a ``bits`` wide field: widths are the binary digits of ``bits``, widest first.

    Rule: page.plane.split
    """
    planes, shift = [], 0
    for width in WIDTHS:
        while bits - shift >= width:
            planes.append((f"{name}{width}", width, rows, row, shift))
            shift += width
    return planes


def lattice_count(codec: Codec) -> int:
    """Number of lattice points in the cube ``[-q, q]^block``.

    Rule: e8.index.bijective, d4.index.bijective

    Examples
    --------
    >>> lattice_count(parse_codec("e8:q=1"))
    3409
    >>> lattice_count(parse_codec("d4:q=1"))
    41
    """
    q = codec.integer("q")
    block = LATTICE_BLOCK[codec.id]
    integer: int = ((2 * q + 1) ** block + 1) // 2
    return integer if block == 4 else integer + q * (2 * q) ** 7


def sequence_nbytes(
    k: PageLayout, v: PageLayout, n: int, sinks: int, exact_bits: int, residual: int = 0
) -> int:
    """True bytes of ``n`` tokens of one layer and one KV head, both streams, without tables.

    Full pages are packed; ``sinks`` first tokens, the ``residual`` last ones and the unfilled
    tail before them are kept exact at ``exact_bits`` bits per element.

    Rule: rate.bytes.true, rate.sequence.parts

    Examples
    --------
    >>> k = page_layout("scalar:b=4", 64, 32)
    >>> sequence_nbytes(k, k, 4 + 32 + 1, 4, 16) == 2 * (k.nbytes + 5 * 64 * 2)
    True
    """
    pages = max(0, n - sinks - residual) // k.tokens
    exact = n - pages * k.tokens
    return pages * (k.nbytes + v.nbytes) + exact * (k.head_dim + v.head_dim) * exact_bits // 8


def sequence_bits_per_element(
    k: PageLayout, v: PageLayout, n: int, sinks: int, exact_bits: int, residual: int = 0
) -> float:
    """Effective bits per element of a sequence; everything exact is included.

    Rule: rate.sequence.parts
    """
    total = sequence_nbytes(k, v, n, sinks, exact_bits, residual)
    return 8 * total / (n * (k.head_dim + v.head_dim))
