"""One side of attention over pages of any codec without tables: float32 coefficients.

The functions of a side, here and in :mod:`kakeya_fast.numba_cpu.narrow`, work on a plan ``p`` and
a scratch tuple ``s``; see there for what each does.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from numba import njit

from kakeya_fast.numba_cpu.half import F32
from kakeya_fast.numba_cpu.jit import LOOSE, serial
from kakeya_fast.numba_cpu.lanes import COEFFICIENTS, NONE, copy


@serial
def scratch(p, rows, tokens, size):
    """Working memory of one worker: the coefficients of a page, the queries."""
    x, q = np.empty((1, tokens, size), np.uint32), np.empty((rows, size), np.float32)
    return x, q, np.empty((1, p.nbytes), np.uint8)


def reader(module: ModuleType) -> Callable[..., Any]:
    """``read`` for the codec of a module of kernels."""
    decode = serial(module.decode.function)

    @serial
    def read(p, s, page):
        copy(page, s[2][0].view(np.uint64))
        return decode(s[2], s[0], p, F32, COEFFICIENTS, 0, 1) == NONE

    return read


@serial
def load(p, s, q, head):
    """Take queries (M, D) of a head in."""
    for m in range(len(q)):
        copy(q[m], s[1][m])


@njit(**LOOSE)
def products(p, s, page, out):
    """Products of the queries with every token of the page."""
    x, q = s[0].view(np.float32)[0], s[1]
    for t in range(out.shape[1]):
        token = x[t]
        for m in range(len(out)):
            query = q[m]
            total = np.float32(0)
            for i in range(len(token)):
                total += token[i] * query[i]
            out[m, t] = total


@njit(**LOOSE)
def gather(p, s, page, weights, acc):
    """Add the values of the page, weighted."""
    x = s[0].view(np.float32)[0]
    for m in range(len(weights)):
        sums = acc[m]
        for t in range(0, weights.shape[1], 4):
            a, b, c, d = x[t], x[t + 1], x[t + 2], x[t + 3]
            wa, wb, wc, wd = weights[m, t], weights[m, t + 1], weights[m, t + 2], weights[m, t + 3]
            for i in range(len(sums)):
                sums[i] += wa * a[i] + wb * b[i] + wc * c[i] + wd * d[i]


@serial
def finish(p, acc, out):
    """Numbers of ``acc`` where they belong."""
    copy(acc, out)
