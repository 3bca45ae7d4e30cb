"""One side of attention over pages whose codes are a walk: ``trellis``, and keys of ``query``.

Whole numbers, as :mod:`kakeya_fast.numba_cpu.narrow`. Eight codes are one word, a byte each. Their
low bits and those of the eight before say all their labels, and two tables of words hold what
either eight add to them, since labels are linear.
"""

from __future__ import annotations

import weakref
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.jit import lent, serial
from kakeya_fast.numba_cpu.lanes import copy
from kakeya_fast.numba_cpu.narrow import STEP, TILE, _weights, finish, take
from kakeya_fast.numba_cpu.planes import plane_table
from kakeya_fast.numba_cpu.simd import dots, field_table, mix
from kakeya_fast.numba_cpu.translate import first_highest, tables, translate
from kakeya_ref.layout import band_bits
from kakeya_ref.skeletons import parts
from kakeya_ref.tables import band_savings, gain_grid, lloyd_max, trellis_labels, trellis_values
from kakeya_ref.types import PageLayout

__all__ = ["finish", "gather", "load", "plan", "plan_of", "products", "read", "scratch", "serves"]

WALKED, WIDEST = 3, 7  # most bits of a code that is walked, and of any
LOW = np.uint64(0x0101010101010101)
# The lowest bits of eight bytes, times this, are the top byte, the first byte's bit highest.
COLLECT = np.uint64(0x8040201008040201)


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
    tables: np.ndarray  # (sixteens, 96) uint8, as :func:`kakeya_fast.numba_cpu.translate.tables`
    before: np.ndarray  # (256,) uint64: what the low bits of eight codes add to the next labels
    own: np.ndarray  # (256,) uint64: and to their own
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
    width = np.stack([_shared_out(s, band_bits(layout.codec, layout.head_dim)) for s in spreads])
    made = _plan(layout, width, np.zeros((0, 0), np.int64))
    if len(_known) >= KNOWN:
        _known.clear()
    _known[key] = layout, made, [weakref.ref(table) for table in known]
    return made


def _shared_out(spread: np.ndarray, bits: int) -> np.ndarray:
    """Bits of every band. Rule: query.bits.greedy"""
    width = np.zeros(len(spread), np.int64)
    savings = np.append(band_savings(), np.float32(-np.inf))
    for _ in range(bits):
        # Nothing is saved in a band of the most bits, whatever its spread.
        saved = np.where(width < WIDEST, spread * savings[np.minimum(width, WIDEST - 1)], -1)
        width[np.argmax(saved)] += 1
    return width


def _plan(layout: PageLayout, width: np.ndarray, fields: np.ndarray) -> Plan:
    """Rule: trellis.table.values, trellis.label.linear, scalar.table.lloyd-max, scale.byte.grid"""
    used = range(1, max(1, int(width.max())) + 1)
    values = [trellis_values(b) if b <= WALKED else lloyd_max(b)[0] for b in used]
    unit = max(np.abs(x).max() for x in values).astype(np.float64) / STEP
    whole = [np.rint(x / unit).astype(np.int16) for x in values]
    start = np.zeros(WIDEST + 2, np.int64)
    start[2 : len(used) + 2] = np.cumsum([len(x) // 16 for x in whole])
    # A window holds the low bits of the last eight codes, the newest lowest.
    labels = np.asarray(trellis_labels(), np.uint64)
    byte, shift = np.arange(256)[:, None], np.arange(8)
    before, own = labels[byte << shift + 1 & 255], labels[byte >> 7 - shift]
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
        *((x << (8 * shift).astype(np.uint64)).sum(1, dtype=np.uint64) for x in (before, own)),
        (gain_grid() * unit).astype(np.float32),
        np.arange(d),
    )


@serial
def scratch(p, rows, tokens, size):
    """Working memory of one worker: as of ``narrow``; the head, the page, its bytes, a tile."""
    words = np.zeros(p.nbytes // 8 + 1, np.uint64)  # the last row is read beyond its end
    return (
        np.zeros(TILE * p.size, np.int16),
        np.empty(rows * TILE, np.int16),
        np.empty(rows, np.float32),
        np.empty(rows * p.size, np.int16),
        np.empty(tokens, np.float32),
        np.empty(p.size, np.float32),
        np.zeros(1, np.int64),
        words,
        words.view(np.uint8),
        np.zeros(p.width.shape[1] * TILE, np.uint64),
        np.zeros(TILE, np.uint64),
    )


@lent
def load(p, s, q, head):
    """Take queries (M, D) of a head in as whole numbers; none where a band has no bits."""
    s[6][0] = head % len(p.width)
    width, active = p.width[s[6][0]], 0
    for band in range(len(width)):
        active += 8 if width[band] > 0 else 0
    take(p, s, q, active)


@lent
def read(p, s, page):
    """Take a page in; some encoder can have written it."""
    gains, words, octets = s[4], s[7], s[8]
    copy(page, words[: len(page)])
    for t in range(p.tokens):
        gains[t] = p.gain[octets[p.scales + t]]
    return True


@lent
def _spread(x, n):
    """Eight codes of ``n`` bits, the first one highest, as bytes, the first one lowest."""
    one = (np.uint64(1) << np.uint64(n)) - np.uint64(1)
    two = (np.uint64(1) << np.uint64(2 * n)) - np.uint64(1)
    four = (np.uint64(1) << np.uint64(4 * n)) - np.uint64(1)
    x = x >> np.uint64(4 * n) | (x & four) << np.uint64(32)
    two |= two << np.uint64(32)
    x = (x >> np.uint64(2 * n) & two) | (x & two) << np.uint64(16)
    one *= np.uint64(0x0001000100010001)
    return (x >> np.uint64(n) & one) | (x & one) << np.uint64(8)


@lent
def fill(p, s, t0, tokens, paired):
    """Whole numbers of a tile: in the places of ``simd.place``, or in pairs of tokens.

    Rule: trellis.window.shift, trellis.decode.product, query.row.bits, query.decode.product
    """
    found, last, width = s[9], s[10], p.width[s[6][0]]
    at = p.codes + t0 * p.row
    last[:] = np.uint64(0)
    for g in range(len(width)):
        n, to = width[g], g * TILE
        if n == 0:
            break
        if len(p.fields):
            _planes(s[7], p.fields, t0, tokens, g, len(width), found, to)
        else:
            _bits(s[8], at, p.row, tokens, n, found, to)
            at += n
        if n <= WALKED:
            _labels(found, to, tokens, last, p.before, p.own)
        translate(found, p.tables, s[0], to, g, p.start[n], p.start[n + 1], tokens, p.size, paired)


@lent
def _planes(words, fields, t0, tokens, g, groups, out, to):
    """Codes ``8 * g`` and on of every token, a byte each, from the planes of a page.

    Rule: page.plane.strided, page.plane.split
    """
    for k in range(len(fields)):
        stride, mask, up = fields[k, 0], np.uint64(fields[k, 1]), np.uint64(fields[k, 2])
        at, down = fields[k, 3 + g] + t0 * stride, np.uint64(fields[k, 3 + groups + g])
        for t in range(tokens):
            part = (words[np.uint64(at + t * stride)] >> down & mask) << up
            place = np.uint64(to + t)
            out[place] = out[place] | part if k else part


@lent
def _bits(octets, at, row, tokens, n, out, to):
    """Eight codes of ``n`` bits of every token, a byte each, from rows of bits.

    Rule: query.row.bits
    """
    rest = np.uint64(64 - 8 * n)
    for t in range(tokens):
        out[np.uint64(to + t)] = _spread(first_highest(octets, at + t * row) >> rest, n)


@lent
def _labels(codes, at, tokens, last, before, own):
    """Walked codes become places in their table: label, and what is above the lowest bit.

    Rule: trellis.window.shift, trellis.label.linear
    """
    for t in range(tokens):
        place = np.uint64(at + t)
        word = codes[place]
        low = (word & LOW) * COLLECT >> np.uint64(56)
        high = (word >> np.uint64(1) & np.uint64(3) * LOW) << np.uint64(4)
        codes[place] = high | (before[last[t]] ^ own[low])
        last[t] = low


@lent
def products(p, s, page, out):
    """Products of the queries with every token of the page: out (M, P) float32 is written."""
    for t0 in range(0, p.tokens, TILE):
        tokens = min(TILE, p.tokens - t0)
        fill(p, s, t0, tokens, False)
        dots(s[0], s[3], s[2], s[4], p.size, t0, tokens, out)


@lent
def gather(p, s, page, weights, acc):
    """Add the values of the page, weighted: weights (M, P), acc (M, E)."""
    for t0 in range(0, p.tokens, TILE):
        tokens = min(TILE, p.tokens - t0)
        _weights(weights, t0, tokens, s[4], s[1], s[2])
        fill(p, s, t0, tokens, True)
        mix(s[0], s[1], s[2], p.size, len(weights), tokens, acc.reshape(acc.size))
