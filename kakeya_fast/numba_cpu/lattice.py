"""Kernels of codecs ``d4`` and ``e8``: rotation, gain byte, nearest lattice point, its index."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numba import prange

from kakeya_fast.numba_cpu.enumeration import rank, unrank
from kakeya_fast.numba_cpu.half import flushes
from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import NONE
from kakeya_fast.numba_cpu.nearest import nearest_even
from kakeya_fast.numba_cpu.planes import pack_row, plane_table, unpack_row
from kakeya_fast.numba_cpu.transform import (
    ROTATION_FIELDS,
    analyse,
    lane_count,
    rotation,
    synthesise,
)
from kakeya_ref.layout import LATTICE_BLOCK, lattice_count
from kakeya_ref.tables import lattice_step
from kakeya_ref.types import PageLayout


# One flat tuple: numba passes no nested tuples into parallel loops.
Plan = NamedTuple(
    "Plan",
    [
        *ROTATION_FIELDS,
        ("lanes", int),
        ("nbytes", int),
        ("planes", np.ndarray),  # (planes, 3) int64
        ("block", int),
        ("q", int),
        ("count", int),
        ("first_half", int),  # index of the first half-odd point; ``count`` for d4
    ],
)


@lru_cache(maxsize=64)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout.

    Rule: d4.step.table, e8.step.table, d4.index.bijective, e8.index.bijective
    """
    codec, q = layout.codec, layout.codec.integer("q")
    block = LATTICE_BLOCK[codec.id]
    return Plan(
        *rotation(layout, *lattice_step(codec.id, q)),
        lane_count(layout),
        layout.nbytes,
        plane_table(layout, "index"),
        block,
        q,
        lattice_count(codec),
        ((2 * q + 1) ** block + 1) // 2,
    )


@serial
def _search(y, byte, p, scale, whole, shifted, squares, costs, state, half, index):
    """Indices of one block of every lane.

    Rule: e8.coset.tie, e8.nearest.inside, d4.nearest.inside, scale.byte.zero

    Parameters
    ----------
    y : (n, V) float32
        Coefficients of the block.
    index : (V,) int64
        Written.
    """
    lanes = y.shape[1]
    q = np.float32(p.q)
    nearest_even(y, scale, np.float32(0), -q, q, whole, squares, state)
    if p.block == 8:
        for v in range(lanes):
            costs[v] = squares[0, v]
        below = q - np.float32(1)
        nearest_even(y, scale, np.float32(0.5), -q, below, shifted, squares, state)
        for v in range(lanes):
            half[v] = 1 if squares[0, v] < costs[v] else 0
        for i in range(8):
            for v in range(lanes):
                whole[i, v] = shifted[i, v] if half[v] else whole[i, v]
    rank(whole, half, p.q, p.first_half, index)
    for v in range(lanes):
        index[v] = index[v] if byte[v] else 0


@serial
def _encode_pages(x, out, p, kind, start, stop):
    pages, tokens, d = x.shape
    n_blocks = d // p.block
    bits = np.empty((d, p.lanes), np.uint32)
    y = bits.view(np.float32)
    squares = np.empty((d // 2, p.lanes), np.float32)
    gain = np.empty(p.lanes, np.float32)
    byte = np.empty(p.lanes, np.int64)
    whole = np.empty((p.block, p.lanes), np.float32)
    shifted = np.empty((p.block, p.lanes), np.float32)
    errors = np.empty((p.block, p.lanes), np.float32)
    state = np.empty((4, p.lanes), np.float32)
    half = np.zeros(p.lanes, np.int64)
    index = np.empty(p.lanes, np.int64)
    fields = np.zeros(tokens * n_blocks, np.int64)
    page = np.zeros(p.nbytes, np.uint8)
    broken, refused = NONE, NONE
    for n in range(start, stop):
        for p0 in range(0, tokens, p.lanes):
            bad, large = analyse(x, n, p0, kind, p, bits, squares, gain, byte)
            broken = min(broken, n * tokens + p0 + bad)
            refused = min(refused, n * tokens + p0 + large)
            if bad != NONE or large != NONE:
                continue
            costs = gain
            scale = squares[0]
            for v in range(p.lanes):
                page[p0 + v] = byte[v]
                scale[v] = p.forward[byte[v]]
            for j in range(n_blocks):
                block = y[j * p.block : (j + 1) * p.block]
                _search(block, byte, p, scale, whole, shifted, errors, costs, state, half, index)
                for v in range(p.lanes):
                    fields[(p0 + v) * n_blocks + j] = index[v]
        pack_row(fields, p.planes, page)
        out[n] = page
    return broken, refused


@serial
def _decode_pages(pages, out, p, kind, vectors, start, stop):
    count, tokens, d = out.shape
    n_blocks = d // p.block
    bits = np.empty((d, p.lanes), np.uint32)
    y = bits.view(np.float32)
    step = np.empty(p.lanes, np.float32)
    index = np.empty(p.lanes, np.int64)
    c = np.empty((p.block, p.lanes), np.float32)
    digits = np.empty((p.block, p.lanes), np.float32)
    fields = np.empty(tokens * n_blocks, np.int64)
    page = np.empty(p.nbytes, np.uint8)
    for n in range(start, stop):
        page[:] = pages[n]
        unpack_row(page, p.planes, fields)
        largest = np.int64(0)
        for j in range(len(fields)):
            largest = max(largest, fields[j])
        if largest >= p.count or fields.min() < 0:
            return np.int64(n)
        for p0 in range(0, tokens, p.lanes):
            for v in range(p.lanes):
                step[v] = p.backward[page[p0 + v]]
            for j in range(n_blocks):
                for v in range(p.lanes):
                    index[v] = fields[(p0 + v) * n_blocks + j]
                unrank(index, p.q, p.first_half, c, digits)
                for i in range(p.block):
                    for v in range(p.lanes):
                        # Adding +0 turns the -0 of a zero vector into +0, nothing else.
                        y[j * p.block + i, v] = c[i, v] * step[v] + np.float32(0)
            synthesise(bits, out, n, p0, kind, p, vectors)
    return NONE


def _encode(x, out, p, kind, err):
    """Rule: d4.nearest.inside, e8.nearest.inside, e8.coset.tie, scale.rms, num.input.finite."""
    parts = len(err)
    for part in prange(parts):
        start, stop = part * len(x) // parts, (part + 1) * len(x) // parts
        err[part, 2] = flushes(parts)
        err[part, 0], err[part, 1] = _encode_pages(x, out, p, kind, start, stop)


def _decode(pages, out, p, kind, vectors, err):
    """Rule: d4.decode.product, e8.decode.product, d4.index.range, e8.index.range."""
    parts = len(err)
    for part in prange(parts):
        start, stop = part * len(out) // parts, (part + 1) * len(out) // parts
        err[part, 2] = flushes(parts)
        err[part, 0] = _decode_pages(pages, out, p, kind, vectors, start, stop)


encode = Kernel(_encode)
decode = Kernel(_decode)
