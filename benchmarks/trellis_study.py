"""Trellises of any window for study: search, training by Lloyd's two conditions.

``spec/trellis.json`` was made this way, in float32, with more draws and rounds than a benchmark
has time for: quantiles of a somewhat wider normal as the start, every value moved to the mean of
the numbers that took it, both halves of the table kept mirrored, the mean of the last third of
the rounds rounded to bf16. The columns were the best of some hundred drawn ones. The file is
normative; this explains it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy.special import ndtri

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True)
class Walker:
    """A trellis: windows of ``2^L`` states that take in ``shift`` bits of each code.

    Attributes
    ----------
    shift : int
    labels : (2**L,) int64
        Label of each window.
    values : (choices, count) float32
        Values of each label, by the bits that are not taken in.
    """

    shift: int
    labels: I64
    values: F32

    def nearest(self, y: F32) -> F32:
        """Values of the walk of least error from window 0, for rows (N, n)."""
        return self.values.ravel()[self.places(y)]

    def places(self, y: F32) -> I64:
        """Which values those are."""
        out = np.empty(y.shape, dtype=np.int64)
        _search(y, self.labels, self.values, self.shift, out)
        return out


def labelled(columns: tuple[int, ...], table: F32) -> Walker:
    """The construction of the format: one bit taken in, linear labels of 4 bits."""
    labels = np.zeros(1 << len(columns), dtype=np.int64)
    for bit, column in enumerate(columns):
        labels ^= np.where(np.arange(len(labels)) >> bit & 1, column, 0)
    return Walker(1, labels, np.ascontiguousarray(table.reshape(-1, 16)))


def bitshift(window: int, bits: int, seed: int) -> Walker:
    """All bits taken in, a value for each window, spread like a scalar code at first."""
    n = 1 << window
    strata = ndtri((np.arange(n) + 0.5) / n).reshape(1 << bits, -1)
    rng = np.random.default_rng(seed)
    values = np.stack([rng.permutation(stratum) for stratum in strata], axis=1).ravel()
    return Walker(bits, np.arange(n), values[None].astype(np.float32))


def train(walker: Walker, rounds: int, seed: int, vectors: int = 512) -> Walker:
    """Move every value to the mean of the numbers that took it, again and again."""
    rng = np.random.default_rng(seed)
    for _ in range(rounds):
        y = rng.standard_normal((vectors, 128)).astype(np.float32)
        places = walker.places(y).ravel()
        size, flat = walker.values.size, walker.values.ravel()
        count = np.bincount(places, minlength=size)
        total = np.bincount(places, y.ravel(), minlength=size)
        # A value that few numbers took hardly moves.
        values = ((total + 8 * flat) / (count + 8)).astype(np.float32)
        walker = replace(walker, values=values.reshape(walker.values.shape))
    return walker


@njit(parallel=True, cache=True, error_model="numpy")
def _search(y, labels, values, shift, out):
    n, length = y.shape
    states, (choices, count) = len(labels), values.shape
    merged, branches = states >> shift, 1 << shift
    for row in prange(n):
        cost = np.full(states, np.float32(np.inf))
        cost[0] = np.float32(0)
        after = np.empty(states, np.float32)
        best = np.empty(merged, np.float32)
        source = np.empty((length, merged), np.uint8)
        square, pick = np.empty(count, np.float32), np.empty((length, count), np.int64)
        for i in range(length):
            for label in range(count):
                square[label] = np.float32(np.inf)
                for u in range(choices):
                    off = y[row, i] - values[u, label]
                    if off * off < square[label]:
                        square[label], pick[i, label] = off * off, u
            for t in range(merged):
                best[t], source[i, t] = cost[t], 0
            for j in range(1, branches):
                for t in range(merged):
                    other = cost[t + j * merged]
                    less = other < best[t]
                    best[t] = other if less else best[t]
                    source[i, t] = np.uint8(j) if less else source[i, t]
            for window in range(states):
                after[window] = best[window >> shift] + square[labels[window]]
            cost, after = after, cost
        window = np.argmin(cost)
        for i in range(length - 1, -1, -1):
            label = labels[window]
            out[row, i] = pick[i, label] * count + label
            merge = window >> shift
            window = merge + source[i, merge] * merged
