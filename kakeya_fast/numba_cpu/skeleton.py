"""Kernels of codec ``skeleton``: components, a nearest centre, a sparse residual."""

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
from kakeya_fast.numba_cpu.faults import (
    FAULTS,
    FINE,
    NUMBER,
    PLACE,
    PROJ,
    SEG,
    VALUE,
)
from kakeya_fast.numba_cpu.half import (
    INFINITE,
    MAGNITUDE,
    as_float,
    narrow,
    widen,
    widen_row,
)
from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import NONE, copy, load, store
from kakeya_fast.numba_cpu.planes import pack_row, plane_table, unpack_row
from kakeya_fast.numba_cpu.sparse import largest_of_lanes
from kakeya_fast.numba_cpu.table import (
    TABLE_FIELDS,
    empty_table,
    read_table,
    set_analysis,
    set_synthesis,
    table_plan,
    up4,
)
from kakeya_ref.layout import residual_kept
from kakeya_ref.types import PageLayout

Plan = NamedTuple(
    "Plan",
    [
        *TABLE_FIELDS,
        ("kept", int),
        ("trend", bool),
        ("lanes", int),
        ("nbytes", int),
        ("unflipped", np.ndarray),  # (D,) uint32, zeros: vectors are read as they are
        # (planes, 3) int64 each
        ("seg", np.ndarray),
        ("along", np.ndarray),
        ("proj", np.ndarray),
        ("value", np.ndarray),
        ("place", np.ndarray),
    ],
)
FIELDS = ("seg", "along", "proj", "value", "place")


@lru_cache(maxsize=256)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout.

    Rule: skeleton.page.layout
    """
    return Plan(
        *table_plan(layout),
        residual_kept(layout.codec),
        layout.codec["time"] == "trend",
        lane_count(layout),
        layout.nbytes,
        np.zeros(layout.head_dim, dtype=np.uint32),
        *(plane_table(layout, name) for name in FIELDS),
    )


class Fields(NamedTuple):
    """Whole fields of one page."""

    seg: np.ndarray  # (P,) int64
    along: np.ndarray  # (P,) int64
    proj: np.ndarray  # (P,) int64
    value: np.ndarray  # (P * kept,) int64
    place: np.ndarray  # (P * kept,) int64


class Lanes(NamedTuple):
    """Scratch of V tokens side by side."""

    bits: np.ndarray  # (D, V) uint32
    c: np.ndarray  # (width, V) float32
    dots: np.ndarray  # (k rounded up to 4, V) float32
    rest: np.ndarray  # (width, V) float32
    top: np.ndarray  # (V,) float32
    wide: np.ndarray  # (V,) float32
    short: np.ndarray  # (V,) int64
    seg: np.ndarray  # (V,) int32
    places: np.ndarray  # (V, kept + 1) int64


@serial
def _scratch(tokens, d, p):
    n, v = tokens * p.kept, p.lanes
    fields = Fields(
        np.empty(tokens, np.int64),
        np.empty(tokens, np.int64),
        np.empty(tokens, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
    )
    return fields, Lanes(
        np.empty((d, v), np.uint32),
        np.zeros((p.width, v), np.float32),
        np.zeros((up4(p.k), v), np.float32),
        np.zeros((p.width, v), np.float32),
        np.empty(v, np.float32),
        np.empty(v, np.float32),
        np.empty(v, np.int64),
        np.empty(v, np.int32),
        np.empty((v, p.kept + 1), np.int64),
    )


@serial
def _encode_lanes(p0, p, table, s, f):
    """Fields of V vectors, which ``s.bits`` holds; ``VALUE`` or ``FINE``.

    Rule: skeleton.encode.project, skeleton.time.trend, skeleton.seg.absolute,
    skeleton.place.largest, skeleton.value.range
    """
    x = s.bits.view(np.float32)
    centre(x, table.mean)
    chains(x, table.dense, s.c)
    if not_finite(s.c):
        return VALUE
    if p.trend:
        chains(s.c, table.trend, s.dots)
        if not round_lanes(s.dots[0], p.stored, s.short, s.wide):
            return VALUE
        for v in range(p.lanes):
            f.along[p0 + v] = s.short[v]
        for j in range(p.rank):
            for v in range(p.lanes):
                s.c[j, v] -= s.wide[v] * table.trend[0, j]
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
    largest_of_lanes(s.c, p.rank, p.kept, s.rest, s.top, s.seg, s.places)
    words = s.c.view(np.uint32)
    largest = np.uint32(0)
    for v in range(p.lanes):
        for q in range(p.kept):
            i = s.places[v, q]
            stored = np.uint32(narrow(words[i, v], p.stored))
            largest = max(largest, np.uint32(widen(stored, p.stored) & MAGNITUDE))
            f.value[(p0 + v) * p.kept + q] = stored
            f.place[(p0 + v) * p.kept + q] = i
    return FINE if largest < INFINITE else VALUE


def _encode_pages(x, out, bodies, analysis, p, kind, start, stop):
    """Rule: skeleton.encode.project, num.input.finite."""
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
        fault = known
        for p0 in range(0, tokens, p.lanes):
            bad = load(x, n, p0, kind, p.unflipped, s.bits)
            broken = min(broken, n * tokens + p0 + bad)
            if broken == NONE and fault == FINE:
                fault = _encode_lanes(p0, p, table, s, f)
        if fault != FINE:
            refused = min(refused, n * FAULTS + fault)
        else:
            for fields, planes in (
                (f.seg, p.seg),
                (f.proj, p.proj),
                (f.value, p.value),
                (f.place, p.place),
            ):
                pack_row(fields, planes, page)
            if p.trend:
                pack_row(f.along, p.along, page)
        copy(page, out[n])
    return broken, refused


@serial
def _fields(page, p, f):
    """Whole fields of a page, ``proj``, ``along`` and ``value`` widened; the first fault.

    Rule: skeleton.seg.range, skeleton.place.ascending, skeleton.value.finite
    """
    unpack_row(page, p.seg, f.seg)
    unpack_row(page, p.proj, f.proj)
    unpack_row(page, p.along, f.along)
    unpack_row(page, p.value, f.value)
    unpack_row(page, p.place, f.place)
    for t in range(len(f.seg)):
        if f.seg[t] >= p.k:
            return SEG
    if not widen_row(f.proj, p.stored):
        return PROJ
    for t in range(len(f.seg)):
        row = f.place[t * p.kept : (t + 1) * p.kept]
        last = -1
        for q in range(p.kept):
            if p.kept == p.rank:
                row[q] = q
            if row[q] <= last or row[q] >= p.rank:
                return PLACE
            last = row[q]
    values, along = widen_row(f.value, p.stored), widen_row(f.along, p.stored)
    return FINE if values and along else NUMBER


@serial
def _decode_lanes(p0, p, table, s, f):
    """V vectors in ``s.bits``; ``NUMBER`` or ``FINE``.

    Rule: skeleton.decode.sum, skeleton.decode.synthesis, skeleton.value.finite
    """
    for v in range(p.lanes):
        s.seg[v] = f.seg[p0 + v]
        s.wide[v] = as_float(f.proj[p0 + v])
        s.top[v] = as_float(f.along[p0 + v])
    put_centres(s.c, p.rank, table.centres, s.seg, s.wide)
    if p.trend:
        for j in range(p.rank):
            for v in range(p.lanes):
                s.c[j, v] = s.top[v] * table.trend[0, j] + s.c[j, v]
    s.rest[:] = np.float32(0)
    for v in range(p.lanes):
        for q in range((p0 + v) * p.kept, (p0 + v + 1) * p.kept):
            s.rest[f.place[q], v] = as_float(f.value[q])
    for j in range(p.rank):
        for v in range(p.lanes):
            s.c[j, v] += s.rest[j, v]
    x = s.bits.view(np.float32)
    chains(s.c, table.dense, x)
    add_mean(x, table.mean)
    return NUMBER if not_finite(x) else FINE


def _decode_pages(pages, out, bodies, p, kind, start, stop):
    """Rule: skeleton.decode.synthesis."""
    _, tokens, d = out.shape
    f, s = _scratch(tokens, d, p)
    table = empty_table(bodies.shape[1], d, p.width, d, p)
    page = np.empty(p.nbytes, np.uint8)
    for n in range(start, stop):
        fault = FINE
        if n == start or len(bodies) > 1:
            fault = read_table(bodies, n if len(bodies) > 1 else 0, p, table)
            set_synthesis(p, table)
        copy(pages[n], page)
        if fault == FINE:
            fault = _fields(page, p, f)
        for p0 in range(0, tokens, p.lanes):
            if fault == FINE:
                fault = _decode_lanes(p0, p, table, s, f)
                store(s.bits, out, n, p0, kind, p.unflipped)
        if fault != FINE:
            return np.int64(n * FAULTS + fault)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
