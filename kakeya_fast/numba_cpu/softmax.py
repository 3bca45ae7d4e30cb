"""The running softmax of one worker: one page of logits at a time."""

from __future__ import annotations

import numpy as np
from numba import njit

from kakeya_fast.numba_cpu.half import as_float
from kakeya_fast.numba_cpu.jit import LOOSE, serial

LOG2E = np.float32(1.4426950408889634)
LEAST = np.float32(-87.0)  # below, an exponential is taken as zero
# 2**f on [-1/2, 1/2], by Taylor: the first term left out is below 2**-27.
C1, C2, C3 = (
    np.float32(0.6931471805599453),
    np.float32(0.2402265069591007),
    np.float32(0.05550410866),
)
C4, C5, C6 = np.float32(0.009618129107), np.float32(0.001333355814), np.float32(0.000154035304)


@njit(**LOOSE)
def exps(x, top):
    """``x`` becomes ``exp(x - top)``, zero far below; the sum. ``top`` is not below any ``x``."""
    total = np.float32(0)
    for t in range(len(x)):
        off = x[t] - top
        kept = off if off > LEAST else LEAST
        y = kept * LOG2E
        n = np.rint(y)
        f = y - n
        power = np.float32(1) + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6)))))
        power *= as_float(np.uint32((np.int32(n) + np.int32(127)) << np.int32(23)))
        power = power if off > LEAST else np.float32(0)
        x[t] = power
        total += power
    return total


@serial
def logits(x, scaling, bias, softcap, low, high):
    """Products of one row become logits, -inf outside of ``low .. high``; the largest.

    Rule: attend.logit, attend.visible.page
    """
    top = np.float32(-np.inf)
    for t in range(len(x)):
        value = scaling * (x[t] + bias)
        x[t] = value if low <= t < high else np.float32(-np.inf)
    if softcap > np.float32(0):
        for t in range(low, high):
            x[t] = softcap * np.tanh(x[t] / softcap)
    for t in range(len(x)):
        top = max(top, x[t])
    return top


@serial
def weigh(x, low, high, scaling, bias, softcap, top, total, acc):
    """Fold one row of products of a page into the running softmax; ``x`` becomes its weights.

    Rule: attend.softmax, attend.visible.none

    Returns
    -------
    top, total : float32, float64
        The new largest logit, and the sum of weights relative to it.
    """
    most = logits(x, scaling, bias, softcap, low, high)
    if most == np.float32(-np.inf):
        x[:] = 0
        return top, total
    if most > top:
        decay = np.float32(np.exp(top - most))
        for i in range(len(acc)):
            acc[i] *= decay
        total *= np.float64(decay)
        top = most
    return top, total + np.float64(exps(x, top))
