"""Dense products in a fixed order: what ``skeleton`` and ``turbo`` share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import Malformed, RangeError
from kakeya_ref.skeletons import Parts, Skeleton, narrow16, parts, widen16
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def chain(x: F32, rows: F32) -> F32:
    """Products of vectors with rows, each a chain of fp32 multiplies and adds in index order.

    Rule: num.chain.order, num.fp32.no-fma

    Parameters
    ----------
    x : (M, n) float32
    rows : (r, n) float32

    Returns
    -------
    (M, r) float32
        ``((+0 + x[0] * row[0]) + x[1] * row[1]) + …``, every operation rounded once.

    Notes
    -----
    Level: bits. A library product would be faster, and differ between machines.
    """
    out = np.zeros((len(x), len(rows)), dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for i in range(x.shape[1]):
            out += x[:, i, None] * rows[:, i]
    return out


def project(x: F32, part: Parts, analysis: F32 | None) -> F32:
    """Coefficients of centred vectors (P, D), in the basis of a table.

    Rule: skeleton.encode.project, turbo.encode.project
    """
    with np.errstate(over="ignore"):
        centred = x - part.mean
    return chain(centred, part.basis if analysis is None else analysis)


def synthesise(c: F32, part: Parts, rule: str) -> F32:
    """Vectors (P, D) of coefficients (P, rank).

    Rule: skeleton.decode.synthesis, turbo.decode.synthesis

    Raises
    ------
    Malformed
        A number beyond float32: no encoder wrote these bytes.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        out: F32 = chain(c, np.ascontiguousarray(part.basis.T)) + part.mean
    if not np.isfinite(out).all():
        raise Malformed(rule, "a decoded number is not finite")
    return out


@dataclass(frozen=True)
class Segments:
    """Nearest centre of every coefficient vector, and what it leaves.

    Attributes
    ----------
    seg : (P,) uint64
    proj : (P,) uint64
        Bits of the stored projection.
    rest : (P, rank) float32
        Coefficients minus the stored projection times the centre.
    """

    seg: U64
    proj: U64
    rest: F32


def segment(c: F32, part: Parts, store: str, rule: str) -> Segments:
    """Centre of largest absolute product, the lowest on ties.

    Rule: skeleton.seg.absolute, turbo.seg.absolute

    Raises
    ------
    RangeError
        A number beyond float32, or a projection that the stored type cannot hold.
    """
    dots = chain(c, part.centres)
    finite(dots, rule)
    seg = np.abs(dots).argmax(axis=1)
    bits = stored(dots[np.arange(len(c)), seg], store, rule)
    with np.errstate(over="ignore", invalid="ignore"):
        rest = c - widen16(bits, store)[:, None] * part.centres[seg]
    finite(rest, rule)
    return Segments(seg.astype(np.uint64), bits.astype(np.uint64), rest)


def centre_part(fields: dict[str, U64], part: Parts, store: str, rule: str) -> F32:
    """Decoded share of the centres: projection times centre, (P, rank).

    Rule: skeleton.seg.range, turbo.seg.range

    Raises
    ------
    Malformed
        A centre that does not exist, or a projection that is not finite.
    """
    proj = widen16(fields["proj"].astype(np.uint16), store)
    # One centre needs no field.
    seg = fields.get("seg", np.zeros(len(proj), np.uint64))
    if (seg >= len(part.centres)).any():
        raise Malformed(f"{rule}.seg.range", f"centre {int(seg.max())} of {len(part.centres)}")
    if not np.isfinite(proj).all():
        raise Malformed(f"{rule}.value.finite", "a stored projection is not finite")
    with np.errstate(over="ignore"):
        return proj[:, None] * part.centres[seg.astype(np.int64)]


def places(fields: U64, count: int, rule: str) -> NDArray[np.int64]:
    """Places (rows, n) of sparse numbers, each row strictly ascending and below ``count``.

    Rule: skeleton.place.ascending, turbo.out.ascending

    Raises
    ------
    Malformed
    """
    at = fields.astype(np.int64)
    if (at >= count).any() or (np.diff(at, axis=-1) <= 0).any():
        raise Malformed(rule, f"places of sparse numbers do not ascend below {count}")
    return at


def largest(magnitude: F32, n: int) -> NDArray[np.int64]:
    """Places of the ``n`` largest numbers of each row (rows, m), ascending; ties to the lowest.

    Rule: skeleton.place.largest, turbo.out.largest
    """
    order = np.argsort(-magnitude, axis=-1, kind="stable")
    return np.sort(order[..., :n], axis=-1)


def stored(x: F32, store: str, rule: str) -> NDArray[np.uint16]:
    """Bits of numbers in the stored type; refused where they do not fit.

    Rule: skeleton.value.range, turbo.value.range

    Raises
    ------
    RangeError
    """
    bits = narrow16(x, store)
    finite(widen16(bits, store), rule)
    return bits


def finite(x: F32, rule: str) -> None:
    """Refuse what has left float32 on the way. Rule: skeleton.value.range, turbo.value.range"""
    bad = ~np.isfinite(x)
    if bad.any():
        token = int(np.argwhere(bad)[0][0])
        raise RangeError(rule, f"token {token} of a page leaves the range of the codec")


def tables_of(tables: Skeleton, layout: PageLayout, n: int) -> tuple[Parts, F32 | None]:
    """Numbers and analysis of the table of page ``n``."""
    at = tables.body_of(n)
    analysis = None if tables.analysis is None else tables.analysis[at]
    return parts(tables.bodies[at], layout.codec, layout.head_dim), analysis
