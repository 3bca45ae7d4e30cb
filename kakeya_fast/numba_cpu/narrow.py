"""One side of attention over ``scalar`` pages of at most 4 bits: whole-number arithmetic.

Centroids become whole numbers of 12 bits, queries and weights of 16, sums are exact in 32: a
quarter of what bf16 would round, and four times as many products an instruction as float32.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.jit import lent, serial
from kakeya_fast.numba_cpu.planes import plane_table
from kakeya_fast.numba_cpu.rows import distance, farthest, largest, wholes
from kakeya_fast.numba_cpu.simd import dots, field_table, look_up, mix, order
from kakeya_ref.tables import gain_grid, lloyd_max
from kakeya_ref.types import PageLayout

TILE = 32  # tokens whose weighted sum stays below 2**31: 32 * 16383 * 2047
STEP = 2047  # the largest centroid
REACH = 1048000.0  # bound of the sum of absolute whole numbers of a query: REACH * STEP < 2**31
HEAVY = 16383  # the largest weight of a tile


class Plan(NamedTuple):
    """Constants of one layout and one side."""

    size: int
    tokens: int
    nbytes: int
    scales: int  # offset of the gain bytes
    fields: np.ndarray  # (planes, 3 + D / 4) int64
    gain: np.ndarray  # (256,) float32, times what a whole number of the table stands for
    table: np.ndarray  # (64,) uint8
    places: np.ndarray  # (D,) int64


def serves(layout: PageLayout) -> bool:
    """Whether pages of this layout can be read as whole numbers."""
    codec = layout.codec
    return codec.id == "scalar" and codec.integer("b") <= 4 and layout.head_dim % 64 == 0


@lru_cache(maxsize=64)
def plan(layout: PageLayout, paired: bool) -> Plan:
    """Constants of K (rows as they are) or V (rows in pairs).

    Rule: scalar.table.lloyd-max, scale.byte.grid
    """
    centroids, _ = lloyd_max(layout.codec.integer("b"))
    unit = np.abs(centroids).max().astype(np.float64) / STEP
    whole = np.zeros(16, np.int16)
    whole[: len(centroids)] = np.rint(centroids / unit)
    low, high = whole.view(np.uint8).reshape(16, 2).T
    return Plan(
        layout.head_dim,
        layout.tokens,
        layout.nbytes,
        layout.plane("scales").offset,
        field_table(plane_table(layout, "codes"), layout.head_dim),
        (gain_grid() * unit).astype(np.float32),
        np.concatenate([low, low, high, high]),
        order(layout.head_dim, paired),
    )


@serial
def scratch(p, rows, tokens, size):
    """Working memory of one worker: numbers of a tile, weights, factors, queries, gains, a row, and
    what is added to sums.
    """
    return (
        np.empty(TILE * size, np.int16),
        np.empty(rows * TILE, np.int16),
        np.empty(rows, np.float32),
        np.empty(rows * size, np.int16),
        np.empty(tokens, np.float32),
        np.empty(size, np.float32),
        np.zeros(rows, np.float32),
    )


@lent
def load(p, s, q, head):
    """Take queries (M, D) of a head in as whole numbers."""
    for m in range(len(q)):
        for i in range(p.size):
            s[5][i] = q[m, p.places[i]]
        take(p, s, m)


@lent
def take(p, s, m):
    """Take the row of numbers in as whole numbers of query ``m``; their sum."""
    row = s[5]
    top, total = farthest(row, p.size), distance(row, p.size)
    scale = np.float32(0)
    if top > np.float32(0):
        scale = min(np.float32(32767) / top, np.float32(REACH) / total)
    # A query so small that its reciprocal overflows is zero beside any other.
    scale = scale if scale < np.float32(1e30) else np.float32(0)
    s[2][m] = np.float32(1) / scale if scale > np.float32(0) else np.float32(0)
    return wholes(row, 0, p.size, scale, s[3], m * p.size)


@lent
def read(p, s, page):
    """Take the gains of a page (nbytes / 8,) uint64; whether some encoder can have written it."""
    gains, begin = s[4], p.scales // 8
    for t in range(p.tokens):
        byte = (page[begin + t // 8] >> np.uint64(8 * (t % 8))) & np.uint64(255)
        gains[t] = p.gain[byte]
    return True


@lent
def products(p, s, page, out):
    """Products of the queries with every token of the page: out (M, P) float32 is written."""
    numbers, _, unit, whole, gains, _, none = s
    for t0 in range(0, p.tokens, TILE):
        tokens = min(TILE, p.tokens - t0)
        look_up(page, p.fields, p.table, t0, tokens, p.size, False, numbers)
        dots(numbers, whole, none, unit, gains, p.size, t0, tokens, out)


@lent
def heavies(weights, m, t0, tokens, gains, heavy, factor):
    """Whole numbers of the weights of row ``m`` times gains, what one stands for, and their sum."""
    at = m * weights.shape[1] + t0
    top = largest(weights, at, tokens, gains, t0)
    # Weights down here are zero beside those of any page that counts.
    scale = np.float32(HEAVY) / top if top > np.float32(1e-30) else np.float32(0)
    factor[m] = top / np.float32(HEAVY)
    return wholes(weights, at, tokens, scale, heavy, m * tokens)


@lent
def gather(p, s, page, weights, acc):
    """Add the values of the page, weighted: weights (M, P), acc (M, E) in the order of places."""
    numbers, heavy, factor, _, gains, _, none = s
    rows = len(weights)
    for t0 in range(0, p.tokens, TILE):
        tokens = min(TILE, p.tokens - t0)
        for m in range(rows):
            heavies(weights, m, t0, tokens, gains, heavy, factor)
        look_up(page, p.fields, p.table, t0, tokens, p.size, True, numbers)
        mix(numbers, heavy, factor, none, p.size, rows, tokens, acc.reshape(acc.size))


@lent
def finish(p, acc, out):
    """Numbers of ``acc`` where they belong."""
    for i in range(p.size):
        out[p.places[i]] = acc[i]
