"""Vector loops over a row of eights: sizes of queries, logits, exponentials, whole numbers.

A compiler makes vectors of such loops only where sums and maxima may be reordered, and starts
them anew for every row of 32, which takes longer than the row itself.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kakeya_fast.numba_cpu.vectors import FLOATS, I32, I64, INTS, Vectors

LOG2E = 1.4426950408889634
LEAST = -87.0  # below, an exponential is taken as zero
# 2**f on [-1/2, 1/2], by Taylor, highest first: the first term left out is below 2**-27.
POWERS = (
    *(0.000154035304, 0.001333355814, 0.009618129107, 0.05550410866),
    *(0.2402265069591007, 0.6931471805599453, 1.0),
)


class _Row(Vectors):
    """Vectors of eight floats along a row."""

    def each(self, count: Any, start: Any, step: Any) -> Any:
        """``step(i, so far)`` for every eighth ``i`` below ``count``; the last of what it gave."""
        kept = cgutils.alloca_once_value(self.builder, start)
        eight = self.constant(8)
        with cgutils.for_range_slice(self.builder, self.constant(0), count, eight) as (i, _):
            self.builder.store(step(i, self.builder.load(kept)), kept)
        return self.builder.load(kept)

    def floats(self, value: float) -> Any:
        """Eight of one number."""
        return ir.Constant(FLOATS, [float(value)] * 8)

    def ints(self, value: int) -> Any:
        """Eight of one whole number."""
        return ir.Constant(INTS, [value] * 8)

    def larger(self, a: Any, b: Any) -> Any:
        """The larger ones, element by element."""
        return self.builder.select(self.builder.fcmp_ordered(">", a, b), a, b)

    def folded(self, vector: Any, how: Any) -> Any:
        """One number of eight."""
        for half in (4, 2, 1):
            other = self.shuffle(vector, vector, [(i + half) % 8 for i in range(8)])
            vector = how(vector, other)
        return self.builder.extract_element(vector, ir.Constant(I32, 0))

    def power(self, x: Any) -> Any:
        """``exp(x)`` of numbers not above 0."""
        b = self.builder
        far = b.fcmp_ordered(">", x, self.floats(LEAST))
        y = b.fmul(b.select(far, x, self.floats(LEAST)), self.floats(LOG2E))
        whole = self.call("llvm.rint.v8f32", FLOATS, y)
        f, value = b.fsub(y, whole), self.floats(POWERS[0])
        for term in POWERS[1:]:
            value = self.call("llvm.fmuladd.v8f32", FLOATS, value, f, self.floats(term))
        exponent = b.add(b.fptosi(whole, INTS), self.ints(127))
        scale = b.bitcast(b.shl(exponent, self.ints(23)), FLOATS)
        return b.select(far, b.fmul(value, scale), self.floats(0))


def _copies(kind: Any) -> Any:
    @intrinsic
    def copies(typing: Any, x: Any, at: Any, count: Any, out: Any) -> Any:
        """Numbers ``at .. at + count`` of ``x``, as they lie in memory, to the start of ``out``."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = Vectors(context, builder, signature, args)
            step = v.constant(kind.count)
            with cgutils.for_range_slice(builder, v.constant(0), args[2], step) as (i, _):
                v.store(v.load(kind, 0, builder.add(args[1], i)), 3, i)
            return context.get_dummy_value()

        return types.void(x, types.int64, types.int64, out), generate

    return copies


# Counts are multiples of eight floats, and of two words.
copy_floats, copy_words = _copies(FLOATS), _copies(ir.VectorType(I64, 2))


def _sizes(add: Any) -> Any:
    @intrinsic
    def sizes(typing: Any, x: Any, count: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v = _Row(context, builder, signature, args)

            def both(a: Any, b: Any) -> Any:
                return builder.fadd(a, b) if add else v.larger(a, b)

            def step(i: Any, so_far: Any) -> Any:
                return both(v.call("llvm.fabs.v8f32", FLOATS, v.load(FLOATS, 0, i)), so_far)

            return v.folded(v.each(args[1], v.floats(0), step), both)

        return types.float32(x, types.int64), generate

    return sizes


# The largest size, and the sum of sizes, of the first ``count`` numbers.
farthest, distance = _sizes(False), _sizes(True)


@intrinsic
def scaled(typing: Any, x: Any, at: Any, count: Any, scaling: Any, bias: Any) -> Any:
    """Numbers ``at .. at + count`` of ``x`` become ``scaling * (x + bias)``; the largest."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = _Row(context, builder, signature, args)
        _, at, count, scaling, bias = args
        factor, more = v.spread(scaling, 8), v.spread(bias, 8)

        def step(i: Any, top: Any) -> Any:
            place = builder.add(at, i)
            logit = builder.fmul(factor, builder.fadd(v.load(FLOATS, 0, place), more))
            v.store(logit, 0, place)
            return v.larger(logit, top)

        return v.folded(v.each(count, v.floats(float("-inf")), step), v.larger)

    n, f = types.int64, types.float32
    return f(x, n, n, f, f), generate


@intrinsic
def exponentials(typing: Any, x: Any, at: Any, count: Any, top: Any) -> Any:
    """Numbers ``at .. at + count`` of ``x`` become ``exp(x - top)``; their sum.

    ``top`` is finite and not below any.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = _Row(context, builder, signature, args)
        _, at, count, top = args
        pivot = v.spread(top, 8)

        def step(i: Any, total: Any) -> Any:
            place = builder.add(at, i)
            weight = v.power(builder.fsub(v.load(FLOATS, 0, place), pivot))
            v.store(weight, 0, place)
            return builder.fadd(total, weight)

        return v.folded(v.each(count, v.floats(0), step), builder.fadd)

    n, f = types.int64, types.float32
    return f(x, n, n, f), generate


@intrinsic
def largest(typing: Any, x: Any, at: Any, count: Any, gains: Any, first: Any) -> Any:
    """Numbers ``at .. at + count`` of ``x`` are multiplied by ``gains`` from ``first`` on.

    The largest of them and 0.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = _Row(context, builder, signature, args)
        _, at, count, _, first = args

        def step(i: Any, top: Any) -> Any:
            place = builder.add(at, i)
            gain = v.load(FLOATS, 3, builder.add(first, i))
            product = builder.fmul(v.load(FLOATS, 0, place), gain)
            v.store(product, 0, place)
            return v.larger(product, top)

        return v.folded(v.each(count, v.floats(0), step), v.larger)

    n = types.int64
    return types.float32(x, n, n, gains, n), generate


@intrinsic
def wholes(typing: Any, x: Any, at: Any, count: Any, scale: Any, out: Any, to: Any) -> Any:
    """Numbers ``at .. at + count`` of ``x``, times ``scale``, rounded, as int16; their sum."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = _Row(context, builder, signature, args)
        _, at, count, scale, _, to = args
        factor, shorts = v.spread(scale, 8), ir.VectorType(ir.IntType(16), 8)

        def step(i: Any, total: Any) -> Any:
            number = builder.fmul(v.load(FLOATS, 0, builder.add(at, i)), factor)
            rounded = v.call("llvm.rint.v8f32", FLOATS, number)
            whole = builder.trunc(builder.fptosi(rounded, INTS), shorts)
            v.store(whole, 4, builder.add(to, i))
            return builder.fadd(total, rounded)

        return v.folded(v.each(count, v.floats(0), step), builder.fadd)

    n = types.int64
    return types.float32(x, n, n, types.float32, out, n), generate
