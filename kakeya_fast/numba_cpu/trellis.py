"""Kernels of codec ``trellis``: rotation, gain byte, the walk of least error."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.gain import unbiased
from kakeya_fast.numba_cpu.jit import Kernel
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, NONE, copy
from kakeya_fast.numba_cpu.planes import pack_lanes, plane_table, unpack_lanes
from kakeya_fast.numba_cpu.transform import (
    ROTATION_FIELDS,
    analyse,
    rotation,
    synthesise,
)
from kakeya_fast.numba_cpu.vector16 import LANES
from kakeya_fast.numba_cpu.walk import LABELS, STATES, WALK_FIELDS, search, values, walk
from kakeya_ref.types import PageLayout

Plan = NamedTuple(
    "Plan",
    [
        *ROTATION_FIELDS,
        *WALK_FIELDS,
        ("lanes", int),
        ("nbytes", int),
        ("planes", np.ndarray),  # (planes, 3) int64
        ("unbiased", bool),
    ],
)


@lru_cache(maxsize=64)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout."""
    one, d = np.float32(1), layout.head_dim
    bits = np.full(d, layout.codec.integer("b"), dtype=np.int64)
    return Plan(
        *rotation(d, layout.codec.integer("seed"), one, one),
        *walk(bits),
        LANES,
        layout.nbytes,
        plane_table(layout, "codes"),
        layout.codec["gain"] == "unbiased",
    )


def _encode_pages(x, out, p, kind, start, stop):
    """Rule: trellis.search.step, trellis.gain.unbiased, scale.rms, num.input.finite."""
    _, tokens, d = x.shape
    bits = np.empty((d, p.lanes), np.uint32)
    z = bits.view(np.float32)
    squares = np.empty((d // 2, p.lanes), np.float32)
    gain = np.empty(p.lanes, np.float32)
    byte = np.empty(p.lanes, np.int64)
    cost = np.empty((STATES, p.lanes), np.float32)
    after = np.empty((STATES, p.lanes), np.float32)
    square = np.empty((LABELS, p.lanes), np.float32)
    pick = np.empty((d * LABELS, p.lanes), np.uint8)
    flags = np.empty((d, STATES), np.uint16)
    codes = np.empty((d, p.lanes), np.uint8)
    merged = np.empty((d, p.lanes), np.uint8)
    page = np.zeros(p.nbytes, np.uint8)
    found = np.empty((d, p.lanes), np.float32)
    products = np.empty((d // 2, p.lanes), np.float32)
    ones = np.ones(p.lanes, np.float32)
    broken, refused = NONE, NONE
    for n in range(start, stop):
        for p0 in range(0, tokens, p.lanes):
            bad, large = analyse(x, n, p0, kind, p, bits, squares, gain, byte)
            broken = min(broken, n * tokens + p0 + bad)
            refused = min(refused, n * tokens + p0 + large)
            if bad == NONE and large == NONE:
                for v in range(p.lanes):
                    gain[v] = p.forward[byte[v]]
                for i in range(d):
                    for v in range(p.lanes):
                        z[i, v] = z[i, v] * gain[v]
                search(z, p, cost, after, square, pick, flags, codes)
                for v in range(p.lanes):
                    if byte[v] == 0:
                        codes[:, v] = 0
                if p.unbiased:
                    values(codes, p, ones, found)
                    unbiased(byte, z, found, squares, products, p)
                for v in range(p.lanes):
                    page[p0 + v] = byte[v]
                pack_lanes(codes, p.planes, page, p0, merged)
        copy(page, out[n])
    return broken, refused


def _decode_pages(pages, out, p, kind, mode, start, stop):
    """Rule: trellis.decode.product, scale.byte.zero, hadamard.scale.once."""
    if mode == CHECK_ONLY:  # every byte string of the right length is a page
        return NONE
    _, tokens, d = out.shape
    bits = np.empty((d, p.lanes), np.uint32)
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
            values(codes, p, scale, bits.view(np.float32))
            synthesise(bits, out, n, p0, kind, p, mode)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
