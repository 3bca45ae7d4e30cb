"""Dense products in index order on lanes, and the nearest centre: the first half of a page."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.half import INFINITE, MAGNITUDE, as_bits, as_float, narrow, widen
from kakeya_fast.numba_cpu.jit import serial
from kakeya_ref.types import PageLayout


def lane_count(layout: PageLayout) -> int:
    """Vectors handled side by side: the longer the lanes, the fewer starts of the inner loop."""
    return next(n for n in (64, 32, 16) if layout.tokens % n == 0)


@serial
def chains(x, rows, out):
    """Product of every lane with every row, each a chain in index order.

    Rule: num.chain.order, num.fp32.no-fma

    Parameters
    ----------
    x : (n, V) float32
    rows : (r, n) float32
        ``r`` and ``n`` are multiples of 4; rows and lanes are continued with zeros. A chain
        begins at +0, so none is ever -0, and adding a product of zeros changes no bit.
    out : (at least r, V) float32
        The first ``r`` rows are written.

    Notes
    -----
    Four links of four chains are taken per pass over the lanes: each number is read once for
    four chains, each sum stored once for four links, and no chain changes its order.
    """
    lanes = x.shape[1]
    source, target = x.reshape(x.size), out.reshape(out.size)
    target[: len(rows) * lanes] = np.float32(0)
    for j in range(0, len(rows), 4):
        sums = target[j * lanes : (j + 4) * lanes]
        for i in range(0, len(x), 4):
            _four_links(source[i * lanes : (i + 4) * lanes], rows, i, j, sums, lanes)


@serial
def _four_links(x, rows, i, j, sums, run):
    a0, a1, a2, a3 = rows[j, i], rows[j, i + 1], rows[j, i + 2], rows[j, i + 3]
    j += 1
    b0, b1, b2, b3 = rows[j, i], rows[j, i + 1], rows[j, i + 2], rows[j, i + 3]
    j += 1
    c0, c1, c2, c3 = rows[j, i], rows[j, i + 1], rows[j, i + 2], rows[j, i + 3]
    j += 1
    d0, d1, d2, d3 = rows[j, i], rows[j, i + 1], rows[j, i + 2], rows[j, i + 3]
    for v in range(run):
        x0, x1, x2, x3 = x[v], x[run + v], x[2 * run + v], x[3 * run + v]
        sums[v] = (((sums[v] + x0 * a0) + x1 * a1) + x2 * a2) + x3 * a3
        sums[run + v] = (((sums[run + v] + x0 * b0) + x1 * b1) + x2 * b2) + x3 * b3
        sums[2 * run + v] = (((sums[2 * run + v] + x0 * c0) + x1 * c1) + x2 * c2) + x3 * c3
        sums[3 * run + v] = (((sums[3 * run + v] + x0 * d0) + x1 * d1) + x2 * d2) + x3 * d3


@serial
def not_finite(x):
    """Whether an array holds a NaN or an infinity."""
    words = x.reshape(x.size).view(np.uint32)
    largest = np.uint32(0)
    for i in range(len(words)):
        largest = max(largest, np.uint32(words[i] & MAGNITUDE))
    return largest >= INFINITE


@serial
def round_lanes(x, kind, short, wide):
    """Round numbers to the stored type.

    Rule: num.round.half-even, skeleton.value.range, turbo.value.range

    Parameters
    ----------
    x : (V,) float32
    short : (V,) int64
        Written: bits of the stored type.
    wide : (V,) float32
        Written: the rounded numbers.

    Returns
    -------
    bool
        Whether all are finite, before and after.
    """
    largest = np.uint32(0)
    for v in range(len(x)):
        u = as_bits(x[v])
        stored = np.uint32(narrow(u, kind))
        again = np.uint32(widen(stored, kind))
        # A NaN may round to anything.
        largest = max(largest, np.uint32(u & MAGNITUDE), np.uint32(again & MAGNITUDE))
        short[v] = stored
        wide[v] = as_float(again)
    return largest < INFINITE


@serial
def centre(x, mean):
    """Take the mean off every lane, in place. x (D, V) float32"""
    for i in range(len(x)):
        for v in range(x.shape[1]):
            x[i, v] -= mean[i]


@serial
def nearest(dots, k, top, seg):
    """Row of the largest magnitude in every lane, the lowest on ties.

    Rule: skeleton.seg.absolute, turbo.seg.absolute

    Parameters
    ----------
    dots : (at least k, V) float32
    top : (V,) float32
        Written: that number, with its sign.
    seg : (V,) int32
        Written.
    """
    lanes = dots.shape[1]
    for v in range(lanes):
        top[v], seg[v] = abs(dots[0, v]), 0
    for j in range(1, k):
        for v in range(lanes):
            size = abs(dots[j, v])
            above = size > top[v]
            top[v] = size if above else top[v]
            seg[v] = np.int32(j) if above else seg[v]
    for v in range(lanes):
        top[v] = dots[seg[v], v]


@serial
def take_centres(c, rank, centres, seg, proj):
    """Take projection times centre off every lane, in place.

    Rule: skeleton.seg.absolute, turbo.seg.absolute, num.fp32.no-fma
    """
    for j in range(rank):
        for v in range(c.shape[1]):
            c[j, v] -= proj[v] * centres[seg[v], j]


@serial
def put_centres(c, rank, centres, seg, proj):
    """Projection times centre in every lane. Rule: skeleton.decode.sum, turbo.decode.sum"""
    for j in range(rank):
        for v in range(c.shape[1]):
            c[j, v] = proj[v] * centres[seg[v], j]


@serial
def add_mean(x, mean):
    """Put the mean back on every lane, in place. x (D, V) float32"""
    for i in range(len(x)):
        for v in range(x.shape[1]):
            x[i, v] += mean[i]
