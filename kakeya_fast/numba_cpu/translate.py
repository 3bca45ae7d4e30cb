"""Bytes become whole numbers: a table of sixteen at a time, four tokens side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kakeya_fast.numba_cpu.jit import lent
from kakeya_fast.numba_cpu.simd import AVX2, place
from kakeya_fast.numba_cpu.vectors import BYTES, I64, SHORTS, Vectors, interleaved

ROW = 96  # bytes of a table of sixteen: what its bytes differ in, low bytes, high bytes


def tables(numbers: np.ndarray) -> np.ndarray:
    """Tables (n / 16, 96) uint8 of int16 numbers, a multiple of sixteen and at most 128 of them."""
    out = np.zeros((len(numbers) // 16, ROW), np.uint8)
    for k, row in enumerate(out):
        low, high = numbers[16 * k : 16 * k + 16].astype(np.int16).view(np.uint8).reshape(16, 2).T
        row[:] = np.concatenate([np.full(32, 16 * k, np.uint8), low, low, high, high])
    return out


def _translates(paired: bool) -> Any:
    @intrinsic
    def translate(
        typing: Any, x: Any, tables: Any, out: Any,
        at: Any, to: Any, first: Any, stop: Any, tokens: Any, size: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = Vectors(context, builder, signature, args)
            at, to, first, stop, tokens, size = args[3:]
            none, beyond = ir.Constant(BYTES, None), ir.Constant(BYTES, [0x70] * 32)
            with cgutils.for_range_slice(builder, v.constant(0), tokens, v.constant(4)) as (t, _):
                codes = builder.bitcast(v.load(_WORDS, 0, builder.add(at, t)), BYTES)
                sums = [cgutils.alloca_once(builder, BYTES) for _ in range(2)]
                for each in sums:
                    builder.store(none, each)
                with cgutils.for_range_slice(builder, first, stop, v.constant(1)) as (k, _):
                    row = builder.mul(k, v.constant(ROW))
                    own, *both = (v.load(BYTES, 1, v.past(row, 32 * i)) for i in range(3))
                    # Bytes of another sixteen reach 128 and find nothing.
                    near = v.call("llvm.uadd.sat.v32i8", BYTES, builder.xor(codes, own), beyond)
                    for table, each in zip(both, sums, strict=True):
                        more = v.call("llvm.x86.avx2.pshuf.b", BYTES, table, near)
                        builder.store(builder.or_(builder.load(each), more), each)
                low, high = (builder.load(each) for each in sums)
                # Tokens 0 and 2, tokens 1 and 3.
                even, odd = (
                    builder.bitcast(v.shuffle(low, high, interleaved(32, 16, side)), SHORTS)
                    for side in (0, 1)
                )
                if paired:
                    a, b = (v.shuffle(even, odd, interleaved(16, 8, side)) for side in (0, 1))
                    for k in (0, 1):
                        half = [*range(8 * k, 8 * k + 8), *range(16 + 8 * k, 24 + 8 * k)]
                        pair = builder.mul(v.past(t, 2 * k), size)
                        v.store(v.shuffle(a, b, half), 2, builder.add(pair, to))
                else:
                    # Of simd.place: eight tokens, sixteen numbers each in turn.
                    of = builder.and_(t, v.constant(4))
                    begin = builder.mul(builder.sub(t, of), size)
                    begin = builder.add(begin, builder.add(to, builder.mul(of, v.constant(16))))
                    for k, four in enumerate((even, odd, even, odd)):
                        half = v.shuffle(four, four, range(k // 2 * 8, k // 2 * 8 + 8))
                        v.store(half, 2, v.past(begin, 16 * k))
            return context.get_dummy_value()

        n = types.int64
        return types.void(x, tables, out, n, n, n, n, n, n), generate

    return translate


@intrinsic
def first_highest(typing: Any, octets: Any, at: Any) -> Any:
    """Eight bytes from ``at`` on as a number, the first one highest, on a little-endian host."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, builder, signature, args)
        return v.call("llvm.bswap.i64", I64, v.load(I64, 0, args[1]))

    return types.uint64(octets, types.int64), generate


_WORDS = ir.VectorType(I64, 4)
_apart, _paired = _translates(False), _translates(True)


@lent
def translate(x, tables, out, at, g, first, stop, tokens, size, paired):
    """Numbers of eight bytes of each token of a tile, the ``g``-th eight of a row.

    Parameters
    ----------
    x : uint64
        Words of the tokens from ``at`` on, a byte a number; ``tokens`` is a multiple of 4.
    tables : (n, 96) uint8
        From :func:`tables`; bytes below 16 are looked up in row ``first``, and so on to ``stop``.
    out : int16
        Written: in the places of :func:`kakeya_fast.numba_cpu.simd.place`, or in pairs of tokens.
    """
    if AVX2 and paired:
        _paired(x, tables, out, at, 16 * g, first, stop, tokens, size)
    elif AVX2:
        to = 8 * g % 16 + (8 * g - 8 * g % 16) * 8
        _apart(x, tables, out, at, to, first, stop, tokens, size)
    else:
        for t in range(tokens):
            for i in range(8):
                byte = x[at + t] >> np.uint64(8 * i) & np.uint64(255)
                row, column = first + np.int64(byte >> np.uint64(4)), byte & np.uint64(15)
                low, high = tables[row, 32 + column], tables[row, 64 + column]
                to = place(t, 8 * g + i, size)
                if paired:
                    to = (t - t % 2) * size + 16 * g + 2 * i + t % 2
                out[to] = np.int16(np.uint16(low) | np.uint16(np.uint16(high) << np.uint16(8)))
