"""Kernels of codec ``scalar``: rotation, gain byte, Lloyd-Max codes."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, NONE, copy
from kakeya_fast.numba_cpu.planes import pack_lanes, plane_table, unpack_lanes
from kakeya_fast.numba_cpu.transform import (
    ROTATION_FIELDS,
    analyse,
    lane_count,
    rotation,
    synthesise,
)
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import PageLayout

# One flat tuple, whose fields the building blocks know by name.
Plan = NamedTuple(
    "Plan",
    [
        *ROTATION_FIELDS,
        ("lanes", int),
        ("nbytes", int),
        ("planes", np.ndarray),  # (planes, 3) int64
        ("centroids", np.ndarray),  # (2**b,) float32
        ("per_unit", np.float32),  # cells per unit of z
        ("middle", np.float32),  # cell of z = 0
        ("last", np.float32),
        ("below", np.ndarray),  # (cells,) uint8, thresholds in lower cells
        ("threshold", np.ndarray),  # (cells,) float32, the threshold inside the cell, or inf
    ],
)


@lru_cache(maxsize=64)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout.

    Rule: scalar.table.lloyd-max, scalar.code.boundary
    """
    centroids, thresholds = lloyd_max(layout.codec.integer("b"))
    cells = 64
    while True:
        last = np.float32(cells - 1)
        reach = np.float32(max(1.0, 1.01 * float(np.abs(thresholds).max())))
        per_unit, middle = np.float32(cells / 2) / reach, np.float32(cells / 2)
        home = cell_of(thresholds, per_unit, middle, last)
        if len(set(home.tolist())) == len(home):
            break
        cells *= 2
    below = np.searchsorted(home, np.arange(cells), side="left").astype(np.uint8)
    inside = np.full(cells, np.inf, dtype=np.float32)
    inside[home] = thresholds
    one = np.float32(1)
    return Plan(
        *rotation(layout.head_dim, layout.codec.integer("seed"), one, one),
        lane_count(layout),
        layout.nbytes,
        plane_table(layout, "codes"),
        centroids.copy(),
        per_unit,
        middle,
        last,
        below,
        inside,
    )


def cell_of(z: np.ndarray, per_unit: np.float32, middle: np.float32, last: np.float32):
    """Cell of each number; fp32 throughout, as in :func:`_quantise`."""
    return np.clip(z * per_unit + middle, np.float32(0), last).astype(np.int64)


@serial
def _quantise(y, byte, p, scale, live, codes):
    """Codes of lanes: the number of thresholds strictly below ``z``.

    Rule: scalar.code.boundary, scale.byte.zero, scale.byte.reciprocal

    Notes
    -----
    The cell of a number never decreases as the number grows, even after rounding. So thresholds
    in lower cells are below it, those in higher cells are not, and the one that may share its
    cell is compared: exact for every input.
    """
    d, lanes = y.shape
    for v in range(lanes):
        scale[v] = p.forward[byte[v]]
        live[v] = np.uint8(255) if byte[v] else np.uint8(0)
    for i in range(d):
        for v in range(lanes):
            z = y[i, v] * scale[v]
            at = z * p.per_unit + p.middle
            at = at if at > np.float32(0) else np.float32(0)
            at = at if at < p.last else p.last
            cell = np.uint32(np.int32(at))
            above = np.uint8(1) if z > p.threshold[cell] else np.uint8(0)
            codes[i, v] = (p.below[cell] + above) & live[v]


def _encode_pages(x, out, p, kind, start, stop):
    """Rule: scalar.code.boundary, scale.rms, num.input.finite."""
    _, tokens, d = x.shape
    bits = np.empty((d, p.lanes), np.uint32)
    squares = np.empty((d // 2, p.lanes), np.float32)
    gain = np.empty(p.lanes, np.float32)
    byte = np.empty(p.lanes, np.int64)
    live = np.empty(p.lanes, np.uint8)
    codes = np.empty((d, p.lanes), np.uint8)
    merged = np.empty((d, p.lanes), np.uint8)
    page = np.zeros(p.nbytes, np.uint8)
    broken, refused = NONE, NONE
    for n in range(start, stop):
        for p0 in range(0, tokens, p.lanes):
            bad, large = analyse(x, n, p0, kind, p, bits, squares, gain, byte)
            broken = min(broken, n * tokens + p0 + bad)
            refused = min(refused, n * tokens + p0 + large)
            if bad == NONE and large == NONE:
                _quantise(bits.view(np.float32), byte, p, gain, live, codes)
                for v in range(p.lanes):
                    page[p0 + v] = byte[v]
                pack_lanes(codes, p.planes, page, p0, merged)
        copy(page, out[n])
    return broken, refused


def _decode_pages(pages, out, p, kind, mode, start, stop):
    """Rule: scalar.decode.product, scale.byte.zero, hadamard.scale.once."""
    if mode == CHECK_ONLY:  # every byte string of the right length is a page
        return NONE
    _, tokens, d = out.shape
    bits = np.empty((d, p.lanes), np.uint32)
    y = bits.view(np.float32)
    scale = np.empty(p.lanes, np.float32)
    codes = np.empty((d, p.lanes), np.uint8)
    merged = np.empty((d, p.lanes), np.uint8)
    page = np.empty(p.nbytes, np.uint8)
    for n in range(start, stop):
        copy(pages[n], page)
        for p0 in range(0, tokens, p.lanes):
            for v in range(p.lanes):
                scale[v] = p.backward[page[p0 + v]]
            unpack_lanes(page, p.planes, p0, codes, merged)
            for i in range(d):
                for v in range(p.lanes):
                    # Adding +0 turns the -0 of a zero vector into +0 and changes nothing else.
                    y[i, v] = p.centroids[codes[i, v]] * scale[v] + np.float32(0)
            synthesise(bits, out, n, p0, kind, p, mode)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
