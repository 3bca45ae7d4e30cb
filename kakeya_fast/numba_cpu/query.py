"""Kernels of codec ``query``: components in index order, a gain byte, one trellis through them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.dense import add_mean, centre, chains, lane_count, not_finite
from kakeya_fast.numba_cpu.faults import FAULTS, FINE, GAIN, NUMBER, SPREAD, TABLE, VALUE
from kakeya_fast.numba_cpu.gain import gain_bytes, rms
from kakeya_fast.numba_cpu.half import F16, INFINITE, MAGNITUDE, widen
from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, COEFFICIENTS, NONE, copy, load, store
from kakeya_fast.numba_cpu.paths import cheapest, scratch, walk
from kakeya_ref.layout import band_bits
from kakeya_ref.tables import (
    band_savings,
    gain_grid,
    gain_midpoints,
    lloyd_max,
    trellis_labels,
    trellis_values,
)
from kakeya_ref.types import PageLayout

WIDEST, WALKED = 7, 3


class Plan(NamedTuple):
    """Constants of a layout."""

    lanes: int
    nbytes: int
    row: int  # bytes of a token's codes, and bits to share out
    codes: int  # where they begin
    unflipped: np.ndarray  # (D,) uint32, zeros: vectors are read as they are
    savings: np.ndarray  # (7,) float32
    midpoints: np.ndarray  # (257,) float32
    forward: np.ndarray  # (256,) float32, reciprocals of gains
    backward: np.ndarray  # (256,) float32, gains
    labels: np.ndarray  # (256,) int64
    values: np.ndarray  # (7, 128) float32, of trellis and Lloyd-Max codes of b bits in row b - 1
    thresholds: np.ndarray  # (7, 127) float32, infinite behind the last


@lru_cache(maxsize=64)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout.

    Rule: query.page.layout
    """
    grid = gain_grid()
    values = np.zeros((WIDEST, 1 << WIDEST), dtype=np.float32)
    thresholds = np.full((WIDEST, (1 << WIDEST) - 1), np.inf, dtype=np.float32)
    for b in range(WIDEST):
        row = trellis_values(b + 1) if b < WALKED else lloyd_max(b + 1)[0]
        values[b, : len(row)] = row
        thresholds[b, : (2 << b) - 1] = lloyd_max(b + 1)[1]
    return Plan(
        lane_count(layout),
        layout.nbytes,
        band_bits(layout.codec, layout.head_dim),
        layout.plane("codes8").offset,
        np.zeros(layout.head_dim, dtype=np.uint32),
        band_savings().copy(),
        gain_midpoints().copy(),
        grid[(256 - np.arange(256)) % 256].copy(),
        grid.copy(),
        np.asarray(trellis_labels(), dtype=np.int64),
        values,
        thresholds,
    )


class Table(NamedTuple):
    """Numbers of one table."""

    mean: np.ndarray  # (D,) float32
    dense: np.ndarray  # (D, D) float32: the analysis, or the columns of the basis
    width: np.ndarray  # (D,) int64, bits of every coefficient; zeros behind the active ones
    active: np.ndarray  # (2,) int64: coefficients with bits, and those with Lloyd-Max codes
    weight: np.ndarray  # (D,) float32, the spread of every coefficient's band


@serial
def _read_table(bodies, at, analysis, synthesis, p, table):
    """Widen a table and share out the bits; ``TABLE``, ``SPREAD`` or ``FINE``.

    Rule: codec.table.finite, query.spread.descending, query.bits.greedy, query.table.layout
    """
    d = len(table.mean)
    bands = d // 8
    # Planes begin at multiples of 16 bytes.
    basis = (2 * d + 15) // 16 * 16
    spread_at = basis + (2 * d * d + 15) // 16 * 16
    largest = np.uint32(0)
    spread = np.empty(bands, np.float32)
    words, means = spread.view(np.uint32), table.mean.view(np.uint32)
    dense = table.dense.view(np.uint32)
    for i in range(d):
        means[i] = _half(bodies, at, 2 * i)
        largest = max(largest, np.uint32(means[i] & MAGNITUDE))
    for i in range(d):
        for j in range(d):
            u = _half(bodies, at, basis + 2 * (i * d + j))
            largest = max(largest, np.uint32(u & MAGNITUDE))
            if synthesis:
                dense[j, i] = u
            else:
                dense[i, j] = u
    for i in range(bands):
        words[i] = _half(bodies, at, spread_at + 2 * i)
        largest = max(largest, np.uint32(words[i] & MAGNITUDE))
    if largest >= INFINITE:
        return TABLE
    for i in range(bands):
        if spread[i] < 0 or (i and spread[i] > spread[i - 1]):
            return SPREAD
    if len(analysis) and not synthesis:
        for i in range(d):
            for j in range(d):
                table.dense[i, j] = analysis[at, i, j]
    bits = np.zeros(bands, np.int64)
    for _ in range(p.row):
        best, most = 0, np.float32(-1)
        for i in range(bands):
            saved = spread[i] * p.savings[bits[i]] if bits[i] < WIDEST else np.float32(-1)
            if saved > most:
                best, most = i, saved
        bits[best] += 1
    table.active[:] = 0
    for i in range(d):
        table.width[i] = bits[i // 8]
        table.weight[i] = spread[i // 8]
        table.active[0] += 1 if bits[i // 8] else 0
        table.active[1] += 1 if bits[i // 8] > WALKED else 0
    return FINE


@serial
def _half(bodies, at, offset):
    u = np.uint32(bodies[at, offset]) | np.uint32(bodies[at, offset + 1]) << np.uint32(8)
    return widen(np.uint32(u), F16)


@serial
def _empty(d):
    return Table(
        np.empty(d, np.float32),
        np.empty((d, d), np.float32),
        np.empty(d, np.int64),
        np.zeros(2, np.int64),
        np.empty(d, np.float32),
    )


@serial
def _encode_lanes(p0, p, table, bits, y, squares, gain, byte, paths, page):
    """Fields of V vectors, which ``bits`` holds; ``VALUE``, ``GAIN`` or ``FINE``.

    Rule: query.encode.project, query.gain.active, query.gain.reach, query.code.trellis,
    query.value.range, scale.byte.range
    """
    n = table.active[0]
    x = bits.view(np.float32)
    centre(x, table.mean)
    z = y[:n]
    chains(x, table.dense[:n], z)
    if not_finite(z):
        return VALUE
    rms(z, squares[: n // 2], gain)
    wide = table.active[1]
    for i in range(wide):
        last = p.values[table.width[i] - 1][(1 << table.width[i]) - 1]
        for v in range(p.lanes):
            # A gain of infinity stays: it is refused.
            gain[v] = max(gain[v], np.abs(z[i, v]) / last)
    if gain_bytes(gain, p.midpoints, byte) >= 0:
        return GAIN
    for v in range(p.lanes):
        page[p0 + v] = byte[v]
        gain[v] = p.forward[byte[v]]
    for i in range(n):
        for v in range(p.lanes):
            z[i, v] *= gain[v]
    for i in range(wide):
        _count(z[i], p.thresholds[table.width[i] - 1], table.width[i], paths.codes[i])
    some = slice(wide, n)
    cheapest(z[some], table.width[some], table.weight[some], p.labels, p.values, paths, wide)
    _pack(paths.codes, table.width[:n], byte, p, p0, page)
    return FINE


@serial
def _count(z, thresholds, width, codes):
    """Thresholds below each number, by halving. Rule: query.code.boundary"""
    for v in range(len(z)):
        code, step = 0, 1 << (width - 1)
        while step:
            if z[v] > thresholds[code + step - 1]:
                code += step
            step >>= 1
        codes[v] = code


@serial
def _pack(codes, width, byte, p, p0, page):
    """Rule: query.row.bits, scale.byte.zero"""
    for v in range(p.lanes):
        at = p.codes + (p0 + v) * p.row
        held, pending = np.int64(0), 0
        for i in range(len(width)):
            code = np.int64(codes[i, v]) if byte[v] else np.int64(0)
            held = held << width[i] | code
            pending += width[i]
            while pending >= 8:
                pending -= 8
                page[at] = np.uint8(held >> pending & 255)
                at += 1
            held &= 255


@serial
def _unpack(page, width, p, p0, codes):
    """Rule: query.row.bits"""
    for v in range(p.lanes):
        at = p.codes + (p0 + v) * p.row
        held, pending = np.int64(0), 0
        for i in range(len(width)):
            while pending < width[i]:
                held = (held & 255) << 8 | np.int64(page[at])
                at += 1
                pending += 8
            pending -= width[i]
            codes[i, v] = held >> pending & ((1 << width[i]) - 1)


def _encode_pages(x, out, bodies, analysis, of_page, p, kind, start, stop):
    """Rule: query.encode.project, num.input.finite."""
    _, tokens, d = x.shape
    bits = np.empty((d, p.lanes), np.uint32)
    y = np.empty((d, p.lanes), np.float32)
    squares = np.empty((d // 2, p.lanes), np.float32)
    gain, byte = np.empty(p.lanes, np.float32), np.empty(p.lanes, np.int64)
    paths, table = scratch(d, p.lanes), _empty(d)
    page = np.zeros(p.nbytes, np.uint8)
    broken, refused, known, last = NONE, NONE, FINE, -1
    for n in range(start, stop):
        if of_page[n] != last:
            last = of_page[n]
            known = _read_table(bodies, last, analysis, False, p, table)
        fault = known
        for p0 in range(0, tokens, p.lanes):
            bad = load(x, n, p0, kind, p.unflipped, bits)
            broken = min(broken, n * tokens + p0 + bad)
            # A gain out of range does not end the page: numbers of later tokens are judged first.
            if broken == NONE and fault >= GAIN:
                found = _encode_lanes(p0, p, table, bits, y, squares, gain, byte, paths, page)
                fault = min(fault, found)
        if fault != FINE:
            refused = min(refused, n * FAULTS + fault)
        copy(page, out[n])
    return broken, refused


def _decode_pages(pages, out, bodies, of_page, p, kind, mode, start, stop):
    """Rule: query.decode.product, query.decode.synthesis."""
    _, tokens, d = out.shape
    bits = np.empty((d, p.lanes), np.uint32)
    x, y = bits.view(np.float32), np.empty((d, p.lanes), np.float32)
    codes, table = np.empty((d, p.lanes), np.int32), _empty(d)
    page, none = np.empty(p.nbytes, np.uint8), np.empty((0, 1, 1), np.float32)
    known, last = FINE, -1
    for n in range(start, stop):
        if of_page[n] != last:
            last = of_page[n]
            known = _read_table(bodies, last, none, True, p, table)
        if known != FINE:
            return np.int64(n * FAULTS + known)
        copy(pages[n], page)
        active = table.active[0]
        for p0 in range(0, tokens, p.lanes):
            _unpack(page, table.width[:active], p, p0, codes)
            wide = table.active[1]
            for i in range(wide):
                row = p.values[table.width[i] - 1]
                for v in range(p.lanes):
                    y[i, v] = row[codes[i, v]]
            some = slice(wide, active)
            walk(codes[some], table.width[some], p.labels, p.values, y[some])
            for v in range(p.lanes):
                scale = p.backward[page[p0 + v]]
                for i in range(active):
                    # Adding +0 turns the -0 of a zero vector into +0 and changes nothing else.
                    y[i, v] = y[i, v] * scale + np.float32(0)
            y[active:] = np.float32(0)
            if mode == COEFFICIENTS:
                store(y.view(np.uint32), out, n, p0, kind, p.unflipped)
                continue
            chains(y, table.dense, x)
            add_mean(x, table.mean)
            if not_finite(x):
                return np.int64(n * FAULTS + NUMBER)
            if mode != CHECK_ONLY:
                store(bits, out, n, p0, kind, p.unflipped)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
