"""Bit patterns of float32, float16 and bfloat16, one number at a time.

Kernels see vectors as unsigned integers, so one loop reads every input type. ``kind`` is
``F32``, ``F16`` or ``BF16``.
"""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial

F32, F16, BF16 = 0, 1, 2

_SIGN = np.uint32(0x80000000)
MAGNITUDE = np.uint32(0x7FFFFFFF)
INFINITE = np.uint32(0x7F800000)  # bits of +inf; magnitudes from here up are not finite
_HALF_SIGN = np.uint32(0x8000)
_HALF_MAGNITUDE = np.uint32(0x7FFF)
_HALF_INFINITE = np.uint32(0x7C00)
_UP = np.float32(2.0**112)  # moves a float16 exponent to its place in a float32
_SUBNORMAL = np.float32(2.0**24)
_SMALLEST = np.uint32(113 << 23)  # bits of 2**-14, the smallest normal float16
_REBIAS = np.uint32(112 << 23)


@serial
def as_float(u):
    """The float32 with bits ``u``."""
    return np.uint32(u).view(np.float32)


@serial
def as_bits(x):
    """Bits of a float32."""
    return np.float32(x).view(np.uint32)


@serial
def widen(u, kind):
    """Bits of the float32 equal to the number with bits ``u``.

    Infinities and NaN become +inf or a NaN, whatever their payload.

    Rule: num.input.widen, num.subnormal.kept
    """
    if kind == 0:
        return u
    if kind == 2:
        return np.uint32(u << np.uint32(16))
    magnitude = np.uint32(u & _HALF_MAGNITUDE)
    # A float16's field read 13 bits higher is its value times 2**-112, subnormals included.
    scaled = as_float(magnitude << np.uint32(13)) * _UP
    wide = np.uint32(as_bits(scaled) | ((u & _HALF_SIGN) << np.uint32(16)))
    return INFINITE if magnitude >= _HALF_INFINITE else wide


@serial
def widen_row(row, kind):
    """Turn stored bits into bits of float32, in place; whether all numbers are finite.

    Rule: num.input.widen

    Parameters
    ----------
    row : (n,) int64
    """
    largest = np.uint32(0)
    for i in range(len(row)):
        u = np.uint32(widen(np.uint32(row[i]), kind))
        largest = max(largest, np.uint32(u & MAGNITUDE))
        row[i] = u
    return largest < INFINITE


@serial
def round_bf16(u):
    """Bits of the bfloat16 nearest to the float32 with bits ``u``, ties to even; may be infinite.

    Rule: num.round.half-even
    """
    odd = np.uint32((u >> np.uint32(16)) & np.uint32(1))
    return np.uint32(np.uint32(u + np.uint32(0x7FFF) + odd) >> np.uint32(16))


@serial
def round_f16(u):
    """Bits of the float16 nearest to the float32 with bits ``u``, ties to even; may be infinite.

    Rule: num.round.half-even, num.subnormal.kept
    """
    magnitude = np.uint32(u & MAGNITUDE)
    odd = np.uint32((magnitude >> np.uint32(13)) & np.uint32(1))
    normal = np.uint32(np.uint32(magnitude - _REBIAS + np.uint32(0xFFF) + odd) >> np.uint32(13))
    normal = min(normal, _HALF_INFINITE)
    # Below 2**-14 the grid is 2**-24: rint of the scaled value is the field itself.
    tiny = magnitude < _SMALLEST
    scaled = np.rint(as_float(magnitude if tiny else np.uint32(0)) * _SUBNORMAL)
    field = np.uint32(np.int32(scaled)) if tiny else normal
    return np.uint32(field | ((u & _SIGN) >> np.uint32(16)))


@serial
def narrow(u, kind):
    """Bits of type ``kind`` nearest to the float32 with bits ``u``.

    Rule: num.round.half-even
    """
    if kind == 0:
        return u
    if kind == 2:
        return round_bf16(u)
    return round_f16(u)
