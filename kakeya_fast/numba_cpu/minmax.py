"""Kernels of codec ``int``: min/max integers in groups along channels or along tokens.

A page is seen as an array (rows, lanes) whose groups run along the rows: rows are channels and
lanes tokens when groups follow a token, the other way round when they follow a channel.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.half import (
    F16,
    INFINITE,
    MAGNITUDE,
    as_bits,
    as_float,
    narrow,
    round_f16,
    widen,
)
from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, NONE, copy
from kakeya_fast.numba_cpu.planes import pack_lanes, plane_table, unpack_lanes
from kakeya_ref.types import PageLayout


class Plan(NamedTuple):
    """Constants of one layout."""

    per_token: bool
    g: int
    groups: int  # along the rows
    levels: np.float32
    lo: int  # offset of plane lo
    step: int
    by_group: int  # distance, in numbers, of neighbouring groups in planes lo and step
    by_lane: int
    planes: np.ndarray  # (planes, 3) int64
    nbytes: int


@lru_cache(maxsize=64)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout."""
    codec, d, p = layout.codec, layout.head_dim, layout.tokens
    per_token, g = codec["axis"] == "token", codec.integer("g")
    groups = -(-(d if per_token else p) // g)
    return Plan(
        per_token,
        g,
        groups,
        np.float32(2 ** codec.integer("b") - 1),
        layout.plane("lo").offset,
        layout.plane("step").offset,
        1 if per_token else d,
        groups if per_token else 1,
        plane_table(layout, "codes"),
        layout.nbytes,
    )


@serial
def _shape(p, tokens, d):
    return (d, tokens) if p.per_token else (tokens, d)


@serial
def _quantise(a, p, k, low, high, base, width, lo, step, codes):
    """Parameters and codes of group ``k`` of every lane; False where float16 cannot hold them.

    Rule: int.range.f16, int.code.clamp, int.lo.positive-zero
    """
    rows, lanes = a.shape
    first, last = k * p.g, min(rows, (k + 1) * p.g)
    copy(a[first], low)
    copy(a[first], high)
    for r in range(first + 1, last):
        for v in range(lanes):
            low[v] = min(low[v], a[r, v])
            high[v] = max(high[v], a[r, v])
    fits = True
    for v in range(lanes):
        at = k * p.by_group + v * p.by_lane
        b = round_f16(as_bits(low[v]))
        w = round_f16(as_bits((high[v] - low[v]) / p.levels))
        # Stored zeros are +0, so that bytes depend on values alone.
        b = b if b != np.uint32(0x8000) else np.uint32(0)
        w = w if w != np.uint32(0x8000) else np.uint32(0)
        lo[at], step[at] = b, w
        base[v], width[v] = as_float(widen(b, F16)), as_float(widen(w, F16))
        largest = max(np.uint32(as_bits(base[v]) & MAGNITUDE), as_bits(width[v]))
        fits = fits and largest < INFINITE
    for r in range(first, last):
        for v in range(lanes):
            divisor = width[v] if width[v] > np.float32(0) else np.float32(1)
            c = np.rint((a[r, v] - base[v]) / divisor)
            c = c if c > np.float32(0) else np.float32(0)
            c = c if c < p.levels else p.levels
            codes[r, v] = np.uint8(np.int32(c)) if width[v] > np.float32(0) else np.uint8(0)
    return fits


def _encode_pages(x, out, p, kind, start, stop):
    """Rule: int.range.f16, int.code.clamp, int.lo.positive-zero, num.input.finite."""
    _, tokens, d = x.shape
    rows, lanes = _shape(p, tokens, d)
    bits = np.empty((rows, lanes), np.uint32)
    low, high = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    base, width = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    codes = np.empty((rows, lanes), np.uint8)
    by_channel = np.empty((d, tokens), np.uint8)
    merged = np.empty((d, tokens), np.uint8)
    page = np.zeros(p.nbytes, np.uint8)
    lo, step = page[p.lo :].view(np.uint16), page[p.step :].view(np.uint16)
    broken, refused = NONE, NONE
    for n in range(start, stop):
        finite = True
        for t in range(tokens):
            largest = np.uint32(0)
            for i in range(d):
                u = widen(np.uint32(x[n, t, i]), kind)
                largest = max(largest, np.uint32(u & MAGNITUDE))
                if p.per_token:
                    bits[i, t] = u
                else:
                    bits[t, i] = u
            if largest >= INFINITE:
                finite = False
                broken = min(broken, n * tokens + t)
        if not finite:
            continue
        for k in range(p.groups):
            if not _quantise(bits.view(np.float32), p, k, low, high, base, width, lo, step, codes):
                refused = min(refused, n * tokens + (0 if p.per_token else k * p.g))
        if p.per_token:
            pack_lanes(codes, p.planes, page, 0, merged)
        else:
            for i in range(d):
                copy(codes[:, i], by_channel[i])
            pack_lanes(by_channel, p.planes, page, 0, merged)
        copy(page, out[n])
    return broken, refused


def _decode_pages(pages, out, p, kind, mode, start, stop):
    """Rule: int.decode.affine, int.params.finite."""
    _, tokens, d = out.shape
    rows, lanes = _shape(p, tokens, d)
    base, width = np.empty(lanes, np.float32), np.empty(lanes, np.float32)
    codes = np.empty((d, tokens), np.uint8)
    merged = np.empty((d, tokens), np.uint8)
    page = np.empty(p.nbytes, np.uint8)
    lo, step = page[p.lo :].view(np.uint16), page[p.step :].view(np.uint16)
    for n in range(start, stop):
        copy(pages[n], page)
        if mode != CHECK_ONLY:
            unpack_lanes(page, p.planes, 0, codes, merged)
        for k in range(p.groups):
            largest = np.uint32(0)
            for v in range(lanes):
                at = k * p.by_group + v * p.by_lane
                b, w = widen(np.uint32(lo[at]), F16), widen(np.uint32(step[at]), F16)
                base[v], width[v] = as_float(b), as_float(w)
                # A set sign bit makes a step larger than any finite pattern.
                largest = max(largest, np.uint32(b & MAGNITUDE), w)
            if largest >= INFINITE:
                return np.int64(n)
            if mode == CHECK_ONLY:
                continue
            for r in range(k * p.g, min(rows, (k + 1) * p.g)):
                for v in range(lanes):
                    t, i = (v, r) if p.per_token else (r, v)
                    y = base[v] + np.float32(codes[i, t]) * width[v]
                    out[n, t, i] = narrow(as_bits(y), kind)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
