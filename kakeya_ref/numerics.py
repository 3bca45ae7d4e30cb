"""The numeric core: every operation is one fp32 operation, rounded to nearest even.

NumPy's element-wise float32 operations are IEEE and never fused; reductions are not ordered,
so sums are written out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import RangeError

F32 = NDArray[np.float32]


def halving_sum(a: F32) -> F32:
    """Sum over the last axis in the fixed halving order.

    Rule: num.sum.halving, num.fp32.no-fma

    Parameters
    ----------
    a : (..., n) float32

    Returns
    -------
    (...) float32

    Notes
    -----
    Level: bits. The upper half is folded onto the lower half until one value is left; an odd
    middle value waits for the next round.

    Examples
    --------
    >>> float(halving_sum(np.array([1.0, 2.0, 4.0], dtype=np.float32)))
    7.0
    """
    a = a.copy()
    n = a.shape[-1]
    while n > 1:
        h = (n + 1) // 2
        a[..., : n - h] += a[..., h:n]
        n = h
    out: F32 = a[..., 0]
    return out


def round_f16(x: F32, rule: str) -> NDArray[np.float16]:
    """Nearest float16, ties to even.

    Rule: num.round.half-even, raw.range, int.range.f16

    Raises
    ------
    RangeError
        The magnitude rounds to infinity.
    """
    with np.errstate(over="ignore"):
        out = x.astype(np.float16)
    if not np.isfinite(out).all():
        raise RangeError(rule, f"magnitude {float(np.abs(x).max())} does not fit float16")
    return out


def round_bf16(x: F32, rule: str) -> NDArray[np.uint16]:
    """Bits of the nearest bfloat16, ties to even.

    Rule: num.round.half-even, raw.range

    Raises
    ------
    RangeError
        The magnitude rounds to infinity.

    Examples
    --------
    >>> hex(round_bf16(np.array([1.00390625], dtype=np.float32), "raw.range")[0])
    '0x3f80'
    """
    bits = np.ascontiguousarray(x).view(np.uint32)
    # Adding 0x7fff plus the kept last bit carries exactly when the dropped half is above, or on
    # the tie with an odd kept bit.
    rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    if ((rounded & np.uint32(0x7F80)) == 0x7F80).any():
        raise RangeError(rule, f"magnitude {float(np.abs(x).max())} does not fit bfloat16")
    return rounded.astype(np.uint16)


def widen_bf16(bits: NDArray[np.uint16]) -> F32:
    """Exact float32 of bfloat16 bits.

    Rule: num.input.widen
    """
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def e4m3_values() -> F32:
    """Value of each of the 256 e4m3 codes; 0x7f and 0xff are NaN.

    Rule: fp8.code.nan

    Returns
    -------
    (256,) float32

    Examples
    --------
    >>> [float(e4m3_values()[c]) for c in (0x00, 0x01, 0x38, 0x7e, 0xb8)]
    [0.0, 0.001953125, 1.0, 448.0, -1.0]
    """
    code = np.arange(256)
    exponent, mantissa = (code >> 3) & 15, code & 7
    normal = (1 + mantissa / 8) * 2.0 ** (exponent - 7.0)
    value = np.where(exponent == 0, mantissa / 8 * 2.0**-6, normal)
    value = np.where((code & 0x7F) == 0x7F, np.nan, value)
    return np.where(code & 0x80, -value, value).astype(np.float32)


def round_e4m3(x: F32) -> NDArray[np.uint8]:
    """Nearest e4m3 code, ties to the even mantissa, saturating at ±448.

    Rule: fp8.code.round

    Parameters
    ----------
    x : any shape, float32, finite

    Examples
    --------
    >>> [hex(c) for c in round_e4m3(np.array([1.0625, 1.1875, -500.0], dtype=np.float32))]
    ['0x38', '0x3a', '0xfe']
    """
    values = e4m3_values()[:0x7F]  # 0 .. 448 ascending, so an index is a code
    magnitude = np.minimum(np.abs(x), np.float32(448.0))
    # Halfway points of neighbouring codes have at most five significant bits: exact in fp32.
    middles = (values[:-1] + values[1:]) * np.float32(0.5)
    below = np.searchsorted(middles, magnitude, side="left")
    above = np.searchsorted(middles, magnitude, side="right")
    code = np.where(below % 2 == 0, below, above)  # differ on ties only: take the even one
    sign = np.where(np.signbit(x), 0x80, 0)
    return (code | sign).astype(np.uint8)


def float_bits(x: NDArray[Any]) -> NDArray[np.uint64]:
    """Bit pattern of a float16/float32 array as unsigned integers, for packing."""
    width = x.dtype.itemsize
    return np.ascontiguousarray(x).view(f"<u{width}").astype(np.uint64)
