"""Vector instructions in LLVM's own terms, for the few loops that no compiler finds."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils

I8, I16, I32, I64 = (ir.IntType(n) for n in (8, 16, 32, 64))
WORDS = ir.VectorType(I64, 4)
HALF, BYTES, SHORTS = ir.VectorType(I8, 16), ir.VectorType(I8, 32), ir.VectorType(I16, 16)
INTS, FLOATS = ir.VectorType(I32, 8), ir.VectorType(ir.FloatType(), 8)


class Vectors:
    """A builder, with the arguments of an intrinsic as pointers to vectors."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.context, self.builder = context, builder
        self.types, self.args = signature.args, args

    def pointer(self, n: int, at: Any) -> Any:
        """Address of element ``at`` of array ``n``."""
        array = self.context.make_array(self.types[n])(self.context, self.builder, self.args[n])
        return self.builder.gep(array.data, [at])

    def number(self, n: int, at: Any) -> Any:
        """Element ``at`` of array ``n``."""
        return self.builder.load(self.pointer(n, at))

    def load(self, kind: Any, n: int, at: Any) -> Any:
        """A vector from element ``at`` of array ``n``."""
        address = self.builder.bitcast(self.pointer(n, at), kind.as_pointer())
        return self.builder.load(address, align=1)

    def store(self, value: Any, n: int, at: Any) -> None:
        """A vector to element ``at`` of array ``n``."""
        address = self.builder.bitcast(self.pointer(n, at), value.type.as_pointer())
        self.builder.store(value, address, align=1)

    def call(self, name: str, kind: Any, *args: Any) -> Any:
        """A machine instruction by its LLVM name."""
        function = ir.FunctionType(kind, [a.type for a in args])
        found = cgutils.get_or_insert_function(self.builder.module, function, name)
        return self.builder.call(found, args)

    def shuffle(self, a: Any, b: Any, places: Any) -> Any:
        """Elements of two vectors, by number."""
        mask = ir.Constant(ir.VectorType(I32, len(places)), [int(i) for i in places])
        return self.builder.shuffle_vector(a, b, mask)

    def constant(self, value: int) -> Any:
        """A whole number."""
        return ir.Constant(I64, value)

    def spread(self, value: Any, count: int) -> Any:
        """A vector of one number."""
        empty = ir.Constant(ir.VectorType(value.type, count), ir.Undefined)
        one = self.builder.insert_element(empty, value, ir.Constant(I32, 0))
        return self.shuffle(one, one, [0] * count)

    def table(self, n: int) -> list[Any]:
        """Low and high bytes of the table that is array ``n``."""
        return [self.load(BYTES, n, self.constant(row)) for row in (0, 32)]

    def looked_up(self, codes: Any, table: list[Any]) -> list[Any]:
        """32 codes through a table, as two vectors."""
        low, high = (self.call("llvm.x86.avx2.pshuf.b", BYTES, row, codes) for row in table)
        return [
            self.builder.bitcast(self.shuffle(low, high, interleaved(32, 16, side)), SHORTS)
            for side in (0, 1)
        ]

    def fields(self, n: int, planes: int, size: Any, at: Any) -> list[Any]:
        """How codes ``8 * at .. 8 * at + 32`` of a row lie in each plane; see :func:`fields`."""
        found = []
        groups = self.builder.lshr(size, self.constant(3))
        length = self.builder.add(self.builder.shl(groups, self.constant(1)), self.constant(3))
        for k in range(planes):
            head = self.builder.mul(length, self.constant(k))
            stride, mask, up = (
                self.builder.load(self.pointer(n, self.past(head, i))) for i in range(3)
            )
            begin = self.builder.add(self.past(head, 3), at)
            words = [self.builder.load(self.pointer(n, self.past(begin, i))) for i in range(4)]
            down = self.load(WORDS, n, self.builder.add(begin, groups))
            found.append((stride, self.spread(mask, 4), self.spread(up, 4), words, down))
        return found

    def codes(self, n: int, fields: list[Any], token: Any) -> Any:
        """32 codes of a token of the page that is array ``n``."""
        whole = None
        for stride, mask, up, words, down in fields:
            row = self.builder.mul(token, stride)
            four = ir.Constant(WORDS, ir.Undefined)
            for i, word in enumerate(words):
                value = self.number(n, self.builder.add(row, word))
                four = self.builder.insert_element(four, value, ir.Constant(I32, i))
            part = self.builder.shl(self.builder.and_(self.builder.lshr(four, down), mask), up)
            whole = part if whole is None else self.builder.or_(whole, part)
        return self.builder.bitcast(whole, BYTES)

    def product(self, a: Any, b: Any) -> Any:
        """Sums of two neighbouring products."""
        return self.call("llvm.x86.avx2.pmadd.wd", INTS, a, b)

    def neighbours(self, a: Any, b: Any) -> Any:
        """Sums of neighbours of ``a`` and of ``b``, inside halves."""
        even = np.array([0, 2, 8, 10, 4, 6, 12, 14])
        return self.builder.add(self.shuffle(a, b, even), self.shuffle(a, b, even + 1))

    def past(self, at: Any, count: int) -> Any:
        """``at + count``."""
        return self.builder.add(at, ir.Constant(at.type, count))


def interleaved(count: int, half: int, side: int) -> list[int]:
    """Places of an unpack instruction: element by element, from one side of every half."""
    first = [h * half + side * half // 2 + i for h in (0, 1) for i in range(half // 2)]
    return [place for i in first for place in (i, i + count)]
