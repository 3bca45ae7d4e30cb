"""How an encoder of profile ``bounded`` is judged: by distance, not by bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance import levels
from kakeya_conformance.compare import is_pages, no_worse, want
from kakeya_conformance.model import Nonconforming
from kakeya_conformance.oracle import GAINED, Oracle, ideal_coefficients
from kakeya_conformance.tables import faithful
from kakeya_ref.errors import KakeyaError
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.tables import gain_grid, gain_midpoints
from kakeya_ref.types import PageLayout

F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]


def judge(
    got: Any,
    wanted: U8,
    x: NDArray[Any],
    layout: PageLayout,
    oracle: Oracle,
    tables: Skeleton | None = None,
) -> None:
    """Fail unless the pages are as good as the reference's.

    Vectors whose scale byte is the reference's must have, together, a mean squared error within
    the allowance. Another byte is accepted where the gain is as good as on the border of the two.
    Where a table's basis is not orthonormal, distance says nothing, and pages must only be legal.

    Rule: backend.profile.bounded, num.level.tie, num.level.quality
    """
    is_pages(got, layout, len(x))
    same = np.ones(x.shape[:2], dtype=bool)
    if layout.codec.id in GAINED:
        same = _same_gain(got, wanted, x, layout)
    ours, theirs = (_errors(p, x, layout, oracle, tables)[same] for p in (wanted, got))
    if same.any() and (tables is None or faithful(tables, layout)):
        no_worse(float(theirs.mean()), float(ours.mean()), f"{layout} encoded")


def _same_gain(got: U8, wanted: U8, x: NDArray[Any], layout: PageLayout) -> NDArray[np.bool_]:
    plane = layout.plane("scales")
    left, right = (
        p[:, plane.offset : plane.offset + plane.nbytes].astype(np.int64) for p in (got, wanted)
    )
    same: NDArray[np.bool_] = left == right
    upper = np.maximum(left, right)
    want((np.abs(left - right) <= 1).all(), f"{layout}: scale bytes more than one step apart")
    if layout.codec.id == "fp8":
        gain = np.abs(x.astype(np.float64)).max(axis=-1) / 448
        border = gain_grid()[upper - 1]
    else:
        gain = np.sqrt((ideal_coefficients(x, layout) ** 2).mean(axis=-1))
        border = gain_midpoints()[upper]
    near = np.abs(gain - border) <= levels.NORM * levels.EPS32 * border
    want((same | near).all(), f"{layout}: another scale byte, and the gain is on no border")
    return same


def _errors(
    pages: U8, x: NDArray[Any], layout: PageLayout, oracle: Oracle, tables: Skeleton | None
) -> F64:
    """Mean squared error of every vector, read by the reference."""
    read = oracle.decode(np.ascontiguousarray(pages), layout, tables=tables)
    if isinstance(read, KakeyaError):
        raise Nonconforming(f"{layout}: wrote pages that are refused: {read}")
    out: F64 = ((read.astype(np.float64) - x.astype(np.float64)) ** 2).mean(axis=-1)
    return out
