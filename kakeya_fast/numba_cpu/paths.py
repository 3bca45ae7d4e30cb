"""The cheapest path through the trellis, with widths that change on the way, V tokens at once."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.jit import serial
from kakeya_fast.numba_cpu.lanes import copy

STATES, LABELS = 128, 16


class Paths(NamedTuple):
    """Scratch of a search of up to D coefficients of V tokens."""

    cost: np.ndarray  # (128, V) float32
    next: np.ndarray  # (128, V) float32
    error: np.ndarray  # (16, V) float32, least of every label
    upper: np.ndarray  # (D, 16, V) uint8, which value that is
    high: np.ndarray  # (D, 128, V) uint8, the bit that left the window
    codes: np.ndarray  # (D, V) int32, the result


@serial
def scratch(d, lanes):
    """Room for a search."""
    return Paths(
        np.empty((STATES, lanes), np.float32),
        np.empty((STATES, lanes), np.float32),
        np.empty((LABELS, lanes), np.float32),
        np.empty((d, LABELS, lanes), np.uint8),
        np.empty((d, STATES, lanes), np.uint8),
        np.empty((d, lanes), np.int32),
    )


@serial
def cheapest(z, width, weight, labels, values, s, offset):
    """Codes of the cheapest path, in ``s.codes`` from row ``offset`` on.

    Rule: query.code.trellis, num.fp32.no-fma

    Parameters
    ----------
    z : (n, V) float32
    width : (n,) int64
    weight : (n,) float32
        What an error of each coefficient counts.
    labels : (256,) int64
    values : (7, 128) float32
    """
    n, lanes = z.shape
    s.cost[:] = np.float32(np.inf)
    s.cost[0] = np.float32(0)
    for i in range(n):
        _errors(z[i], width[i], values[width[i] - 1], s.error, s.upper[i])
        for label in range(LABELS):
            for v in range(lanes):
                s.error[label, v] *= weight[i]
        for t in range(STATES):
            low, high = s.cost[t >> 1], s.cost[(t + STATES) >> 1]
            a, b = s.error[labels[t]], s.error[labels[t + STATES]]
            to, bit = s.next[t], s.high[i, t]
            for v in range(lanes):
                first, second = low[v] + a[v], high[v] + b[v]
                less = second < first
                to[v] = second if less else first
                bit[v] = np.uint8(1) if less else np.uint8(0)
        for t in range(STATES):
            copy(s.next[t], s.cost[t])
    for v in range(lanes):
        t = 0
        for other in range(1, STATES):
            if s.cost[other, v] < s.cost[t, v]:
                t = other
        for i in range(n - 1, -1, -1):
            window = t + STATES * s.high[i, t, v]
            s.codes[offset + i, v] = 2 * s.upper[i, labels[window], v] + (window & 1)
            t = window >> 1


@serial
def _errors(z, width, values, error, upper):
    """Least squared error of every label, the first value on ties."""
    lanes = len(z)
    error[:] = np.float32(np.inf)
    upper[:] = np.uint8(0)
    for u in range(1 << (width - 1)):
        for label in range(LABELS):
            value, least, which = values[LABELS * u + label], error[label], upper[label]
            for v in range(lanes):
                off = z[v] - value
                found = off * off
                less = found < least[v]
                least[v] = found if less else least[v]
                which[v] = np.uint8(u) if less else which[v]


@serial
def walk(codes, width, labels, values, out):
    """Values of codes (n, V). Rule: query.decode.product"""
    for v in range(codes.shape[1]):
        window = np.int64(0)
        for i in range(len(width)):
            code = np.int64(codes[i, v])
            window = (window << 1 | (code & 1)) & 255
            out[i, v] = values[width[i] - 1, LABELS * (code >> 1) + labels[window]]
