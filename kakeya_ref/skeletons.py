"""The table that pages of some codecs are read with: mean, basis, centres.

Part of the contract: fast backends take the same object and read the same arrays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import Malformed, RangeError, ShapeError, UsageError
from kakeya_ref.layout import table_layout
from kakeya_ref.types import Codec, PageLayout

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Skeleton:
    """Tables of pages, one each or one for all.

    Attributes
    ----------
    bodies : (S, table_layout(codec, D).nbytes) uint8
        Kept beside the pages, and all that a decoder needs. ``S`` is 1 or the number of pages.
    analysis : (S, rank, D) float32, optional
        What an encoder projects on; the basis of ``bodies`` where absent. It differs from the
        basis under a query metric, and is not kept.
    of_page : (N,) int64, optional
        Which of the bodies each page of a call is read with, where there are neither one nor
        ``N`` of them.

    Rule: codec.table.given
    """

    bodies: U8
    analysis: F32 | None = None
    of_page: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.bodies)

    def body_of(self, page: int) -> int:
        """Number of the body that a page is read with."""
        if self.of_page is not None:
            return int(self.of_page[page])
        return page if len(self.bodies) > 1 else 0


@dataclass(frozen=True)
class Parts:
    """Numbers of a table body, widened to float32.

    Attributes
    ----------
    mean : (D,)
    basis : (rank, D)
    centres : (k, rank)
    trend : (rank,)
        Empty where the codec has none.
    levels : (2**b,)
        Empty where the codec has none.
    spread : (D / 8,)
        Empty where the codec has none.
    """

    mean: F32
    basis: F32
    centres: F32
    trend: F32
    levels: F32
    spread: F32


def table_rank(codec: Codec, head_dim: int) -> int:
    """Rows of the basis of a table."""
    return head_dim if codec.id == "query" else codec.integer("rank")


def table_store(codec: Codec) -> str:
    """Type of the numbers of a table: ``f16`` or ``bf16``."""
    return str(dict(codec.params).get("store", "f16"))


def as_skeleton(tables: Any, layout: PageLayout, pages: int) -> Skeleton:
    """The tables of a call, checked against layout and number of pages.

    Rule: codec.table.given, codec.table.shape

    Raises
    ------
    UsageError
        No tables, or not a :class:`Skeleton`.
    Malformed
        Bodies of the wrong length or number.
    ShapeError
        An analysis that does not fit.
    """
    if not isinstance(tables, Skeleton):
        kind = type(tables).__name__
        raise UsageError("codec.table.given", f"{layout.codec} needs tables=Skeleton, got {kind}")
    bodies, want = tables.bodies, table_layout(layout.codec, layout.head_dim).nbytes
    if not isinstance(bodies, np.ndarray) or bodies.dtype != np.uint8 or bodies.ndim != 2:
        raise Malformed("codec.table.shape", "table bodies are a (S, nbytes) uint8 array")
    number = len(bodies) in (1, pages)
    if tables.of_page is not None:
        of = tables.of_page
        number = of.shape == (pages,) and 0 <= of.min(initial=0) <= of.max(initial=0) < len(bodies)
    if bodies.shape[1] != want or not number:
        raise Malformed(
            "codec.table.shape",
            f"want (1 or {pages}, {want}) bytes of tables for {layout}, got {bodies.shape}",
        )
    shape = (len(bodies), table_rank(layout.codec, layout.head_dim), layout.head_dim)
    analysis = tables.analysis
    if analysis is not None and (analysis.shape != shape or analysis.dtype != np.float32):
        raise ShapeError(
            "codec.table.shape", f"analysis is float32 {shape}, got {analysis.dtype} "
            f"{analysis.shape}"
        )  # fmt: skip
    return tables


def parts(body: U8, codec: Codec, head_dim: int) -> Parts:
    """Numbers of one table body (nbytes,).

    Rule: skeleton.table.layout, turbo.table.layout, query.table.layout, codec.table.finite,
    turbo.levels.ascending, query.spread.descending

    Raises
    ------
    Malformed
        A NaN or infinity, levels that descend, or a spread that ascends.
    """
    names = ("mean", "basis", "centres", "trend", "levels", "spread")
    found = dict.fromkeys(names, np.zeros(0, np.float32))
    for plane in table_layout(codec, head_dim).planes:
        raw = body[plane.offset : plane.offset + plane.nbytes].tobytes()
        values = widen16(np.frombuffer(raw, dtype="<u2"), table_store(codec))
        found[plane.name] = values.reshape(plane.rows, plane.row) if plane.rows > 1 else values
        if not np.isfinite(values).all():
            raise Malformed("codec.table.finite", f"NaN or infinity in the {plane.name} of a table")
    basis = found["basis"].reshape(-1, head_dim)
    centres = found["centres"].reshape(-1, len(basis))
    levels, spread = found["levels"], found["spread"]
    if (levels[1:] < levels[:-1]).any():
        raise Malformed("turbo.levels.ascending", "the levels of a table descend")
    if (spread[1:] > spread[:-1]).any() or (spread < 0).any():
        raise Malformed("query.spread.descending", "the spread of a table ascends or is negative")
    return Parts(found["mean"], basis, centres, found["trend"], levels, spread)


def table_body(codec: Codec, head_dim: int, **numbers: NDArray[Any]) -> U8:
    """Body of one table from its numbers, each rounded once to the stored type.

    Rule: skeleton.table.layout, turbo.table.layout, codec.table.range

    Parameters
    ----------
    numbers : float arrays by plane name
        ``mean`` (D,), ``basis`` (rank, D), ``centres`` (k, rank), ``trend`` (rank,), ``levels``.

    Returns
    -------
    (nbytes,) uint8

    Raises
    ------
    RangeError
        A number that the stored type cannot hold.
    """
    layout = table_layout(codec, head_dim)
    body = np.zeros(layout.nbytes, dtype=np.uint8)
    for plane in layout.planes:
        values = np.asarray(numbers[plane.name], dtype=np.float32)
        bits = narrow16(values.reshape(plane.rows * plane.row), table_store(codec))
        if not np.isfinite(widen16(bits, table_store(codec))).all():
            raise RangeError("codec.table.range", f"{plane.name} does not fit {codec['store']}")
        body[plane.offset : plane.offset + plane.nbytes] = bits.astype("<u2").view(np.uint8)
    return body


def narrow16(x: F32, store: str) -> NDArray[np.uint16]:
    """Bits of float32 numbers rounded to half even to ``f16`` or ``bf16``; too large is infinity.

    Rule: num.round.half-even
    """
    if store == "f16":
        with np.errstate(over="ignore"):
            return x.astype(np.float16).view(np.uint16)
    wide = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
    rounded = (wide + 0x7FFF + (wide >> 16 & 1)) >> 16
    # A NaN must not round to an infinity.
    return np.where(np.isnan(x), 0x7FC0, rounded).astype(np.uint16)


def widen16(bits: NDArray[np.uint16], store: str) -> F32:
    """Float32 numbers of ``f16`` or ``bf16`` bits, exactly."""
    if store == "f16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)
