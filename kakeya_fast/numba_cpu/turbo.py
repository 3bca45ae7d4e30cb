"""Kernels of codec ``turbo``: components, a nearest centre, a rotated residual, outliers."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.dense import (
    add_mean,
    centre,
    chains,
    lane_count,
    nearest,
    not_finite,
    put_centres,
    round_lanes,
    take_centres,
)
from kakeya_fast.numba_cpu.faults import FAULTS, FINE, GAIN, NUMBER, PLACE, PROJ, SEG, VALUE
from kakeya_fast.numba_cpu.gain import gain_bytes, rms
from kakeya_fast.numba_cpu.half import as_float, narrow, widen_row
from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import NONE, copy, load, store
from kakeya_fast.numba_cpu.levels import LEVEL_FIELDS, count_thresholds, level_plan, set_levels
from kakeya_fast.numba_cpu.planes import (
    pack_lanes,
    pack_row,
    plane_table,
    unpack_lanes,
    unpack_row,
)
from kakeya_fast.numba_cpu.rotate import hadamard
from kakeya_fast.numba_cpu.sparse import largest_of_page
from kakeya_fast.numba_cpu.table import (
    TABLE_FIELDS,
    empty_table,
    read_table,
    set_analysis,
    set_synthesis,
    table_plan,
    up4,
)
from kakeya_fast.numba_cpu.transform import ROTATION_FIELDS, rotation
from kakeya_ref.layout import residual_width
from kakeya_ref.types import PageLayout

Plan = NamedTuple(
    "Plan",
    [
        *TABLE_FIELDS,
        *ROTATION_FIELDS,  # of the residual: width, not D
        *LEVEL_FIELDS,
        ("lanes", int),
        ("nbytes", int),
        ("unflipped", np.ndarray),  # (D,) uint32, zeros: vectors are read as they are
        ("out", int),
        # (planes, 3) int64 each; scales come first in a page
        ("seg", np.ndarray),
        ("proj", np.ndarray),
        ("codes", np.ndarray),
        ("outvalue", np.ndarray),
        ("outplace", np.ndarray),
    ],
)
FIELDS = ("seg", "proj", "codes", "outvalue", "outplace")


@lru_cache(maxsize=1024)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout.

    Rule: turbo.page.layout, turbo.residual.padded
    """
    table, one = table_plan(layout), np.float32(1)
    width = residual_width(layout.codec)
    return Plan(
        *table,
        *rotation(width, layout.codec.integer("seed"), one, one),
        *level_plan(layout.codec),
        lane_count(layout),
        layout.nbytes,
        np.zeros(layout.head_dim, dtype=np.uint32),
        layout.codec.integer("out"),
        *(plane_table(layout, name) for name in FIELDS),
    )


class Fields(NamedTuple):
    """Whole fields of one page, but for scales and codes, which go into it at once."""

    seg: np.ndarray  # (P,) int64
    proj: np.ndarray  # (P,) int64
    outvalue: np.ndarray  # (out,) int64
    outplace: np.ndarray  # (out,) int64
    z: np.ndarray  # (P * width,) uint32, where there are outliers
    histogram: np.ndarray  # (2048,) int64
    levels: np.ndarray  # (2**b,) float32
    thresholds: np.ndarray  # (15,) float32


class Lanes(NamedTuple):
    """Scratch of V tokens side by side."""

    bits: np.ndarray  # (D, V) uint32
    c: np.ndarray  # (width, V) float32
    y: np.ndarray  # (width, V) float32
    dots: np.ndarray  # (k rounded up to 4, V) float32
    squares: np.ndarray  # (width // 2, V) float32
    codes: np.ndarray  # (width, V) uint8
    merged: np.ndarray  # (width, V) uint8
    live: np.ndarray  # (V,) uint8
    top: np.ndarray  # (V,) float32
    wide: np.ndarray  # (V,) float32
    short: np.ndarray  # (V,) int64
    byte: np.ndarray  # (V,) int64
    seg: np.ndarray  # (V,) int32


@serial
def _scratch(tokens, d, p):
    v, w = p.lanes, p.width
    fields = Fields(
        np.empty(tokens, np.int64),
        np.empty(tokens, np.int64),
        np.empty(p.out, np.int64),
        np.empty(p.out, np.int64),
        np.empty(tokens * w if p.out else 0, np.uint32),
        np.empty(2048, np.int64),
        np.empty(len(p.levels), np.float32),
        np.empty(len(p.thresholds), np.float32),
    )
    return fields, Lanes(
        np.empty((d, v), np.uint32),
        np.zeros((w, v), np.float32),
        np.zeros((w, v), np.float32),
        np.zeros((up4(p.k), v), np.float32),
        np.empty((w // 2, v), np.float32),
        np.empty((w, v), np.uint8),
        np.empty((w, v), np.uint8),
        np.empty(v, np.uint8),
        np.empty(v, np.float32),
        np.empty(v, np.float32),
        np.empty(v, np.int64),
        np.empty(v, np.int64),
        np.empty(v, np.int32),
    )


@serial
def _encode_lanes(p0, p, table, s, f, page):
    """Fields of V vectors, which ``s.bits`` holds; ``VALUE``, ``GAIN`` or ``FINE``.

    Rule: turbo.encode.project, turbo.seg.absolute, turbo.residual.padded, turbo.residual.gain,
    turbo.code.boundary, turbo.value.range, scale.byte.range
    """
    x = s.bits.view(np.float32)
    centre(x, table.mean)
    chains(x, table.dense, s.c)
    if not_finite(s.c):
        return VALUE
    chains(s.c, table.centres, s.dots)
    if not_finite(s.dots):
        return VALUE
    nearest(s.dots, p.k, s.top, s.seg)
    if not round_lanes(s.top, p.stored, s.short, s.wide):
        return VALUE
    for v in range(p.lanes):
        f.seg[p0 + v], f.proj[p0 + v] = s.seg[v], s.short[v]
    take_centres(s.c, p.rank, table.centres, s.seg, s.wide)
    if not_finite(s.c):
        return VALUE
    _flip(s.c, p.flips, s.y)
    hadamard(s.y, p.lengths, p.factors)
    rms(s.y, s.squares, s.top)
    if gain_bytes(s.top, p.midpoints, s.byte) >= 0:
        return GAIN
    for v in range(p.lanes):
        page[p0 + v] = s.byte[v]
        s.top[v] = p.forward[s.byte[v]]
        s.live[v] = np.uint8(255) if s.byte[v] else np.uint8(0)
    for i in range(p.width):
        for v in range(p.lanes):
            s.y[i, v] *= s.top[v]
    count_thresholds(s.y, f.thresholds, len(f.levels) > 8, s.live, s.codes)
    pack_lanes(s.codes, p.codes, page, p0, s.merged)
    if p.out:
        words = s.y.view(np.uint32)
        for v in range(p.lanes):
            row = f.z[(p0 + v) * p.width : (p0 + v + 1) * p.width]
            for i in range(p.width):
                row[i] = words[i, v]
    return FINE


@serial
def _flip(c, flips, y):
    """Lanes with their signs flipped. Rule: signs.splitmix64.top-bit"""
    source, target = c.view(np.uint32), y.view(np.uint32)
    for i in range(len(flips)):
        for v in range(c.shape[1]):
            target[i, v] = source[i, v] ^ flips[i]


def _encode_pages(x, out, bodies, analysis, p, kind, start, stop):
    """Rule: turbo.encode.project, num.input.finite."""
    _, tokens, d = x.shape
    f, s = _scratch(tokens, d, p)
    table = empty_table(bodies.shape[1], up4(p.rank), d, d, p)
    page = np.zeros(p.nbytes, np.uint8)
    broken, refused, known = NONE, NONE, FINE
    for n in range(start, stop):
        if n == start or len(bodies) > 1:
            at = n if len(bodies) > 1 else 0
            known = read_table(bodies, at, p, table)
            set_analysis(analysis, at, p, table)
            set_levels(p, table.numbers, f.levels, f.thresholds)
        fault = known
        for p0 in range(0, tokens, p.lanes):
            bad = load(x, n, p0, kind, p.unflipped, s.bits)
            broken = min(broken, n * tokens + p0 + bad)
            # A gain out of range does not end the page: numbers of later tokens are judged first.
            if broken == NONE and fault >= GAIN:
                fault = min(fault, _encode_lanes(p0, p, table, s, f, page))
        if fault != FINE:
            refused = min(refused, n * FAULTS + fault)
        else:
            pack_row(f.seg, p.seg, page)
            pack_row(f.proj, p.proj, page)
            if p.out:
                _pack_outliers(p, f, page)
        copy(page, out[n])
    return broken, refused


@serial
def _pack_outliers(p, f, page):
    """Rule: turbo.out.largest, turbo.value.range"""
    largest_of_page(f.z, f.histogram, f.outplace)
    for i in range(p.out):
        # At most sqrt(width) gains: no stored type is too small for that.
        f.outvalue[i] = narrow(f.z[f.outplace[i]], p.stored)
    pack_row(f.outvalue, p.outvalue, page)
    pack_row(f.outplace, p.outplace, page)


@serial
def _fields(page, p, f):
    """Whole fields of a page, ``proj`` and ``outvalue`` widened; the first fault.

    Rule: turbo.seg.range, turbo.out.ascending, turbo.value.finite
    """
    unpack_row(page, p.seg, f.seg)
    unpack_row(page, p.proj, f.proj)
    unpack_row(page, p.outvalue, f.outvalue)
    unpack_row(page, p.outplace, f.outplace)
    for t in range(len(f.seg)):
        if f.seg[t] >= p.k:
            return SEG
    if not widen_row(f.proj, p.stored):
        return PROJ
    last = -1
    for i in range(p.out):
        if f.outplace[i] <= last or f.outplace[i] >= len(f.seg) * p.width:
            return PLACE
        last = f.outplace[i]
    return FINE if widen_row(f.outvalue, p.stored) else NUMBER


@serial
def _decode_lanes(p0, p, table, s, f, page, passed):
    """V vectors in ``s.bits``; ``NUMBER`` or ``FINE``, and the outliers put in so far.

    Rule: turbo.decode.product, turbo.decode.sum, turbo.decode.synthesis, turbo.value.finite
    """
    for v in range(p.lanes):
        s.seg[v] = f.seg[p0 + v]
        s.wide[v] = as_float(f.proj[p0 + v])
        s.live[v] = page[p0 + v]
        s.top[v] = p.backward[page[p0 + v]]
    unpack_lanes(page, p.codes, p0, s.codes, s.merged)
    for i in range(p.width):
        for v in range(p.lanes):
            s.y[i, v] = f.levels[s.codes[i, v]]
    while passed < p.out and f.outplace[passed] < (p0 + p.lanes) * p.width:
        token, i = divmod(f.outplace[passed], p.width)
        s.y[i, token - p0] = as_float(f.outvalue[passed])
        passed += 1
    for i in range(p.width):
        for v in range(p.lanes):
            s.y[i, v] = s.y[i, v] * s.top[v] if s.live[v] else np.float32(0)
    hadamard(s.y, p.lengths, p.factors)
    _flip(s.y, p.flips, s.y)
    put_centres(s.c, p.rank, table.centres, s.seg, s.wide)
    for j in range(p.rank):
        for v in range(p.lanes):
            s.c[j, v] += s.y[j, v]
    x = s.bits.view(np.float32)
    chains(s.c, table.dense, x)
    add_mean(x, table.mean)
    return NUMBER if not_finite(x) else FINE, passed


def _decode_pages(pages, out, bodies, p, kind, start, stop):
    """Rule: turbo.decode.synthesis."""
    _, tokens, d = out.shape
    f, s = _scratch(tokens, d, p)
    table = empty_table(bodies.shape[1], d, p.width, d, p)
    page = np.empty(p.nbytes, np.uint8)
    for n in range(start, stop):
        fault = FINE
        if n == start or len(bodies) > 1:
            fault = read_table(bodies, n if len(bodies) > 1 else 0, p, table)
            set_synthesis(p, table)
            set_levels(p, table.numbers, f.levels, f.thresholds)
        copy(pages[n], page)
        if fault == FINE:
            fault = _fields(page, p, f)
        passed = 0
        for p0 in range(0, tokens, p.lanes):
            if fault == FINE:
                fault, passed = _decode_lanes(p0, p, table, s, f, page, passed)
                store(s.bits, out, n, p0, kind, p.unflipped)
        if fault != FINE:
            return np.int64(n * FAULTS + fault)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
