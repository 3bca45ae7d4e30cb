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

from kakeya_fast.numba_cpu.jit import serial
from kakeya_fast.numba_cpu.vectors import FLOATS, INTS, SHORTS, Vectors, interleaved

AVX2 = bool(binding.get_host_cpu_features().get("avx2", False))

# Where the numbers of a group of 32 stand after unpacking inside halves of 16 bytes.
_HALVES = np.arange(32).reshape(2, 2, 8).transpose(1, 0, 2).ravel()
_QUARTERS = np.arange(32).reshape(2, 4, 4).transpose(1, 0, 2).ravel()


def order(size: int, paired: bool) -> np.ndarray:
    """Place of every number of a row of ``size`` as :func:`look_up` writes them.

    ``out[i] = table[codes[order[i]]]``.
    """
    group = (_QUARTERS if paired else _HALVES) if AVX2 else np.arange(32)
    return (np.arange(0, size, 32)[:, None] + group).ravel()


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
            begin = builder.shl(at, v.constant(4 if paired else 3))
            step = v.constant(2 if paired else 1)
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
                to = builder.add(begin, builder.mul(t, size))
                for i, vector in enumerate(found):
                    v.store(vector, 3, v.past(to, 16 * i))
            return context.get_dummy_value()

        n = types.int64
        return types.void(page, fields, table, out, n, n, n, n), generate

    return look_up


_one_plane, _two_planes = _look_ups(1, False), _look_ups(2, False)
_one_plane_paired, _two_planes_paired = _look_ups(1, True), _look_ups(2, True)


def _dots(rows: int) -> Any:
    @intrinsic
    def dots(typing: Any, x: Any, q: Any, out: Any, t: Any, m: Any, size: Any, tokens: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = Vectors(context, builder, signature, args)
            t, m, size, tokens = args[3:]
            zero = ir.Constant(INTS, None)
            sums = [
                [cgutils.alloca_once_value(builder, zero) for _ in range(4)] for _ in range(rows)
            ]
            base = builder.mul(t, size)
            row = builder.mul(m, size)
            step = ir.Constant(size.type, 16)
            with cgutils.for_range_slice(builder, ir.Constant(size.type, 0), size, step) as (i, _):
                for r in range(rows):
                    at = builder.add(
                        builder.add(row, i), builder.mul(size, ir.Constant(size.type, r))
                    )
                    query = v.load(SHORTS, 1, at)
                    for k in range(4):
                        at = builder.add(
                            builder.add(base, i), builder.mul(size, ir.Constant(size.type, k))
                        )
                        more = v.product(v.load(SHORTS, 0, at), query)
                        builder.store(builder.add(builder.load(sums[r][k]), more), sums[r][k])
            for r in range(rows):
                a, b, c, d = (builder.load(s) for s in sums[r])
                both = v.neighbours(v.neighbours(a, b), v.neighbours(c, d))
                four = builder.add(
                    v.shuffle(both, both, range(4)), v.shuffle(both, both, range(4, 8))
                )
                at = builder.add(builder.mul(builder.add(m, ir.Constant(m.type, r)), tokens), t)
                v.store(four, 2, at)
            return context.get_dummy_value()

        n = types.int64
        return types.void(x, q, out, n, n, n, n), generate

    return dots


_dots_one, _dots_two = _dots(1), _dots(2)


def _mixes(groups: int) -> Any:
    @intrinsic
    def mixes(
        typing: Any, x: Any, w: Any, out: Any, factor: Any, at: Any, m: Any, size: Any, pairs: Any
    ):
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = Vectors(context, builder, signature, args)
            at, m, size, pairs = args[4:]
            zero = ir.Constant(INTS, None)
            sums = [cgutils.alloca_once_value(builder, zero) for _ in range(groups)]
            double = builder.shl(size, ir.Constant(size.type, 1))
            row = builder.mul(m, pairs)
            begin = builder.shl(at, ir.Constant(at.type, 1))
            with cgutils.for_range(builder, pairs) as loop:
                two = v.number(1, builder.add(row, loop.index))
                weight = builder.bitcast(v.spread(two, 8), SHORTS)
                base = builder.add(begin, builder.mul(loop.index, double))
                for g in range(groups):
                    value = v.load(SHORTS, 0, v.past(base, 16 * g))
                    more = v.product(value, weight)
                    builder.store(builder.add(builder.load(sums[g]), more), sums[g])
            scale = v.spread(v.number(3, m), 8)
            for g in range(groups):
                to = builder.add(builder.mul(m, size), v.past(at, 8 * g))
                more = builder.fmul(builder.sitofp(builder.load(sums[g]), FLOATS), scale)
                v.store(builder.fadd(v.load(FLOATS, 2, to), more), 2, to)
            return context.get_dummy_value()

        n = types.int64
        return types.void(x, w, out, factor, n, n, n, n), generate

    return mixes


_mix_eight = _mixes(8)


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


@serial
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
                at = t * size + 8 * g + i
                if paired:
                    at = (t - t % 2) * size + 2 * (8 * g + i) + t % 2
                out[at] = number


@serial
def _entry(table, code):
    return np.int16(np.uint16(table[code]) | np.uint16(np.uint16(table[32 + code]) << np.uint16(8)))


@serial
def dots(x, q, size, rows, tokens, out):
    """Products of ``tokens`` rows of ``x`` with ``rows`` rows of ``q``, exact.

    Parameters
    ----------
    x, q : int16, rows of ``size`` one after the other; ``tokens`` is a multiple of 4
    out : (rows * tokens,) int32
        Written.
    """
    if AVX2:
        for t in range(0, tokens, 4):
            for m in range(0, rows - 1, 2):
                _dots_two(x, q, out, t, m, size, tokens)
            if rows % 2:
                _dots_one(x, q, out, t, rows - 1, size, tokens)
    else:
        for t in range(tokens):
            for m in range(rows):
                total = np.int32(0)
                for i in range(size):
                    total += np.int32(x[t * size + i]) * np.int32(q[m * size + i])
                out[m * tokens + t] = total


@serial
def mix(x, weights, factor, size, rows, tokens, out):
    """Add ``factor`` times the weighted sums of paired rows to rows of ``out``.

    Parameters
    ----------
    x : int16, paired, from :func:`look_up`
    weights : (rows * tokens,) int16
    factor : (rows,) float32
    out : (rows * size,) float32
        Added to.
    """
    pairs = tokens // 2
    if AVX2:
        both = weights.view(np.int32)
        for at in range(0, size, 64):
            for m in range(rows):
                _mix_eight(x, both, out, factor, at, m, size, pairs)
    else:
        sums = np.empty(size, np.int32)
        for m in range(rows):
            sums[:] = 0
            for t in range(pairs):
                a, b = (
                    np.int32(weights[m * tokens + 2 * t]),
                    np.int32(weights[m * tokens + 2 * t + 1]),
                )
                pair = x[2 * t * size : 2 * (t + 1) * size]
                for i in range(size):
                    sums[i] += a * np.int32(pair[2 * i]) + b * np.int32(pair[2 * i + 1])
            for i in range(size):
                out[m * size + i] += np.float32(sums[i]) * factor[m]
