"""Points of D4 and E8 in the cube as indices, for V blocks side by side.

Both cosets are one mixed-radix number, first coordinate most significant: base ``2q + 1`` for
integer points, ``2q`` for half-odd ones. The last bit follows from the even sum and is dropped.
"""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial


@serial
def rank(c, m, half, q, first_half, index):
    """Index of the point in every column.

    Rule: e8.index.bijective, d4.index.bijective

    Parameters
    ----------
    c : (n, M) float32
        Coordinates, in the half-odd coset less 1/2; n is 4 or 8. ``m`` columns are used.
    half : (M,) int64
        1 for the half-odd coset, else 0.
    first_half : int64
        Index of the first half-odd point.
    index : (M,) int64
        Written.
    """
    n = c.shape[0]
    shift = np.float32(q)
    for v in range(m):
        base = np.uint32(2 * q + 1 - half[v])
        high = np.uint32(0)
        for i in range(4):
            high = np.uint32(high * base + np.uint32(np.int32(c[i, v] + shift)))
        index[v] = np.int64(high)
    if n == 8:
        for v in range(m):
            base = np.uint32(2 * q + 1 - half[v])
            low = np.uint32(0)
            for i in range(4, 8):
                low = np.uint32(low * base + np.uint32(np.int32(c[i, v] + shift)))
            squared = np.int64(base * base)
            index[v] = index[v] * squared * squared + np.int64(low)
    for v in range(m):
        index[v] = (index[v] >> 1) + half[v] * first_half


@serial
def unrank(index, m, q, first_half, pairs, c):
    """Inverse of :func:`rank`, without the 1/2 of the half-odd coset.

    Rule: e8.index.bijective, d4.index.bijective

    Parameters
    ----------
    index : (M,) int64
        Below the number of points; ``m`` columns are used.
    pairs : (n // 2, M) int64
        Scratch.
    c : (n, M) float32
        Written.

    Notes
    -----
    Integer division by a variable has no vector instruction. Quotients are taken in floating
    point instead: of ``t + 1/2``, which keeps the true quotient at least ``1/(2 base)`` away from
    a whole number, far more than the rounding error. The first split of a 63-bit number is
    corrected by one step.
    """
    n = c.shape[0]
    for v in range(m):
        half = np.int64(index[v] >= first_half)
        pairs[0, v] = 2 * (index[v] - half * first_half)
    if n == 8:
        for v in range(m):
            base = 2 * q + 1 - np.int64(index[v] >= first_half)
            quad = base * base * base * base
            value = pairs[0, v]
            high = np.int64(np.float64(value) / np.float64(quad))
            rest = value - high * quad
            high += np.int64(rest >= quad) - np.int64(rest < 0)
            pairs[0, v], pairs[2, v] = high, value - high * quad
    for k in range(0, n // 2, 2):
        for v in range(m):
            base = 2 * q + 1 - np.int64(index[v] >= first_half)
            square = base * base
            value = pairs[k, v]
            upper = np.int64((np.float64(value) + 0.5) / np.float64(square))
            pairs[k, v], pairs[k + 1, v] = upper, value - upper * square
    for k in range(n // 2):
        for v in range(m):
            base = np.float32(2 * q + 1 - np.int64(index[v] >= first_half))
            both = np.float32(pairs[k, v])
            upper = np.float32(np.int32((both + np.float32(0.5)) / base))
            c[2 * k, v] = upper - np.float32(q)
            c[2 * k + 1, v] = both - upper * base - np.float32(q)
    if n == 8:
        for v in range(m):
            # The stored last digit is even; the sum of the first seven tells what was dropped.
            total = c[0, v] + c[1, v] + c[2, v] + c[3, v] + c[4, v] + c[5, v] + c[6, v]
            odd = (np.int32(total) + 7 * q) & np.int64(index[v] >= first_half)
            c[7, v] += np.float32(odd)
