"""Calls of codecs with tables: what is checked before a kernel runs, and what it found."""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.numba_cpu import faults, query, skeleton, turbo
from kakeya_fast.numba_cpu.half import BF16, F16, F32
from kakeya_fast.numba_cpu.lanes import NONE, VECTORS
from kakeya_fast.numba_cpu.threads import run
from kakeya_ref.errors import KakeyaError, RangeError, ShapeError
from kakeya_ref.skeletons import Skeleton, as_skeleton
from kakeya_ref.types import PageLayout

CODECS: dict[str, ModuleType] = {"skeleton": skeleton, "turbo": turbo, "query": query}

_EXPONENTS = {F32: np.uint32(0x7F800000), F16: np.uint16(0x7C00), BF16: np.uint16(0x7F80)}


def encode(bits: NDArray[Any], kind: int, layout: PageLayout, tables: Any) -> NDArray[np.uint8]:
    """Page bodies of bit patterns of vectors.

    Rule: codec.table.given, codec.table.shape, num.input.finite, encode.batch.independent

    Parameters
    ----------
    bits : (N, P, D) uint32 or uint16
        Of type ``kind``.
    tables : kakeya_ref.skeletons.Skeleton

    Returns
    -------
    (N, layout.nbytes) uint8

    Raises
    ------
    UsageError, ShapeError, Malformed
        The tables.
    RangeError
        NaN, infinity, or a number that leaves the range of the codec.
    """
    out = np.empty((len(bits), layout.nbytes), dtype=np.uint8)
    if not len(bits):
        return out
    try:
        known = as_skeleton(tables, layout, len(bits))
    except KakeyaError:
        # Of two faults the vectors' is named, as the reference does.
        _refuse_broken((bits & _EXPONENTS[kind]) == _EXPONENTS[kind])
        raise
    analysis = known.analysis
    if analysis is None:
        analysis = np.empty((0, 0, 0), dtype=np.float32)
    kernels = CODECS[layout.codec.id]
    part = (_of_page(known, len(bits)),) if kernels is query else ()
    broken, refused = run(
        kernels.encode, bits, out, known.bodies, analysis, *part, kernels.plan(layout), kind
    )
    if broken < NONE:
        where = "page {}, token {}".format(*divmod(broken, layout.tokens))
        raise RangeError("num.input.finite", f"NaN or infinity in {where}")
    if refused < NONE:
        raise faults.error(refused, layout)
    return out


def decode_into(
    out: NDArray[Any],
    kind: int,
    body: NDArray[np.uint8],
    layout: PageLayout,
    tables: Any,
    mode: int = VECTORS,
) -> None:
    """Numbers of page bodies; all but ``query`` have no other basis than the vectors.

    Rule: codec.table.given, codec.table.shape, decode.bytes.only

    Parameters
    ----------
    out : (N, P, D) uint32 or uint16
        Bit patterns of type ``kind``, written; of no use when an error is raised.
    body : (N, layout.nbytes) uint8

    Raises
    ------
    UsageError, Malformed
    """
    if not len(body):
        return
    known = as_skeleton(tables, layout, len(body))
    kernels = CODECS[layout.codec.id]
    part = (_of_page(known, len(body)),) if kernels is query else ()
    how = (kind, mode) if kernels is query else (kind,)
    bad, *_ = run(kernels.decode, body, out, known.bodies, *part, kernels.plan(layout), *how)
    if bad < NONE:
        raise faults.error(bad, layout)


def of_heads(known: Any, layout: PageLayout, heads: int) -> Sequence[Skeleton]:
    """Tables of a call of attention, one for each KV head, checked.

    Rule: codec.table.given, codec.table.shape, attend.operand.fits

    Raises
    ------
    UsageError, Malformed, ShapeError
    """
    if known is None:
        as_skeleton(None, layout, 1)
    if len(known) != heads:
        raise ShapeError("attend.operand.fits", f"{len(known)} tables for {heads} KV heads")
    return [as_skeleton(table, layout, 1) for table in known]


def _of_page(known: Skeleton, pages: int) -> NDArray[np.int64]:
    """Which body each page is read with."""
    if known.of_page is not None:
        return known.of_page
    return np.arange(pages) if len(known) > 1 else np.zeros(pages, np.int64)


def _refuse_broken(broken: NDArray[np.bool_]) -> None:
    """Rule: num.input.finite"""
    if broken.any():
        page, token, _ = (int(i) for i in np.argwhere(broken)[0])
        raise RangeError("num.input.finite", f"NaN or infinity in page {page}, token {token}")
