"""The gain byte of each lane."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial


@serial
def rms(y, squares, gain):
    """Root mean square of every lane.

    Rule: scale.rms, num.sum.halving, num.fp32.no-fma

    Parameters
    ----------
    y : (D, V) float32
    squares : (D // 2, V) float32
        Scratch.
    gain : (V,) float32
        Written.
    """
    d, lanes = y.shape
    half = d // 2 * lanes
    low, high = y.reshape(y.size)[:half], y.reshape(y.size)[half:]
    flat = squares.reshape(squares.size)
    for i in range(half):
        flat[i] = low[i] * low[i] + high[i] * high[i]
    n = d // 2
    while n > 1:
        kept = (n + 1) // 2
        low, high = flat[: (n - kept) * lanes], flat[kept * lanes : n * lanes]
        for i in range((n - kept) * lanes):
            low[i] += high[i]
        n = kept
    for v in range(lanes):
        gain[v] = np.sqrt(flat[v] / np.float32(d))


@serial
def count_below(grid, value):
    """Number of entries of an ascending table of 255 that lie below ``value``.

    Rule: scale.byte.midpoint, fp8.scale.up
    """
    count = 0
    step = 128
    while step:
        if count + step <= 255 and grid[count + step - 1] < value:
            count += step
        step >>= 1
    return count


@serial
def gain_bytes(gain, midpoints, byte):
    """Nearest gain byte of every lane; ties go to the lower byte.

    Rule: scale.byte.midpoint, scale.byte.range, scale.byte.zero

    Parameters
    ----------
    gain : (V,) float32
    midpoints : (257,) float32
    byte : (V,) int64
        Written.

    Returns
    -------
    int64
        First lane whose gain is above the range or NaN, else -1.
    """
    grid = midpoints[1:256]
    for v in range(len(gain)):
        # NaN, which huge inputs reach by inf - inf, must be refused too.
        if not gain[v] <= midpoints[256]:
            return v
        byte[v] = count_below(grid, gain[v])
    return -1
