"""Between vectors in memory and *lanes*: a small array (D, V) holding V vectors side by side.

Element ``d`` of the V vectors is one contiguous row, so that butterflies, sums and searches are
loops over rows which the compiler turns into vector instructions without any shuffles.
"""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.half import INFINITE, MAGNITUDE, narrow, widen
from kakeya_fast.numba_cpu.jit import serial

NONE = np.int64(2**62)  # "no vector is at fault": larger than any vector number

# What a decode kernel does with pages it has found well formed.
COEFFICIENTS, VECTORS, CHECK_ONLY = 0, 1, 2


@serial
def copy(source, target):
    """Copy a row of numbers; quicker to compile than numba's assignment, which checks shapes."""
    for i in range(len(source)):
        target[i] = source[i]


@serial
def load(x, n, p0, kind, flips, bits):
    """Read ``V`` vectors of page ``n`` from token ``p0`` into lanes, flipping signs.

    Rule: num.input.widen, num.input.finite, signs.splitmix64.top-bit

    Parameters
    ----------
    x : (N, P, D) uint32 or uint16
        Bit patterns of type ``kind``.
    flips : (D,) uint32
        Sign bit set where the sign flips.
    bits : (D, V) uint32
        Written.

    Returns
    -------
    int64
        First lane that holds a NaN or an infinity, else ``NONE``.
    """
    d, lanes = bits.shape
    first = NONE
    for v in range(lanes):
        largest = np.uint32(0)
        for i in range(d):
            u = widen(np.uint32(x[n, p0 + v, i]), kind)
            largest = max(largest, np.uint32(u & MAGNITUDE))
            bits[i, v] = u ^ flips[i]
        if largest >= INFINITE:
            first = min(first, np.int64(v))
    return first


@serial
def store(bits, out, n, p0, kind, flips):
    """Write lanes as ``V`` vectors of page ``n`` from token ``p0``, flipping signs.

    Rule: signs.splitmix64.top-bit

    Parameters
    ----------
    bits : (D, V) uint32
    out : (N, P, D) uint32 or uint16
        Written, rounded to type ``kind``.
    """
    d, lanes = bits.shape
    for v in range(lanes):
        for i in range(d):
            out[n, p0 + v, i] = narrow(np.uint32(bits[i, v] ^ flips[i]), kind)
