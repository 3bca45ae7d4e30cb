"""The table of a ``skeleton`` or ``turbo`` page, widened and laid out for chains."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.faults import FINE, LEVELS, TABLE
from kakeya_fast.numba_cpu.half import BF16, F16, INFINITE, MAGNITUDE, widen
from kakeya_fast.numba_cpu.jit import serial
from kakeya_fast.numba_cpu.lanes import copy
from kakeya_ref.layout import residual_width, table_layout
from kakeya_ref.types import PageLayout

TABLE_FIELDS = [
    ("table_planes", np.ndarray),  # (5, 2) int64, first number and count; see PLANES
    ("stored", int),  # type of the stored numbers
    ("rank", int),
    ("width", int),  # rank, rounded up to a multiple of 8
    ("k", int),
]
PLANES = ("mean", "basis", "centres", "trend", "levels")
MEAN, BASIS, CENTRES, TREND, LEVEL = range(5)


class Table(NamedTuple):
    """Numbers of one table; what lies beyond the rank or the number of centres is zero."""

    body: np.ndarray  # (nbytes,) uint8
    numbers: np.ndarray  # (nbytes // 2,) float32, the whole body
    mean: np.ndarray  # (D,) float32
    dense: np.ndarray  # float32; rows to project on, or (D, width) columns of the basis
    centres: np.ndarray  # (k rounded up to 4, width) float32
    trend: np.ndarray  # (4, width) float32, the first row counts


def table_plan(layout: PageLayout) -> tuple[object, ...]:
    """Values of ``TABLE_FIELDS``.

    Rule: skeleton.table.layout, turbo.table.layout
    """
    codec = layout.codec
    planes = np.zeros((len(PLANES), 2), dtype=np.int64)
    for p in table_layout(codec, layout.head_dim).planes:
        planes[PLANES.index(p.name)] = p.offset // 2, p.rows * p.row
    stored = {"f16": F16, "bf16": BF16}[str(codec["store"])]
    return planes, stored, codec.integer("rank"), residual_width(codec), codec.integer("k")


@serial
def up4(n):
    """The next multiple of 4: chains are run four at a time."""
    return (n + 3) // 4 * 4


@serial
def empty_table(nbytes, dense_rows, dense_row, d, p):
    """A table to be filled by :func:`read_table`."""
    return Table(
        np.empty(nbytes, np.uint8),
        np.zeros(nbytes // 2, np.float32),
        np.zeros(d, np.float32),
        np.zeros((dense_rows, dense_row), np.float32),
        np.zeros((up4(p.k), p.width), np.float32),
        np.zeros((4, p.width), np.float32),
    )


@serial
def read_table(bodies, at, p, table):
    """Widen the numbers of a table.

    Rule: codec.table.finite, turbo.levels.ascending

    Parameters
    ----------
    bodies : (S, nbytes) uint8
    at : int
        Which of them.
    table : Table
        Written, but for ``dense``.

    Returns
    -------
    int
        ``TABLE``, ``LEVELS`` or ``FINE``.
    """
    copy(bodies[at], table.body)
    halves, words = table.body.view(np.uint16), table.numbers.view(np.uint32)
    largest = np.uint32(0)
    for q in range(len(p.table_planes)):
        start, count = p.table_planes[q, 0], p.table_planes[q, 1]
        for i in range(start, start + count):
            u = widen(np.uint32(halves[i]), p.stored)
            largest = max(largest, np.uint32(u & MAGNITUDE))
            words[i] = u
    if largest >= INFINITE:
        return TABLE
    levels = plane(table.numbers, p.table_planes, LEVEL)
    for i in range(1, len(levels)):
        if levels[i] < levels[i - 1]:
            return LEVELS
    copy(plane(table.numbers, p.table_planes, MEAN), table.mean)
    fill(plane(table.numbers, p.table_planes, CENTRES), table.centres, p.k, p.rank)
    if p.table_planes[TREND, 1]:
        fill(plane(table.numbers, p.table_planes, TREND), table.trend, 1, p.rank)
    return FINE


@serial
def plane(numbers, planes, which):
    """Numbers of one plane, flat; none where the codec lacks it."""
    start, count = planes[which, 0], planes[which, 1]
    return numbers[start : start + count]


@serial
def fill(flat, target, rows, row):
    """Copy ``rows`` of ``row`` numbers into an array of longer rows."""
    for i in range(rows):
        for j in range(row):
            target[i, j] = flat[i * row + j]


@serial
def set_analysis(analysis, at, p, table):
    """What an encoder projects on: the analysis of a table, or its basis where there is none.

    Rule: skeleton.encode.project, turbo.encode.project
    """
    if len(analysis):
        for i in range(p.rank):
            copy(analysis[at, i], table.dense[i])
    else:
        fill(plane(table.numbers, p.table_planes, BASIS), table.dense, p.rank, len(table.mean))


@serial
def set_synthesis(p, table):
    """Columns of the basis, (D, width).

    Rule: skeleton.decode.synthesis, turbo.decode.synthesis
    """
    basis, d = plane(table.numbers, p.table_planes, BASIS), len(table.mean)
    for i in range(p.rank):
        for j in range(d):
            table.dense[j, i] = basis[i * d + j]
