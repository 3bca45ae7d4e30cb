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
def exps(x, r, top):
    """Row ``r`` becomes ``exp(x - top)``, zero far below; the sum. ``top`` is not below any."""
    total = np.float32(0)
    for t in range(x.shape[1]):
        off = x[r, t] - top
        kept = off if off > LEAST else LEAST
        y = kept * LOG2E
        n = np.rint(y)
        f = y - n
        power = np.float32(1) + f * (C1 + f * (C2 + f * (C3 + f * (C4 + f * (C5 + f * C6)))))
        power *= as_float(np.uint32((np.int32(n) + np.int32(127)) << np.int32(23)))
        power = power if off > LEAST else np.float32(0)
        x[r, t] = power
        total += power
    return total


@serial
def logits(x, r, scaling, bias, softcap, low, high):
    """Products of row ``r`` become logits, -inf outside of ``low .. high``; the largest.

    Rule: attend.logit, attend.visible.page
    """
    top = np.float32(-np.inf)
    for t in range(x.shape[1]):
        x[r, t] = scaling * (x[r, t] + bias)
    for t in range(min(low, x.shape[1])):
        x[r, t] = np.float32(-np.inf)
    for t in range(max(high, 0), x.shape[1]):
        x[r, t] = np.float32(-np.inf)
    if softcap > np.float32(0):
        for t in range(low, high):
            x[r, t] = softcap * np.tanh(x[r, t] / softcap)
    for t in range(x.shape[1]):
        top = max(top, x[r, t])
    return top


@serial
def weigh(x, low, high, scaling, bias, softcap, top, total, acc):
    """Fold the products of a page into the running softmax of every row; they become weights.

    One call for all rows: an array that is handed to a function is counted, which for a row of 32
    takes longer than its exponentials.

    Rule: attend.softmax, attend.visible.none

    Parameters
    ----------
    x : (M, P) float32
    low, high : (Q,) int64
        Tokens that each query sees; row ``r`` is of query ``r % Q``.
    bias : (M,) float32
    top, total : (M,) float32, float64
        The largest logits so far, and the sums of weights relative to them.
    acc : (M, E) float32
        Weighted sums, scaled to the new ``top``.
    """
    i = 0
    for r in range(len(x)):
        most = logits(x, r, scaling, bias[r], softcap, low[i], high[i])
        i = i + 1 if i + 1 < len(low) else 0
        if most == np.float32(-np.inf):
            for t in range(x.shape[1]):
                x[r, t] = np.float32(0)
            continue
        if most > top[r]:
            decay = np.float32(np.exp(top[r] - most))
            for e in range(acc.shape[1]):
                acc[r, e] *= decay
            total[r] *= np.float64(decay)
            top[r] = most
        total[r] += np.float64(exps(x, r, top[r]))
