"""Vector loops from codes to whole numbers: eight codes of four tokens side by side.

Tokens 0 and 1 stand in one half of a vector, 2 and 3 in the other, a byte of either in turn. A code
that is walked says its place in a table with its own bits above the lowest, and with its label.
Labels are linear: a table of sixteen tells what four low bits add to them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kakeya_fast.numba_cpu.vectors import (
    BYTES,
    HALF,
    I8,
    SHORTS,
    WORDS,
    Vectors,
    interleaved,
)

ROW = 64  # bytes of a table of sixteen: low bytes twice, high bytes twice
WALKED, WIDEST = 3, 7  # most bits of a code that is walked, and of any
EIGHT = ir.VectorType(I8, 8)
# By bits of a code: tables of sixteen.
_TABLES = (0, 1, 2, 4, 1, 2, 4, 8)
# Bytes of two tokens in turn, one after the other; and eight of either, as bytes in turn.
_APART = [half + i % 8 * 2 + i // 8 for half in (0, 16) for i in range(16)]
_IN_TURN = [i // 2 + i % 2 * 8 for i in range(16)]


class _Row(NamedTuple):
    """A plane of a page, as of ``fields``, and where words of its rows are gathered."""

    stride: Any
    begin: Any
    zeroth: Any
    to: Any
    marks: Any
    groups: Any


class _Codes(Vectors):
    """Arguments begin with x, ways, tables, state, out."""

    def of_bits(self, n: int, row: Any) -> Any:
        """What reads eight codes of ``n`` bits of each token from a byte of its row on.

        Walked codes stand three bits up, with others below them.

        Rule: query.row.bits
        """
        b = self.builder
        two, lift = (self.load(BYTES, 1, self.constant(ROW * n + k)) for k in (0, 32))
        lift, down = b.bitcast(lift, SHORTS), ir.Constant(SHORTS, [16 - n - 3 * (n <= WALKED)] * 16)
        base = b.bitcast(self.pointer(0, self.constant(0)), I8.as_pointer())

        def sixteen(at: Any) -> Any:
            address = b.bitcast(b.gep(base, [at]), HALF.as_pointer())
            return b.load(address, align=1)

        def pair(at: Any) -> Any:
            halves = sixteen(at), sixteen(b.add(at, b.add(row, row)))
            both = self.call("llvm.x86.avx2.pshuf.b", BYTES, self.shuffle(*halves, range(32)), two)
            return b.lshr(b.mul(b.bitcast(both, SHORTS), lift), down)

        def read(at: Any) -> Any:
            second = b.shl(pair(b.add(at, row)), ir.Constant(SHORTS, [8] * 16))
            return b.bitcast(b.or_(pair(at), second), BYTES)

        return read

    def plane(self, k: int, at: Any, size: Any) -> _Row:
        """Plane ``k`` of ``fields``, from token ``at`` on."""
        b = self.builder
        groups = b.lshr(size, self.constant(3))
        head = b.mul(self.past(b.shl(groups, self.constant(1)), 3), self.constant(k))
        marks, before = self.past(head, 3), self.constant(0)
        stride, zeroth = self.number(5, head), self.number(5, marks)
        if k:
            # Only one plane can stand before.
            before = self.number(5, self.constant(0))
        return _Row(stride, b.add(zeroth, b.mul(at, stride)), zeroth, before, marks, groups)

    def gather(self, row: _Row, t: Any, to: Any) -> None:
        """Words of a row of four tokens."""
        b = self.builder
        with self.range(row.stride) as (j, _):
            word = b.add(b.add(row.begin, b.mul(t, row.stride)), j)
            four = [
                self.load(EIGHT, 0, b.add(word, b.mul(row.stride, self.constant(i))))
                for i in range(4)
            ]
            halves = [self.shuffle(*four[i : i + 2], _IN_TURN) for i in (0, 2)]
            place = b.add(to, b.mul(b.add(row.to, j), self.constant(4)))
            self.store(self.shuffle(*halves, range(32)), 3, place)

    def field(self, row: _Row, width: int, g: Any, to: Any) -> Any:
        """Fields of eight codes from words that were gathered, at the top of their bytes."""
        b = self.builder
        mark = b.add(row.marks, g)
        word = b.add(row.to, b.sub(self.number(5, mark), row.zeroth))
        up = b.sub(self.constant(8 - width), self.number(5, b.add(mark, row.groups)))
        words = self.load(WORDS, 3, b.add(to, b.mul(word, self.constant(4))))
        return b.bitcast(b.shl(words, self.spread(up, 4)), BYTES)

    def labels(self, one: Any, last: list[Any]) -> tuple[Any, tuple[Any, Any, Any]]:
        """Labels of eight codes, and what the next eight must know.

        Rule: trellis.window.shift, trellis.label.linear

        Parameters
        ----------
        one : low bits of the codes, three up
        last : what the eight codes before gave
        """
        b = self.builder
        newest, before = (self.load(BYTES, 1, self.constant(k)) for k in (0, 32))
        two = b.or_(one, self.down(self.behind(last[0], one, 1), 1))
        four = b.or_(two, self.down(self.behind(last[1], two, 2), 2))
        own, later = (self.call("llvm.x86.avx2.pshuf.b", BYTES, x, four) for x in (newest, before))
        return b.xor(own, self.behind(last[2], later, 4)), (one, two, later)

    def behind(self, last: Any, x: Any, count: int) -> Any:
        """Bytes of eight codes as they stand ``count`` codes later, after those of the last."""
        half = [*range(16 - 2 * count, 16), *range(32, 48 - 2 * count)]
        return self.shuffle(last, x, [i + k for k in (0, 16) for i in half])

    def down(self, x: Any, count: int) -> Any:
        """Bits of bytes some places lower; others come in above."""
        b, shift = self.builder, ir.Constant(SHORTS, [count] * 16)
        return b.bitcast(b.lshr(b.bitcast(x, SHORTS), shift), BYTES)

    def of_walk(self, bits: int, fields: list[Any], last: list[Any], tables: Any) -> Any:
        """Low and high bytes of numbers of walked codes, and what the next eight must know.

        A table read backwards is its own negative, so half of it is enough.

        Rule: trellis.table.values
        """
        b, low = self.builder, ir.Constant(BYTES, [8] * 32)
        one = b.and_(self.down(fields[0], 5 - min(bits, 2)), low)
        label, following = self.labels(one, last)
        if bits > 1:
            negative = b.icmp_signed("<", fields[-1], ir.Constant(BYTES, None))
            negative = b.sext(negative, BYTES)
            label = b.and_(b.xor(label, negative), ir.Constant(BYTES, [15] * 32))
        found = []
        for some in tables:
            some = [self.call("llvm.x86.avx2.pshuf.b", BYTES, x, label) for x in some]
            if bits > 2:
                # The sign of each byte chooses.
                which = b.xor(fields[0], negative)
                some = [self.call("llvm.x86.avx2.pblendvb", BYTES, *some, which)]
            found.append(b.xor(some[0], negative) if bits > 1 else some[0])
        return found, following

    def tables(self, first: Any, count: int) -> list[list[Any]]:
        """Low and high bytes of ``count`` tables of sixteen."""
        rows = [self.builder.mul(self.past(first, k), self.constant(ROW)) for k in range(count)]
        return [[self.load(BYTES, 2, self.past(row, k)) for row in rows] for k in (0, 32)]

    def looked_up_in(self, tables: list[list[Any]], places: Any) -> list[Any]:
        """Low and high bytes of the numbers in these places."""
        b, found, bits = self.builder, [], self.builder.bitcast(places, SHORTS)
        for some in tables:
            some = [self.call("llvm.x86.avx2.pshuf.b", BYTES, x, places) for x in some]
            up = 3
            while len(some) > 1:
                which = b.bitcast(b.shl(bits, ir.Constant(SHORTS, [up] * 16)), BYTES)
                some = [
                    self.call("llvm.x86.avx2.pblendvb", BYTES, x, y, which)
                    for x, y in zip(some[::2], some[1::2], strict=True)
                ]
                up -= 1
            found += some
        return found

    def write(self, low: Any, high: Any, t: Any, g: Any, size: Any, paired: bool) -> None:
        """Store the numbers of four tokens; where they are not paired, one token after another."""
        b = self.builder
        # Numbers 0 to 3, numbers 4 to 7; or tokens 0 and 2, tokens 1 and 3.
        two = [
            b.bitcast(self.shuffle(low, high, interleaved(32, 16, side)), SHORTS) for side in (0, 1)
        ]
        if paired:
            begin = b.add(b.mul(t, size), b.mul(g, self.constant(32)))
            for k, vector in enumerate(two):
                self.store(vector, 4, self.past(begin, 16 * k))
            return
        # Of simd.place: eight tokens, sixteen numbers each in turn.
        eight, of = b.mul(g, self.constant(8)), b.and_(t, self.constant(4))
        inside = b.and_(eight, self.constant(15))
        to = b.add(inside, b.mul(b.sub(eight, inside), self.constant(8)))
        begin = b.add(b.mul(b.sub(t, of), size), b.add(to, b.mul(of, self.constant(16))))
        for k, four in enumerate(two + two):
            half = self.shuffle(four, four, range(k // 2 * 8, k // 2 * 8 + 8))
            self.store(half, 4, self.past(begin, 16 * k))

    def range(self, stop: Any, step: int = 1) -> Any:
        """A loop from 0 on."""
        return cgutils.for_range_slice(self.builder, self.constant(0), stop, self.constant(step))

    def case(self, value: Any, number: int) -> Any:
        """What is done if a value is that number."""
        return self.builder.if_then(self.builder.icmp_signed("==", value, self.constant(number)))


@intrinsic
def of_bits(
    typing: Any, x: Any, ways: Any, tables: Any, state: Any, out: Any,
    g: Any, at: Any, row: Any, n: Any, first: Any, tokens: Any, size: Any,
) -> Any:  # fmt: skip
    """Eight codes of every token, from rows of bits; states of all tokens stand by."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v, b = _Codes(context, builder, signature, args), builder
        g, at, row, n, first, tokens, size = args[5:]
        for bits in range(1, WIDEST + 1):
            with v.case(n, bits):
                read, known = v.of_bits(bits, row), v.tables(first, _TABLES[bits])
                with v.range(tokens, 4) as (t, _):
                    places = read(b.add(at, b.mul(t, row)))
                    if bits <= WALKED:
                        own = b.mul(t, v.constant(3))
                        own = [v.past(own, 4 * k) for k in range(3)]
                        last = [b.bitcast(v.load(WORDS, 3, k), BYTES) for k in own]
                        low = b.and_(places, ir.Constant(BYTES, [8] * 32))
                        label, following = v.labels(low, last)
                        above = ir.Constant(BYTES, [(1 << bits) - 2 << 3] * 32)
                        places = b.or_(b.and_(places, above), label)
                        for k, vector in zip(own, following, strict=True):
                            v.store(b.bitcast(vector, WORDS), 3, k)
                    places = v.shuffle(places, places, _APART)
                    v.write(*v.looked_up_in(known, places), t, g, size, False)
        return context.get_dummy_value()

    return types.void(x, ways, tables, state, out, *[types.int64] * 7), generate


def _of_planes(paired: bool) -> Any:
    @intrinsic
    def translate(
        typing: Any, x: Any, ways: Any, tables: Any, state: Any, out: Any, fields: Any,
        at: Any, n: Any, first: Any, tokens: Any, size: Any,
    ) -> Any:  # fmt: skip
        """All codes of every token, from the planes of a page; words of all tokens stand by."""

        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            v, b = _Codes(context, builder, signature, args), builder
            at, n, first, tokens, size = args[6:]
            last = [cgutils.alloca_once(b, BYTES) for _ in range(3)]
            for bits in range(1, WALKED + 1):
                with v.case(n, bits):
                    widths = (min(bits, 2), 1)[: 1 + bits // 3]
                    rows = [v.plane(k, at, size) for k in range(len(widths))]
                    apart = b.add(rows[-1].to, rows[-1].stride)
                    # All of them first: a vector that was just written by halves is slow to read.
                    with v.range(tokens, 4) as (t, _):
                        for row in rows:
                            v.gather(row, t, b.mul(t, apart))
                    known = v.tables(first, max(1, _TABLES[bits] // 2))
                    with v.range(tokens, 4) as (t, _):
                        for each in last:
                            b.store(ir.Constant(BYTES, None), each)
                        with v.range(rows[0].groups) as (g, _):
                            parts = [
                                v.field(*row, g, b.mul(t, apart))
                                for row in zip(rows, widths, strict=True)
                            ]
                            before = [b.load(each) for each in last]
                            found, following = v.of_walk(bits, parts, before, known)
                            for each, vector in zip(last, following, strict=True):
                                b.store(vector, each)
                            if not paired:
                                found = [v.shuffle(x, x, _APART) for x in found]
                            v.write(*found, t, g, size, paired)
            return context.get_dummy_value()

        return types.void(x, ways, tables, state, out, fields, *[types.int64] * 5), generate

    return translate


of_planes, of_planes_paired = _of_planes(False), _of_planes(True)
