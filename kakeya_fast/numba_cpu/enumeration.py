"""Points of D4 and E8 in the cube as indices, for V blocks side by side.

Both cosets are one mixed-radix number, first coordinate most significant: base ``2q + 1`` for
integer points, ``2q`` for half-odd ones. The last bit follows from the even sum and is dropped.
"""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial


@serial
def rank(c, half, q, first_half, index):
    """Index of every lane's point.

    Rule: e8.index.bijective, d4.index.bijective

    Parameters
    ----------
    c : (n, V) float32
        Coordinates, in the half-odd coset less 1/2; n is 4 or 8.
    half : (V,) int64
        1 for the half-odd coset, else 0.
    first_half : int64
        Index of the first half-odd point.
    index : (V,) int64
        Written.
    """
    n, lanes = c.shape
    shift = np.float32(q)
    for v in range(lanes):
        base = np.uint32(2 * q + 1 - half[v])
        high = np.uint32(0)
        for i in range(4):
            high = np.uint32(high * base + np.uint32(np.int32(c[i, v] + shift)))
        value = np.int64(high)
        if n == 8:
            low = np.uint32(0)
            for i in range(4, 8):
                low = np.uint32(low * base + np.uint32(np.int32(c[i, v] + shift)))
            squared = np.int64(base * base)
            value = value * squared * squared + np.int64(low)
        index[v] = (value >> 1) + half[v] * first_half


@serial
def unrank(index, q, first_half, c, digits):
    """Inverse of :func:`rank`; the half-odd coset's 1/2 is included.

    Rule: e8.index.bijective, d4.index.bijective

    Parameters
    ----------
    index : (V,) int64
        Below the number of points.
    c : (n, V) float32
        Written.
    digits : (n, V) float32
        Scratch.

    Notes
    -----
    Integer division by a variable has no vector instruction. Quotients are taken in floating
    point instead: of ``t + 1/2``, which keeps the true quotient at least ``1/(2 base)`` away from
    a whole number, far more than the rounding error. The first split of a 63-bit number is
    corrected by one step.
    """
    n, lanes = c.shape
    for v in range(lanes):
        half = index[v] >= first_half
        base = np.int64(2 * q if half else 2 * q + 1)
        pair = base * base
        value = 2 * (index[v] - (first_half if half else 0))
        high = value
        if n == 8:
            quad = pair * pair
            high = np.int64(np.float64(value) / np.float64(quad))
            rest = value - high * quad
            high += (1 if rest >= quad else 0) - (1 if rest < 0 else 0)
            low = value - high * quad
            third = np.int64((np.float64(low) + 0.5) / np.float64(pair))
            digits[4, v] = np.float32(third)
            digits[6, v] = np.float32(low - third * pair)
        first = np.int64((np.float64(high) + 0.5) / np.float64(pair))
        digits[0, v] = np.float32(first)
        digits[2, v] = np.float32(high - first * pair)
    for i in range(0, n, 2):
        for v in range(lanes):
            base = np.float32(2 * q) if index[v] >= first_half else np.float32(2 * q + 1)
            both = digits[i, v]
            upper = np.float32(np.int32((both + np.float32(0.5)) / base))
            c[i, v] = upper
            c[i + 1, v] = both - upper * base
    for v in range(lanes):
        half = index[v] >= first_half
        odd = np.float32(0)
        for i in range(n):
            odd += c[i, v]
        if half and np.int32(odd) & np.int32(1):
            c[n - 1, v] += np.float32(1)
    for i in range(n):
        for v in range(lanes):
            lift = np.float32(0.5) if index[v] >= first_half else np.float32(0)
            c[i, v] = c[i, v] - np.float32(q) + lift
