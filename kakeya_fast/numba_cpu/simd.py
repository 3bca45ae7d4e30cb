"""Three vector operations that no loop compiles to: a table of sixteen, and sums of products.

Each has a plain form with the same results, for processors without AVX2; only the order of
numbers inside a group of 32 differs, and :data:`ORDER` says it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kakeya_fast.numba_cpu.jit import lent
from kakeya_fast.numba_cpu.vectors import FLOATS, I32, INTS, SHORTS, Vectors, interleaved

AVX2 = bool(binding.get_host_cpu_features().get("avx2", False))

GROUP = 8  # tokens whose products with a query are formed side by side

# Where the numbers of a group of 32 stand after unpacking inside halves of 16 bytes.
_HALVES = np.arange(32).reshape(2, 2, 8).transpose(1, 0, 2).ravel()
_QUARTERS = np.arange(32).reshape(2, 4, 4).transpose(1, 0, 2).ravel()


def order(size: int, paired: bool) -> np.ndarray:
    """Place of every number of a row of ``size`` as :func:`look_up` writes them.

    ``out[i] = table[codes[order[i]]]``.
    """
    group = (_QUARTERS if paired else _HALVES) if AVX2 else np.arange(32)
    return (np.arange(0, size, 32)[:, None] + group).ravel()


@lent
def place(t, i, size):
    """Where number ``i`` of token ``t`` of a tile stands: of eight tokens, 16 each in turn."""
    return (t - t % GROUP) * size + (i - i % 16) * GROUP + t % GROUP * 16 + i % 16


def _look_ups(planes: int, paired: bool) -> Any:
    """Look up 32 codes of every token of a tile: one group of places of :func:`order`."""

    @intrinsic
    def look_up(
        typing: Any, page: Any, fields: Any, table: Any, out: Any,
        at: Any, t0: Any, tokens: Any, size: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = Vectors(context, builder, signature, args)
            at, t0, tokens, size = args[4:]
            fields, table = v.fields(1, planes, size, at), v.table(2)
            step, twice = v.constant(2 if paired else 1), builder.shl(at, v.constant(4))
            with cgutils.for_range_slice(builder, v.constant(0), tokens, step) as (t, _):
                token = builder.add(t0, t)
                found = v.looked_up(v.codes(0, fields, token), table)
                if paired:
                    other = v.looked_up(v.codes(0, fields, v.past(token, 1)), table)
                    found = [
                        v.shuffle(a, b, interleaved(16, 8, side))
                        for a, b in zip(found, other, strict=True)
                        for side in (0, 1)
                    ]
                if paired:
                    to, apart = builder.add(twice, builder.mul(t, size)), 16
                else:
                    of = builder.and_(t, v.constant(GROUP - 1))
                    to = builder.add(builder.shl(of, v.constant(4)), builder.shl(at, v.constant(6)))
                    to, apart = builder.add(to, builder.mul(builder.sub(t, of), size)), 16 * GROUP
                for i, vector in enumerate(found):
                    v.store(vector, 3, v.past(to, apart * i))
            return context.get_dummy_value()

        n = types.int64
        return types.void(page, fields, table, out, n, n, n, n), generate

    return look_up


_one_plane, _two_planes = _look_ups(1, False), _look_ups(2, False)
_one_plane_paired, _two_planes_paired = _look_ups(1, True), _look_ups(2, True)


@intrinsic
def _dots(
    typing: Any, x: Any, q: Any, unit: Any, gains: Any, out: Any, more: Any,
    t: Any, m: Any, size: Any, first: Any, to: Any,
) -> Any:  # fmt: skip
    """Products of eight tokens from ``t`` on with row ``m``, and more, scaled."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, builder, signature, args)
        t, m, size, first, to = args[6:]
        zero = ir.Constant(INTS, None)
        sums = [cgutils.alloca_once_value(builder, zero) for _ in range(GROUP)]
        for each in sums:
            builder.store(zero, each)
        base, row = builder.mul(t, size), builder.mul(m, size)
        with cgutils.for_range_slice(builder, v.constant(0), size, v.constant(16)) as (i, _):
            query = v.load(SHORTS, 1, builder.add(row, i))
            at = builder.add(base, builder.shl(i, v.constant(3)))
            for k, each in enumerate(sums):
                more = v.product(v.load(SHORTS, 0, v.past(at, 16 * k)), query)
                builder.store(builder.add(builder.load(each), more), each)
        a, b, c, d, e, f, g, h = (builder.load(each) for each in sums)
        low = v.neighbours(v.neighbours(a, b), v.neighbours(c, d))
        high = v.neighbours(v.neighbours(e, f), v.neighbours(g, h))
        halves = (v.shuffle(low, high, [*range(k, k + 4), *range(k + 8, k + 12)]) for k in (0, 4))
        whole = builder.sitofp(builder.add(*halves), FLOATS)
        whole = builder.fadd(whole, v.spread(v.number(5, m), 8))
        factor = builder.fmul(v.load(FLOATS, 3, first), v.spread(v.number(2, m), 8))
        v.store(builder.fmul(whole, factor), 4, to)
        return context.get_dummy_value()

    n = types.int64
    return types.void(x, q, unit, gains, out, more, n, n, n, n, n), generate


def _mixes(fours: bool) -> Any:
    """Weighted sums of numbers of pairs, or of fours of tokens, eight vectors at a time."""

    @intrinsic
    def mixes(
        typing: Any, x: Any, w: Any, out: Any, factor: Any, more: Any,
        at: Any, m: Any, size: Any, pairs: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v, b = Vectors(context, builder, signature, args), builder
            at, m, size, pairs = args[5:]
            zero, shift = ir.Constant(INTS, None), v.constant(2 if fours else 1)
            sums = [cgutils.alloca_once_value(b, zero) for _ in range(8)]
            row, begin, apart = b.mul(m, pairs), b.shl(at, shift), b.shl(size, shift)
            with cgutils.for_range(b, b.lshr(pairs, v.constant(1)) if fours else pairs) as loop:
                if fours:
                    first = b.add(row, b.shl(loop.index, v.constant(1)))
                    two = v.load(ir.VectorType(I32, 2), 1, first)
                    both = v.shuffle(two, two, [0] * 4 + [1] * 4)
                else:
                    both = v.spread(v.number(1, b.add(row, loop.index)), 8)
                weight = b.bitcast(both, SHORTS)
                base = b.add(begin, b.mul(loop.index, apart))
                for g, each in enumerate(sums):
                    one = v.product(v.load(SHORTS, 0, v.past(base, 16 * g)), weight)
                    b.store(b.add(b.load(each), one), each)
            found = [b.load(each) for each in sums]
            if fours:
                halves = [[*range(k, k + 4), *range(k + 8, k + 12)] for k in (0, 4)]
                found = [
                    b.add(*(v.shuffle(*two, half) for half in halves))
                    for two in zip(found[::2], found[1::2], strict=True)
                ]
            scale, more = (v.spread(v.number(n, m), 8) for n in (3, 4))
            for g, whole in enumerate(found):
                to = b.add(b.mul(m, size), v.past(at, 8 * g))
                each = b.fmul(b.fadd(b.sitofp(whole, FLOATS), more), scale)
                v.store(b.fadd(v.load(FLOATS, 2, to), each), 2, to)
            return context.get_dummy_value()

        n = types.int64
        return types.void(x, w, out, factor, more, n, n, n, n), generate

    return mixes


_mix_pairs, _mix_fours = _mixes(False), _mixes(True)


def field_table(planes: np.ndarray, size: int) -> np.ndarray:
    """Where eight codes at a time lie in the planes of a page, all numbers in words of 8 bytes.

    Parameters
    ----------
    planes : (n, 3) int64
        Offset, width below 8, and shift; ``size`` is a multiple of 64.

    Returns
    -------
    (n, 3 + size / 4) int64
        Words of a row, mask, shift up; then word and shift down of every eight codes.
    """
    out = []
    for offset, width, shift in planes.tolist():
        row = size * width // 64
        group = np.arange(size // 8)
        mask = 0x0101010101010101 * ((1 << width) - 1)
        out.append([row, mask, shift, *(offset // 8 + group % row), *(group // row * width)])
    return np.array(out, dtype=np.uint64).view(np.int64)


@lent
def look_up(page, fields, table, t0, tokens, size, paired, out):
    """Numbers of the codes of a tile, in the places of :func:`order`.

    Parameters
    ----------
    page : (nbytes / 8,) uint64
    fields : (planes, 3 + size / 4) int64
        From :func:`field_table`; one plane or two.
    table : (64,) uint8
        Low bytes of sixteen int16, twice, and their high bytes, twice.
    paired : bool
        Numbers of two neighbouring tokens in turn.
    out : (at least tokens * size,) int16
        Written.
    """
    if AVX2:
        flat = fields.reshape(fields.size)
        for at in range(0, size // 8, 4):
            if len(fields) == 1 and paired:
                _one_plane_paired(page, flat, table, out, at, t0, tokens, size)
            elif len(fields) == 1:
                _one_plane(page, flat, table, out, at, t0, tokens, size)
            elif paired:
                _two_planes_paired(page, flat, table, out, at, t0, tokens, size)
            else:
                _two_planes(page, flat, table, out, at, t0, tokens, size)
        return
    groups = size // 8
    for t in range(tokens):
        for g in range(groups):
            codes = np.uint64(0)
            for k in range(len(fields)):
                word = page[fields[k, 3 + g] + (t0 + t) * fields[k, 0]]
                part = (word >> np.uint64(fields[k, 3 + groups + g])) & np.uint64(fields[k, 1])
                codes |= part << np.uint64(fields[k, 2])
            for i in range(8):
                number = _entry(table, (codes >> np.uint64(8 * i)) & np.uint64(255))
                at = place(t, 8 * g + i, size)
                if paired:
                    at = (t - t % 2) * size + 2 * (8 * g + i) + t % 2
                out[at] = number


@lent
def _entry(table, code):
    return np.int16(np.uint16(table[code]) | np.uint16(np.uint16(table[32 + code]) << np.uint16(8)))


@lent
def dots(x, q, more, unit, gains, size, t0, tokens, out):
    """Products of a tile with rows of ``q``: sums of whole numbers, exact, times their factors.

    Parameters
    ----------
    x : int16, from :func:`look_up`; ``tokens`` is a multiple of 8
    q : int16, rows of ``size`` one after the other
    more : float32
        What is added to the sums of every row.
    unit, gains : float32
        Factors of every row, and of every token of the page.
    out : (rows, P) float32
        Columns ``t0 .. t0 + tokens`` are written.
    """
    rows, width = out.shape
    if AVX2:
        for t in range(0, tokens, GROUP):
            for m in range(rows):
                _dots(x, q, unit, gains, out, more, t, m, size, t0 + t, m * width + t0 + t)
    else:
        for t in range(tokens):
            for m in range(rows):
                total = np.int32(0)
                for i in range(size):
                    total += np.int32(x[place(t, i, size)]) * np.int32(q[m * size + i])
                out[m, t0 + t] = (np.float32(total) + more[m]) * (unit[m] * gains[t0 + t])


@lent
def mix(x, weights, factor, more, size, rows, tokens, out):
    """Add ``factor`` times the weighted sums of paired rows to rows of ``out``.

    Parameters
    ----------
    x : int16, paired, from :func:`look_up`
    weights : (rows * tokens,) int16
    factor, more : (rows,) float32
        ``more`` is added to the sums before.
    out : (rows * size,) float32
        Added to.
    """
    pairs = tokens // 2
    if AVX2:
        both = weights.view(np.int32)
        for at in range(0, size, 64):
            for m in range(rows):
                _mix_pairs(x, both, out, factor, more, at, m, size, pairs)
    else:
        for m in range(rows):
            for i in range(size):
                total = np.int32(0)
                for t in range(tokens):
                    at = (t - t % 2) * size + 2 * i + t % 2
                    total += np.int32(weights[m * tokens + t]) * np.int32(x[at])
                out[m * size + i] += (np.float32(total) + more[m]) * factor[m]


@lent
def in_fours(t, i, size):
    """Where number ``i`` of token ``t`` of a tile stands in fours of tokens.

    Fours of numbers, and of each, in turn, those of the first and second token, and of the third
    and fourth.
    """
    return t // 4 * 4 * size + i // 4 * 16 + t % 4 // 2 * 8 + i % 4 * 2 + t % 2


@lent
def mix_fours(x, weights, factor, more, size, rows, tokens, out):
    """As :func:`mix`, of numbers as :func:`in_fours` places them; ``tokens`` is a multiple of 4."""
    if AVX2:
        both = weights.view(np.int32)
        for at in range(0, size, 32):
            for m in range(rows):
                _mix_fours(x, both, out, factor, more, at, m, size, tokens // 2)
    else:
        for m in range(rows):
            for i in range(size):
                total = np.int32(0)
                for t in range(tokens):
                    number = np.int32(x[in_fours(t, i, size)])
                    total += np.int32(weights[m * tokens + t]) * number
                out[m * size + i] += (np.float32(total) + more[m]) * factor[m]
