"""Two inner loops of the trellis as explicit vectors of 16 lanes.

Written out, because each touches many small rows: left to the compiler, every visit of 16 lanes
pays for a test that no two rows overlap, which costs several times the work itself. The vectors
are those of LLVM, so any CPU runs them, and no operation carries a fast-math flag.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16
F32, BYTE, WORD = ir.FloatType(), ir.IntType(8), ir.IntType(16)


class _Rows:
    """Rows of 16 numbers inside C-contiguous arrays, as vectors."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.builder = builder
        self.data = [
            context.make_array(kind)(context, builder, value).data
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(signature.args, args, strict=True)
        ]

    def at(self, array: int, index: Any, element: Any) -> Any:
        """Pointer to row ``index``."""
        start = self.builder.mul(index, ir.Constant(index.type, LANES))
        place = self.builder.gep(self.data[array], [start])
        return self.builder.bitcast(place, ir.VectorType(element, LANES).as_pointer())

    def load(self, array: int, index: Any, element: Any = F32) -> Any:
        return self.builder.load(self.at(array, index, element), align=element_bytes(element))

    def store(self, value: Any, array: int, index: Any, element: Any = F32) -> None:
        place = self.at(array, index, element)
        self.builder.store(value, place, align=element_bytes(element))

    def every(self, value: Any) -> Any:
        """The same number in every lane."""
        out = ir.Constant(ir.VectorType(value.type, LANES), ir.Undefined)
        for lane in range(LANES):
            out = self.builder.insert_element(out, value, ir.Constant(ir.IntType(32), lane))
        return out


def element_bytes(element: Any) -> int:
    """Alignment that every row has."""
    return 4 if element is F32 else 1


@intrinsic
def butterfly(_, cost, after, square, flags, s, one, two):
    """Both successors of states ``s`` and ``s + 64``, which differ in their oldest bit.

    Rule: trellis.search.step, num.fp32.no-fma

    Parameters
    ----------
    cost, after : (128, 16) float32
    square : (16, 16) float32
        Branches: rows are labels.
    flags : (128,) uint16
        Written: bit v of state t says that its predecessor in lane v is ``t // 2 + 64``.
    s, one, two : int64
        State, labels of the windows ``2 s`` and ``2 s + 1``. The first and the last column of
        the labels are equal, so that four branches share two distances.
    """
    signature = types.void(cost, after, square, flags, s, one, two)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = _Rows(context, builder, signature, args)
        state, first, second = args[4:]

        def shifted(n: int) -> Any:
            return builder.add(state, ir.Constant(state.type, n))

        low, high = rows.load(0, state), rows.load(0, shifted(64))
        near, far = rows.load(2, first), rows.load(2, second)
        successor = builder.shl(state, ir.Constant(state.type, 1))
        for lower, upper in ((near, far), (far, near)):
            a, b = builder.fadd(low, lower), builder.fadd(high, upper)
            less = builder.fcmp_ordered("<", b, a)
            rows.store(builder.select(less, b, a), 1, successor)
            builder.store(
                builder.bitcast(less, WORD), builder.gep(rows.data[3], [successor]), align=2
            )
            successor = builder.add(successor, ir.Constant(state.type, 1))
        return context.get_dummy_value()

    return signature, emit


@intrinsic
def nearer(_, row, square, pick, i, label, at, value, choice):
    """Keep a value where it is nearer than the best so far, or take it as the first.

    Rule: trellis.search.branch, num.fp32.no-fma

    Parameters
    ----------
    row : (n, 16) float32
    square : (16, 16) float32
        Written in row ``label``.
    pick : (rows, 16) uint8
        Written in row ``at``.
    i, label, at : int64
    value : float32
    choice : uint8
        Number of the value; 0 takes it whatever stood there.
    """
    signature = types.void(row, square, pick, i, label, at, value, choice)

    def emit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows = _Rows(context, builder, signature, args)
        i, label, at, value, choice = args[3:]
        off = builder.fsub(rows.load(0, i), rows.every(value))
        new = builder.fmul(off, off)
        best, before = rows.load(1, label), rows.load(2, at, BYTE)
        first = builder.icmp_unsigned("==", choice, ir.Constant(choice.type, 0))
        less = builder.or_(builder.fcmp_ordered("<", new, best), rows.every(first))
        rows.store(builder.select(less, new, best), 1, label)
        rows.store(builder.select(less, rows.every(choice), before), 2, at, BYTE)
        return context.get_dummy_value()

    return signature, emit
