"""Pages that are asked for before they are needed: they lie too far apart to be foreseen."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from kakeya_fast.numba_cpu.jit import lent
from kakeya_fast.numba_cpu.vectors import I8, I32, Vectors

LINE = 64  # bytes that come together


@intrinsic
def _fetch(typing: Any, pages: Any, start: Any, nbytes: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        v = Vectors(context, builder, signature, args)
        base = builder.bitcast(v.pointer(0, v.constant(0)), I8.as_pointer())
        begin = builder.gep(base, [args[1]])
        kind = ir.FunctionType(ir.VoidType(), [I8.as_pointer(), I32, I32, I32])
        prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
        # To be read, and read again; data.
        how = [ir.Constant(I32, x) for x in (0, 3, 1)]
        with cgutils.for_range_slice(builder, v.constant(0), args[2], v.constant(LINE)) as (i, _):
            builder.call(prefetch, [builder.gep(begin, [i]), *how])
        return context.get_dummy_value()

    return types.void(pages, types.int64, types.int64), generate


@lent
def fetch(pages, slot):
    """Ask for the bytes of a page (S, nbytes / 8) uint64; rows may be strided."""
    _fetch(pages, slot * pages.strides[0], pages.shape[1] * 8)
