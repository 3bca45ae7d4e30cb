"""Kernels of codecs ``d4`` and ``e8``: rotation, gain byte, nearest lattice point, its index."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.enumeration import rank, unrank
from kakeya_fast.numba_cpu.jit import Kernel, serial
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, NONE, copy
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

GROUP = 4  # blocks of a lane searched together: the working set stays in the L1 cache

# One flat tuple, whose fields the building blocks know by name.
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
        *rotation(layout.head_dim, codec.integer("seed"), *lattice_step(codec.id, q)),
        lane_count(layout),
        layout.nbytes,
        plane_table(layout, "index"),
        block,
        q,
        lattice_count(codec),
        ((2 * q + 1) ** block + 1) // 2,
    )


@serial
def _search(z, m, p, whole, shifted, squares, costs, state, half, index):
    """Indices of the nearest points of ``m`` blocks.

    Rule: e8.coset.tie, e8.nearest.inside, d4.nearest.inside

    Parameters
    ----------
    z : (n, M) float32
        One block per column, in lattice units.
    index : (M,) int64
        Written.
    """
    q = np.float32(p.q)
    nearest_even(z, m, np.float32(0), -q, q, whole, squares, state)
    if p.block == 8:
        for v in range(m):
            costs[v] = squares[0, v]
        nearest_even(z, m, np.float32(0.5), -q, q - np.float32(1), shifted, squares, state)
        for v in range(m):
            half[v] = np.int64(squares[0, v] < costs[v])
        for i in range(8):
            for v in range(m):
                inner, outer = whole[i, v], shifted[i, v]
                whole[i, v] = outer if half[v] else inner
    rank(whole, m, half, p.q, p.first_half, index)


@serial
def _gather(y, first, count, scale, z):
    """Blocks ``first .. first + count`` of every lane as columns of ``z``, scaled.

    Parameters
    ----------
    y : (D, V) float32
    scale : (V,) float32
    z : (n, M) float32
        Written: block ``j`` of lane ``v`` is column ``j * V + v``.
    """
    n, lanes = z.shape[0], y.shape[1]
    for j in range(count):
        for i in range(n):
            for v in range(lanes):
                z[i, j * lanes + v] = y[(first + j) * n + i, v] * scale[v]


def _encode_pages(x, out, p, kind, start, stop):
    """Rule: d4.nearest.inside, e8.nearest.inside, e8.coset.tie, scale.rms, num.input.finite."""
    _, tokens, d = x.shape
    n_blocks = d // p.block
    columns = GROUP * p.lanes
    bits = np.empty((d, p.lanes), np.uint32)
    y = bits.view(np.float32)
    squares = np.empty((d // 2, p.lanes), np.float32)
    gain, scale = np.empty(p.lanes, np.float32), np.empty(p.lanes, np.float32)
    byte = np.empty(p.lanes, np.int64)
    z = np.empty((p.block, columns), np.float32)
    whole, shifted, errors = np.empty_like(z), np.empty_like(z), np.empty_like(z)
    costs = np.empty(columns, np.float32)
    state = np.empty((4, columns), np.float32)
    half, index = np.zeros(columns, np.int64), np.empty(columns, np.int64)
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
            for v in range(p.lanes):
                page[p0 + v] = byte[v]
                scale[v] = p.forward[byte[v]]
            for first in range(0, n_blocks, GROUP):
                count = min(GROUP, n_blocks - first)
                _gather(y, first, count, scale, z)
                _search(z, count * p.lanes, p, whole, shifted, errors, costs, state, half, index)
                for v in range(p.lanes):
                    at = (p0 + v) * n_blocks + first
                    for j in range(count):
                        fields[at + j] = index[j * p.lanes + v] if byte[v] else 0
        pack_row(fields, p.planes, page)
        copy(page, out[n])
    return broken, refused


def _decode_pages(pages, out, p, kind, mode, start, stop):
    """Rule: d4.decode.product, e8.decode.product, d4.index.range, e8.index.range."""
    _, tokens, d = out.shape
    n_blocks = d // p.block
    columns = GROUP * p.lanes
    bits = np.empty((d, p.lanes), np.uint32)
    y = bits.view(np.float32)
    step = np.empty(p.lanes, np.float32)
    index = np.empty(columns, np.int64)
    lift = np.empty(columns, np.float32)
    c = np.empty((p.block, columns), np.float32)
    pairs = np.empty((p.block // 2, columns), np.int64)
    fields = np.empty(tokens * n_blocks, np.int64)
    page = np.empty(p.nbytes, np.uint8)
    for n in range(start, stop):
        copy(pages[n], page)
        unpack_row(page, p.planes, fields)
        largest = np.uint64(0)
        for j in range(len(fields)):
            largest = max(largest, np.uint64(fields[j]))
        if largest >= np.uint64(p.count):
            return np.int64(n)
        if mode == CHECK_ONLY:
            continue
        for p0 in range(0, tokens, p.lanes):
            for v in range(p.lanes):
                step[v] = p.backward[page[p0 + v]]
            for first in range(0, n_blocks, GROUP):
                count = min(GROUP, n_blocks - first)
                for j in range(count):
                    for v in range(p.lanes):
                        index[j * p.lanes + v] = fields[(p0 + v) * n_blocks + first + j]
                m = count * p.lanes
                unrank(index, m, p.q, p.first_half, pairs, c)
                for v in range(m):
                    lift[v] = np.float32(0.5) if index[v] >= p.first_half else np.float32(0)
                _scatter(c, lift, first, count, step, y)
            synthesise(bits, out, n, p0, kind, p, mode)
    return NONE


@serial
def _scatter(c, lift, first, count, step, y):
    """Inverse of :func:`_gather` for points ``c + lift``.

    Rule: d4.decode.product, e8.decode.product, scale.byte.zero
    """
    n, lanes = c.shape[0], y.shape[1]
    for j in range(count):
        for i in range(n):
            for v in range(lanes):
                at = j * lanes + v
                # Adding +0 turns the -0 of a zero vector into +0 and changes nothing else.
                y[(first + j) * n + i, v] = (c[i, at] + lift[at]) * step[v] + np.float32(0)


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
