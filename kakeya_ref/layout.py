"""Page layout: which bytes of a page body hold what, and how many bytes a sequence costs.

Layout is part of the contract, not of the arithmetic: fast backends share this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from kakeya_ref.errors import ShapeError
from kakeya_ref.registry import parse_codec, registry
from kakeya_ref.types import Codec, PageLayout, Plane

WIDTHS = (32, 16, 8, 4, 2, 1)
ALIGN = 16
LATTICE_BLOCK = {"d4": 4, "e8": 8}


@lru_cache(maxsize=1024)
def page_layout(codec: str | Codec, head_dim: int, tokens: int = 32) -> PageLayout:
    """Layout of one page body.

    Rule: page.head-dim.multiple-of-8, page.tokens.multiple-of-16, page.plane.aligned,
    page.plane.split, page.plane.strided, page.header.none

    Raises
    ------
    UsageError
        The codec string is wrong.
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
    limits = registry()["page"]
    if head_dim % limits["head_dim_multiple"] or not 8 <= head_dim <= limits["head_dim_max"]:
        raise ShapeError(
            "page.head-dim.multiple-of-8",
            f"head dim {head_dim} is not a multiple of 8 in 8..{limits['head_dim_max']}",
        )
    if tokens < 1 or tokens % limits["tokens_multiple"]:
        raise ShapeError(
            "page.tokens.multiple-of-16", f"a page of {tokens} tokens is not a multiple of 16"
        )
    planes: list[Plane] = []
    end = 0
    for name, width, rows, row, shift in _fields(parsed, head_dim, tokens):
        nbytes = rows * row * width // 8
        planes.append(Plane(name, end, nbytes, width, rows, row, shift))
        end += -(-nbytes // ALIGN) * ALIGN
    return PageLayout(parsed, head_dim, tokens, tuple(planes), end)


def _fields(codec: Codec, d: int, p: int) -> Sequence[tuple[str, int, int, int, int]]:
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
    if codec.id == "scalar":
        return [("scales", 8, 1, p, 0), *split("codes", codec.integer("b"), p, d)]
    if codec.id in LATTICE_BLOCK:
        block = LATTICE_BLOCK[codec.id]
        bits = (lattice_count(codec) - 1).bit_length()
        return [("scales", 8, 1, p, 0), *split("index", bits, 1, p * d // block)]
    raise AssertionError(f"registry names {codec.id}, layout does not")


def split(name: str, bits: int, rows: int, row: int) -> list[tuple[str, int, int, int, int]]:
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


def sequence_nbytes(k: PageLayout, v: PageLayout, n: int, sinks: int, exact_bits: int) -> int:
    """True bytes of ``n`` tokens of one layer and one KV head, both streams.

    Full pages are packed; ``sinks`` first tokens and the unfilled tail are kept exact at
    ``exact_bits`` bits per element.

    Rule: rate.bytes.true, rate.sequence.parts

    Examples
    --------
    >>> k = page_layout("scalar:b=4", 64, 32)
    >>> sequence_nbytes(k, k, 4 + 32 + 1, 4, 16) == 2 * (k.nbytes + 5 * 64 * 2)
    True
    """
    pages = max(0, n - sinks) // k.tokens
    exact = n - pages * k.tokens
    return pages * (k.nbytes + v.nbytes) + exact * (k.head_dim + v.head_dim) * exact_bits // 8


def sequence_bits_per_element(
    k: PageLayout, v: PageLayout, n: int, sinks: int, exact_bits: int
) -> float:
    """Effective bits per element of a sequence, sinks and tail included.

    Rule: rate.sequence.parts
    """
    return 8 * sequence_nbytes(k, v, n, sinks, exact_bits) / (n * (k.head_dim + v.head_dim))
