"""Tables of calibrated keys as the kernels read them: one book of words for all tables of a call.

The words are named in kernels/query_table.cuh.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.cuda import params
from kakeya_ref.layout import band_bits
from kakeya_ref.skeletons import Parts, Skeleton, as_skeleton, parts
from kakeya_ref.tables import band_savings
from kakeya_ref.types import PageLayout

U32 = NDArray[np.uint32]
WIDEST, WALKED, BAND = 7, 3, 8


def book(known: Skeleton, layout: PageLayout, direction: str) -> U32:
    """Constants of a layout, then all tables of a call for one direction.

    Rule: codec.table.finite, query.spread.descending, query.encode.project

    Parameters
    ----------
    known : Skeleton
        Checked against the layout.
    direction : str
        ``encode``: steps of the chains are columns of the analysis; ``decode``: rows of the basis.

    Raises
    ------
    Malformed
    """
    made = []
    for at, body in enumerate(known.bodies):
        part = parts(body, layout.codec, layout.head_dim)
        steps = part.basis
        if direction == "encode":
            steps = (steps if known.analysis is None else known.analysis[at]).T
        made.append(_table(part, steps, layout))
    row = band_bits(layout.codec, layout.head_dim)
    head = np.array([row, len(made[0]), len(made), 0], np.uint32)
    return np.concatenate([params.tables(layout), head, *made])


def _table(part: Parts, steps: NDArray[np.float32], layout: PageLayout) -> U32:
    width = widths(part.spread, band_bits(layout.codec, layout.head_dim))
    bands = np.zeros((1 + len(width), 4), np.uint32)
    bands[0, :2] = (width > 0).sum(), (width > WALKED).sum()
    bands[1:, 0] = width
    bands[1:, 1] = np.cumsum(width) - width
    bands[1:, 2] = part.spread.view(np.uint32)
    numbers = np.concatenate([part.mean, steps.ravel()]).view(np.uint32)
    return np.concatenate([bands.ravel(), numbers])


def widths(spread: NDArray[np.float32], total: int) -> NDArray[np.int64]:
    """Bits of each band: one by one to the band that saves most by it, the lowest of equals.

    Rule: query.bits.greedy

    Examples
    --------
    >>> widths(np.array([1, 0.25, 0.01], dtype=np.float32), 4).tolist()
    [3, 1, 0]
    """
    bits = np.zeros(len(spread), np.int64)
    saved = spread * band_savings()[0]
    for _ in range(total):
        at = int(saved.argmax())
        bits[at] += 1
        saved[at] = spread[at] * band_savings()[bits[at]] if bits[at] < WIDEST else -1
    return bits


def checked(tables: Any, layout: PageLayout, pages: int) -> Skeleton:
    """Tables of a call on so many pages.

    Rule: codec.table.given, codec.table.shape

    Raises
    ------
    UsageError, Malformed, ShapeError
    """
    return as_skeleton(tables, layout, pages)


def listed(known: Skeleton, pages: int) -> NDArray[np.int64] | None:
    """Which table each page is read with; nothing where that is its number, counted round."""
    of = known.of_page
    if of is None or np.array_equal(of, np.arange(pages) % len(known)):
        return None
    return np.ascontiguousarray(of, np.int64)
