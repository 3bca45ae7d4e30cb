"""The running softmax of one worker: one page of logits at a time."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import lent
from kakeya_fast.numba_cpu.rows import exponentials, scaled


@lent
def _capped(x, r, scaling, bias, softcap):
    """Products of row ``r`` become capped logits. Rule: attend.logit"""
    for t in range(x.shape[1]):
        x[r, t] = softcap * np.float32(np.tanh(scaling * (x[r, t] + bias) / softcap))


@lent
def _hidden(x, r, low, high):
    """Logits of row ``r`` outside of ``low .. high`` become -inf; the largest.

    Rule: attend.visible.page
    """
    top = np.float32(-np.inf)
    for t in range(x.shape[1]):
        if t < low or t >= high:
            x[r, t] = np.float32(-np.inf)
        top = max(top, x[r, t])
    return top


@lent
def weigh(x, low, high, scaling, bias, softcap, top, total, acc):
    """Fold the products of a page into the running softmax of every row; they become weights.

    One call for all rows: an array that is handed to a function is counted, which for a row of 32
    takes longer than its exponentials.

    Rule: attend.softmax, attend.logit, attend.visible.none

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
    i, tokens = 0, x.shape[1]
    for r in range(len(x)):
        first, factor, more = r * tokens, scaling, bias[r]
        if softcap > np.float32(0):
            _capped(x, r, scaling, bias[r], softcap)
            factor, more = np.float32(1), np.float32(0)
        most = scaled(x, first, tokens, factor, more)
        if low[i] > 0 or high[i] < tokens:
            most = _hidden(x, r, low[i], high[i])
        i = i + 1 if i + 1 < len(low) else 0
        if most == np.float32(-np.inf):
            for t in range(tokens):
                x[r, t] = np.float32(0)
            continue
        if most > top[r]:
            decay = np.float32(np.exp(top[r] - most))
            for e in range(acc.shape[1]):
                acc[r, e] *= decay
            total[r] *= np.float64(decay)
            top[r] = most
        total[r] += np.float64(exponentials(x, first, tokens, top[r]))
