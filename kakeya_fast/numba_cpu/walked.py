"""One side of attention over pages whose codes are a walk: ``trellis``, and keys of ``query``.

Whole numbers, as :mod:`kakeya_fast.numba_cpu.narrow`; :mod:`kakeya_fast.numba_cpu.translate` finds
those of eight codes of every token of a tile at once.
"""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.codes import WALKED, WIDEST
from kakeya_fast.numba_cpu.jit import lent, serial
from kakeya_fast.numba_cpu.narrow import STEP, TILE, finish, heavies, take
from kakeya_fast.numba_cpu.planes import plane_table
from kakeya_fast.numba_cpu.rows import copy_floats, copy_words
from kakeya_fast.numba_cpu.simd import dots, field_table, mix_fours
from kakeya_fast.numba_cpu.translate import of_bits, of_planes, room, tables, ways
from kakeya_ref.layout import band_bits
from kakeya_ref.skeletons import parts
from kakeya_ref.tables import band_savings, gain_grid, lloyd_max, trellis_values
from kakeya_ref.types import PageLayout

__all__ = ["finish", "gather", "load", "plan", "plan_of", "products", "read", "scratch", "serves"]


class Plan(NamedTuple):
    """Constants of one layout and the tables of its heads."""

    size: int  # of a row of numbers: a multiple of 16
    tokens: int
    nbytes: int
    scales: int  # offset of the gain bytes
    codes: int  # offset of the rows of bits, where codes have no planes
    row: int  # bytes of such a row
    fields: np.ndarray  # (planes, 3 + D / 4) int64; none where codes are rows of bits
    width: np.ndarray  # (heads, D / 8) int64: bits of every eight codes, zeros behind the last
    start: np.ndarray  # (9,) int64: where the tables of codes of that many bits begin, and end
    tables: np.ndarray  # (sixteens, 64) uint8, as :func:`kakeya_fast.numba_cpu.translate.tables`
    ways: np.ndarray  # (8, 64) uint8, as :func:`kakeya_fast.numba_cpu.translate.ways`
    gain: np.ndarray  # (256,) float32, times what a whole number stands for
    places: np.ndarray  # (D,) int64


def serves(layout: PageLayout) -> bool:
    """Whether pages of this layout can be read as walks of whole numbers."""
    trellis = layout.codec.id == "trellis" and layout.codec.integer("b") <= WALKED
    return layout.codec.id == "query" or (trellis and layout.head_dim % 64 == 0)


@lru_cache(maxsize=64)
def plan(layout: PageLayout, paired: bool) -> Plan:
    """Constants of ``trellis``, whose heads are alike."""
    width = np.full((1, layout.head_dim // 8), layout.codec.integer("b"))
    return _plan(layout, width, field_table(plane_table(layout, "codes"), layout.head_dim))


_known: dict[Any, tuple[PageLayout, Plan, list[Any]]] = {}
KNOWN = 256


def plan_of(layout: PageLayout, known: Any) -> Plan:
    """Constants of ``query`` beside the tables of its heads, one each; kept while these live.

    Rule: query.bits.greedy, query.spread.descending, codec.table.finite

    Raises
    ------
    Malformed
    """
    key = tuple(map(id, known))
    if key in _known:
        of, made, held = _known[key]
        if of == layout and all(r() is t for r, t in zip(held, known, strict=True)):
            return made
    bodies = [body for table in known for body in table.bodies]
    spreads = [parts(body, layout.codec, layout.head_dim).spread for body in bodies]
    width = _shared_out(np.stack(spreads), band_bits(layout.codec, layout.head_dim))
    made = _plan(layout, width, np.zeros((0, 0), np.int64))
    if len(_known) >= KNOWN:
        _known.clear()
    _known[key] = layout, made, [weakref.ref(table) for table in known]
    return made


def _shared_out(spread: np.ndarray, bits: int) -> np.ndarray:
    """Bits of every band, of bands (heads, D / 8). Rule: query.bits.greedy"""
    width, heads = np.zeros(spread.shape, np.int64), np.arange(len(spread))
    # Nothing is saved in a band of the most bits, whatever its spread.
    savings = np.append(band_savings(), np.float32(0))
    for _ in range(bits):
        saved = np.where(width < WIDEST, spread * savings[width], np.float32(-1))
        width[heads, saved.argmax(1)] += 1
    return width


def _plan(layout: PageLayout, width: np.ndarray, fields: np.ndarray) -> Plan:
    """Rule: trellis.table.values, trellis.label.linear, scalar.table.lloyd-max, scale.byte.grid"""
    used = range(1, max(1, int(width.max())) + 1)
    values = [trellis_values(b) if b <= WALKED else lloyd_max(b)[0] for b in used]
    # Half of a whole number below: so ``~w`` stands for minus what ``w`` does.
    unit = max(np.abs(x).max() for x in values).astype(np.float64) / (STEP + 0.5)
    whole = [np.rint(x / unit - 0.5).astype(np.int16) for x in values]
    start = np.zeros(WIDEST + 2, np.int64)
    start[2 : len(used) + 2] = np.cumsum([len(x) // 16 for x in whole])
    d = layout.head_dim
    return Plan(
        -(-d // 16) * 16,
        layout.tokens,
        layout.nbytes,
        layout.plane("scales").offset,
        layout.nbytes if len(fields) else layout.plane("codes8").offset,
        int(width[0].sum()),
        fields,
        width.astype(np.int64),
        start,
        np.concatenate([tables(x) for x in whole]),
        ways(),
        (gain_grid() * unit).astype(np.float32),
        np.arange(d),
    )


@serial
def scratch(p, rows, tokens, size):
    """Working memory of one worker: as of ``narrow``; the head, a page, its bytes, a tile."""
    words = np.zeros(p.nbytes // 8 + 2, np.uint64)  # the last row is read beyond its end
    return (
        np.zeros(TILE * p.size, np.int16),
        np.empty(rows * TILE, np.int16),
        np.empty(rows, np.float32),
        np.empty(rows * p.size, np.int16),
        np.empty(tokens, np.float32),
        np.empty(p.size, np.float32),
        np.empty(rows, np.float32),
        np.zeros(1, np.int64),
        words,
        words.view(np.uint8),
        np.empty(room(p), np.uint64),
    )


@lent
def load(p, s, q, head):
    """Take queries (M, D) of a head, rows side by side in memory, in as whole numbers.

    None where a band has no bits.
    """
    s[7][0] = head % len(p.width)
    width, active = p.width[s[7][0]], 0
    for band in range(len(width)):
        active += 8 if width[band] > 0 else 0
    row = s[5]
    row[active:] = np.float32(0)
    for m in range(len(q)):
        copy_floats(q, m * q.strides[0] // q.itemsize, active, row)
        s[6][m] = np.float32(0.5) * take(p, s, m)


@lent
def read(p, s, page):
    """Take a page in; some encoder can have written it."""
    gains, words, octets = s[4], s[8], s[9]
    copy_words(page, 0, len(page), words)
    for t in range(p.tokens):
        gains[t] = p.gain[octets[p.scales + t]]
    return True


@lent
def fill(p, s, t0, tokens, paired):
    """Whole numbers of a tile: in the places of ``simd.place``, or of ``simd.in_fours``.

    Rule: trellis.decode.product, query.row.bits, query.decode.product, page.plane.split
    """
    width = p.width[s[7][0]]
    if len(p.fields):
        of_planes(s[8], p, width[0], s[10], t0, tokens, paired, s[0])
    else:
        of_bits(s[8], p, width, s[10], p.codes + t0 * p.row, tokens, s[0])


@lent
def products(p, s, page, out):
    """Products of the queries with every token of the page: out (M, P) float32 is written."""
    for t0 in range(0, p.tokens, TILE):
        tokens = min(TILE, p.tokens - t0)
        fill(p, s, t0, tokens, False)
        dots(s[0], s[3], s[6], s[2], s[4], p.size, t0, tokens, out)


@lent
def gather(p, s, page, weights, acc):
    """Add the values of the page, weighted: weights (M, P), acc (M, E)."""
    for t0 in range(0, p.tokens, TILE):
        tokens = min(TILE, p.tokens - t0)
        for m in range(len(weights)):
            total = heavies(weights, m, t0, tokens, s[4], s[1], s[2])
            s[6][m] = np.float32(0.5) * total
        fill(p, s, t0, tokens, True)
        mix_fours(s[0], s[1], s[2], s[6], p.size, len(weights), tokens, acc.reshape(acc.size))
