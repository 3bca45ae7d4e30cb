"""Kernels of codec ``fp8``: e4m3 numbers under one gain byte per vector."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.gain import count_below
from kakeya_fast.numba_cpu.half import (
    INFINITE,
    MAGNITUDE,
    as_bits,
    as_float,
    narrow,
    widen,
)
from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, NONE, copy
from kakeya_ref.tables import gain_grid
from kakeya_ref.types import PageLayout

_SMALLEST = np.uint32(121 << 23)  # bits of 2**-6, the smallest normal e4m3
_SUBNORMAL = np.float32(2.0**9)
_REBIAS = np.uint32(120 << 3)
_LARGEST = np.uint32(0x7E)  # 448
_PEAK = np.float32(1 / 448)


class Plan(NamedTuple):
    """Constants of one layout."""

    scales: int
    codes: int
    nbytes: int
    grid: np.ndarray  # (256,) float32
    values: np.ndarray  # (256,) float32, value of each code


@lru_cache(maxsize=64)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout."""
    scales, codes = layout.plane("scales").offset, layout.plane("codes8").offset
    return Plan(scales, codes, layout.nbytes, gain_grid().copy(), _values())


def _values() -> np.ndarray:
    """Value of each e4m3 code, NaN codes as 0: kernels refuse them before looking.

    Rule: fp8.code.nan
    """
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    normal = np.ldexp(1 + mantissa / 8, exponent - 7)
    size = np.where(exponent > 0, normal, np.ldexp(mantissa / 8, -6))
    size = np.where(code & 0x7F == 0x7F, 0.0, size)
    return np.copysign(size, np.where(code & 0x80, -1.0, 1.0)).astype(np.float32)


@serial
def _round_e4m3(x):
    """Nearest e4m3 code, ties to even, saturating at +-448.

    Rule: fp8.code.round
    """
    u = as_bits(x)
    magnitude = np.uint32(u & MAGNITUDE)
    odd = np.uint32((magnitude >> np.uint32(20)) & np.uint32(1))
    normal = np.uint32(np.uint32(magnitude + np.uint32(0x7FFFF) + odd) >> np.uint32(20))
    normal = min(np.uint32(normal - _REBIAS), _LARGEST)
    # Below 2**-6 the grid is 2**-9: rint of the scaled value is the field itself.
    tiny = magnitude < _SMALLEST
    scaled = np.rint(as_float(magnitude if tiny else np.uint32(0)) * _SUBNORMAL)
    field = np.uint32(np.int32(scaled)) if tiny else normal
    return np.uint8(field | ((u >> np.uint32(24)) & np.uint32(0x80)))


def _encode_pages(x, out, p, kind, start, stop):
    """Rule: fp8.scale.up, fp8.code.round, scale.byte.zero, num.input.finite."""
    _, tokens, d = x.shape
    row = np.empty(d, np.uint32)
    y = row.view(np.float32)
    page = np.zeros(p.nbytes, np.uint8)
    broken, refused = NONE, NONE
    for n in range(start, stop):
        for t in range(tokens):
            largest = np.uint32(0)
            for i in range(d):
                row[i] = widen(np.uint32(x[n, t, i]), kind)
                largest = max(largest, np.uint32(row[i] & MAGNITUDE))
            gain = as_float(largest) * _PEAK
            if largest >= INFINITE:
                broken = min(broken, n * tokens + t)
            elif not gain <= p.grid[255]:
                refused = min(refused, n * tokens + t)
            else:
                byte = 1 + count_below(p.grid[1:], gain) if largest else 0
                page[p.scales + t] = byte
                scale = p.grid[(256 - byte) % 256]
                # A -0 in a zero vector must not leave its sign bit.
                keep = np.uint8(255) if byte else np.uint8(0)
                codes = page[p.codes + t * d : p.codes + (t + 1) * d]
                for i in range(d):
                    codes[i] = _round_e4m3(y[i] * scale) & keep
        copy(page, out[n])
    return broken, refused


def _decode_pages(pages, out, p, kind, mode, start, stop):
    """Rule: fp8.decode.product, fp8.code.nan, scale.byte.zero."""
    _, tokens, d = out.shape
    page = np.empty(p.nbytes, np.uint8)
    for n in range(start, stop):
        copy(pages[n], page)
        codes = page[p.codes : p.codes + tokens * d]
        largest = np.uint8(0)
        for i in range(tokens * d):
            largest = max(largest, np.uint8(codes[i] & np.uint8(0x7F)))
        if largest == 0x7F:
            return np.int64(n)
        if mode == CHECK_ONLY:
            continue
        for t in range(tokens):
            byte = page[p.scales + t]
            scale = p.grid[byte]
            for i in range(d):
                y = p.values[codes[t * d + i]] * scale if byte else np.float32(0)
                out[n, t, i] = narrow(as_bits(y), kind)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
