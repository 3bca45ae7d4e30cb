"""The gain byte of each lane."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial


@serial
def dots(a, b, out):
    """Sum of the products of every lane, in row 0 of ``out``.

    Rule: num.sum.halving, num.fp32.no-fma

    Parameters
    ----------
    a, b : (D, V) float32
    out : (D // 2, V) float32
        Written.
    """
    d, lanes = a.shape
    half = d // 2 * lanes
    low_a, high_a = a.reshape(a.size)[:half], a.reshape(a.size)[half:]
    low_b, high_b = b.reshape(b.size)[:half], b.reshape(b.size)[half:]
    flat = out.reshape(out.size)
    for i in range(half):
        flat[i] = low_a[i] * low_b[i] + high_a[i] * high_b[i]
    n = d // 2
    while n > 1:
        kept = (n + 1) // 2
        low, high = flat[: (n - kept) * lanes], flat[kept * lanes : n * lanes]
        for i in range((n - kept) * lanes):
            low[i] += high[i]
        n = kept


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
    dots(y, y, squares)
    for v in range(lanes):
        gain[v] = np.sqrt(squares[0, v] / np.float32(d))


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
def unbiased(byte, z, found, squares, products, p):
    """Bytes under which lanes come back as long, along themselves, as they were.

    Rule: trellis.gain.unbiased

    Parameters
    ----------
    byte : (V,) int64
        Under which lanes became ``z``; written.
    z, found : (D, V) float32
        Numbers and the values of their codes.
    squares, products : (D // 2, V) float32
        Scratch.
    p : tuple with ``backward`` and ``midpoints``
    """
    dots(z, z, squares)
    dots(z, found, products)
    for v in range(len(byte)):
        if byte[v] > 0 and products[0, v] > 0:
            gain = p.backward[byte[v]] * (squares[0, v] / products[0, v])
            fitting = max(1, count_below(p.midpoints[1:256], gain))
            byte[v] = min(fitting, byte[v] + 8, 255)


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
