"""Levels of a small quantiser: those of N(0, 1) or a table's own, and counting thresholds."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial
from kakeya_fast.numba_cpu.lanes import copy
from kakeya_fast.numba_cpu.table import LEVEL, plane
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import Codec

LEVEL_FIELDS = [
    ("own", bool),
    ("levels", np.ndarray),  # (2**b,) float32, of N(0, 1)
    ("thresholds", np.ndarray),  # (15,) float32, infinite beyond those there are
]
MOST = 15


def level_plan(codec: Codec) -> tuple[object, ...]:
    """Values of ``LEVEL_FIELDS``. Rule: scalar.table.lloyd-max"""
    levels, inner = lloyd_max(codec.integer("b"))
    thresholds = np.full(MOST, np.inf, dtype=np.float32)
    thresholds[: len(inner)] = inner
    return codec["levels"] == "own", levels.copy(), thresholds


@serial
def set_levels(p, numbers, levels, thresholds):
    """Levels and thresholds of a page, with the numbers of its table.

    Rule: turbo.levels.midpoint, scalar.table.lloyd-max

    Parameters
    ----------
    levels : (2**b,) float32
        Written.
    thresholds : (15,) float32
        Written, infinite at the end.
    """
    copy(p.levels, levels)
    copy(p.thresholds, thresholds)
    if p.own:
        copy(plane(numbers, p.table_planes, LEVEL), levels)
        for i in range(len(levels) - 1):
            thresholds[i] = (levels[i] + levels[i + 1]) * np.float32(0.5)


@serial
def count_thresholds(z, t, many, live, codes):
    """Number of thresholds strictly below every number; 0 in lanes that are not live.

    Rule: turbo.code.boundary, scale.byte.zero

    Parameters
    ----------
    z : (w, V) float32
    t : (15,) float32
        Ascending.
    many : bool
        Whether more than the first seven are finite.
    live : (V,) uint8
        All bits set, or none.
    codes : (w, V) uint8
        Written.
    """
    t0, t1, t2, t3, t4, t5, t6, t7 = t[0], t[1], t[2], t[3], t[4], t[5], t[6], t[7]
    t8, t9, ta, tb, tc, td, te = t[8], t[9], t[10], t[11], t[12], t[13], t[14]
    for i in range(len(z)):
        for v in range(z.shape[1]):
            x = z[i, v]
            low = np.uint8(x > t0) + np.uint8(x > t1) + np.uint8(x > t2) + np.uint8(x > t3)
            low += np.uint8(x > t4) + np.uint8(x > t5) + np.uint8(x > t6)
            codes[i, v] = np.uint8(low) & live[v]
        if many:
            for v in range(z.shape[1]):
                x = z[i, v]
                high = np.uint8(x > t7) + np.uint8(x > t8) + np.uint8(x > t9) + np.uint8(x > ta)
                high += np.uint8(x > tb) + np.uint8(x > tc) + np.uint8(x > td) + np.uint8(x > te)
                codes[i, v] += np.uint8(high) & live[v]
