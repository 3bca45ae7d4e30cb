"""Words of the contract as frozen dataclasses: codec, plane, page layout, support.

Shape letters, here and everywhere: ``N`` pages, ``P`` tokens of a page, ``D`` head dim,
``B`` batch, ``H`` KV heads, ``G`` query heads per KV head, ``T`` tokens of a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Basis = Literal["vectors", "coefficients"]
ParamValue = int | str


@dataclass(frozen=True)
class Codec:
    """A parsed codec string.

    ``str(codec)`` is the canonical string: parameters in registry order, defaults omitted.

    Rule: codec.string.canonical
    """

    id: str
    params: tuple[tuple[str, ParamValue], ...]
    canonical: str = field(compare=False)

    def __str__(self) -> str:
        return self.canonical

    def __getitem__(self, name: str) -> ParamValue:
        return dict(self.params)[name]

    def integer(self, name: str) -> int:
        """Value of an integer parameter."""
        value = self[name]
        if not isinstance(value, int):
            raise TypeError(f"parameter {name} of {self.id} is not an integer")
        return value


@dataclass(frozen=True)
class Plane:
    """A run of equally wide fields inside a page body.

    Attributes
    ----------
    name : str
        As on the codec's page: ``scales``, ``lo``, ``mean``, …; parts of a split field end in
        their width, as in ``codes2``.
    offset, nbytes : int
        Position and used length in bytes; what follows up to the next multiple of 16 is padding.
    width : int
        Bits per field: 1, 2, 4 or a multiple of 8.
    rows, row : int
        Number of rows and fields per row. Sub-byte fields are strided inside a row.
    shift : int
        This plane holds bits ``shift .. shift+width-1`` of its field.
    """

    name: str
    offset: int
    nbytes: int
    width: int
    rows: int
    row: int
    shift: int = 0


@dataclass(frozen=True)
class PageLayout:
    """Byte layout of one page body: one stream (K or V), one KV head, ``tokens`` tokens.

    Build it with :func:`kakeya_ref.layout.page_layout`, which validates.

    Rule: page.header.none, page.plane.aligned
    """

    codec: Codec
    head_dim: int
    tokens: int
    planes: tuple[Plane, ...]
    nbytes: int

    @property
    def bits_per_element(self) -> float:
        """True bits per element of a full page: ``8 * nbytes / (tokens * head_dim)``."""
        return 8 * self.nbytes / (self.tokens * self.head_dim)

    def plane(self, name: str) -> Plane:
        """The plane of that name."""
        return next(p for p in self.planes if p.name == name)

    def __str__(self) -> str:
        return f"{self.codec} D={self.head_dim} P={self.tokens}"


@dataclass(frozen=True)
class Support:
    """Answer of a backend to "can you do this layout?".

    ``features`` is drawn from ``decode``, ``encode``, ``attend``; ``reason`` says why ``ok`` is
    false.
    """

    ok: bool
    features: frozenset[str] = frozenset({"decode", "encode"})
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Paged:
    """Where the pages of a call of attention lie, and which queries see them.

    ``B`` rows, ``H`` KV heads, ``N`` pages of a row; cache indices count as the cache does. NumPy
    arrays, or arrays of a device for a backend that says so.

    Rule: attend.visible.page

    Attributes
    ----------
    slots : (B, H, N) int32
        Place of a page body in both pools; negative where there is no page.
    first, length, since : (B, N) int32
        First cache index of a page; how many of its tokens count; cache index of the first query
        that reads the page from bytes.
    origin : (B,) int64
        Cache index of query token 0.
    queries : int
        Query tokens ``Q``; query row ``m`` belongs to token ``m % Q``.
    frame : (B, N) int32, optional
        Frame of a page.
    """

    slots: Any
    first: Any
    length: Any
    since: Any
    origin: Any
    queries: int = 1
    frame: Any = None
