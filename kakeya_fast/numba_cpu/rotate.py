"""The orthonormal block Hadamard transform on lanes."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial


def rotation_blocks(d: int) -> tuple[np.ndarray, np.ndarray]:
    """Block lengths of a head dim, largest first, and the constant of each block.

    Rule: hadamard.blocks.largest-first, hadamard.scale.once

    Returns
    -------
    lengths : (n,) int64
    factors : (n,) float32
    """
    powers = [m for m in reversed(range(d.bit_length())) if d >> m & 1]
    lengths = np.array([1 << m for m in powers], dtype=np.int64)
    return lengths, np.array([2.0 ** (-m / 2) for m in powers], dtype=np.float32)


@serial
def hadamard(y, lengths, factors):
    """Transform every lane in place, block by block.

    Rule: hadamard.order.strides, hadamard.scale.once, hadamard.blocks.largest-first,
    num.fp32.no-fma

    Parameters
    ----------
    y : (D, V) float32

    Notes
    -----
    Three strides are taken per pass over memory; each number still sees the strides in the
    order 1, 2, 4, ... The constant rides on the last pass, and the factor 1 of the other
    passes is exact.
    """
    lanes = y.shape[1]
    flat = y.reshape(y.size)
    start = 0
    for k in range(len(lengths)):
        n = lengths[k]
        block = flat[start * lanes : (start + n) * lanes]
        stride = 1
        while stride * 8 <= n:
            factor = factors[k] if stride * 8 == n else np.float32(1)
            _three_strides(block, stride * lanes, factor)
            stride *= 8
        while stride < n:
            factor = factors[k] if stride * 2 == n else np.float32(1)
            _one_stride(block, stride * lanes, factor)
            stride *= 2
        start += n


# Each group of rows is cut out as an array of its own: seen through the whole block, the rows of
# neighbouring groups interleave, and the compiler's overlap test sends it to scalar code.


@serial
def _one_stride(block, run, factor):
    for i in range(block.size // (2 * run)):
        w = block[i * 2 * run : (i + 1) * 2 * run]
        for v in range(run):
            a, b = w[v], w[run + v]
            w[v], w[run + v] = (a + b) * factor, (a - b) * factor


@serial
def _three_strides(block, run, factor):
    for i in range(block.size // (8 * run)):
        w = block[i * 8 * run : (i + 1) * 8 * run]
        for v in range(run):
            a0, a1, a2, a3 = w[v], w[run + v], w[2 * run + v], w[3 * run + v]
            a4, a5, a6, a7 = w[4 * run + v], w[5 * run + v], w[6 * run + v], w[7 * run + v]
            b0, b1, b2, b3 = a0 + a1, a0 - a1, a2 + a3, a2 - a3
            b4, b5, b6, b7 = a4 + a5, a4 - a5, a6 + a7, a6 - a7
            a0, a1, a2, a3 = b0 + b2, b1 + b3, b0 - b2, b1 - b3
            a4, a5, a6, a7 = b4 + b6, b5 + b7, b4 - b6, b5 - b7
            w[v], w[4 * run + v] = (a0 + a4) * factor, (a0 - a4) * factor
            w[run + v], w[5 * run + v] = (a1 + a5) * factor, (a1 - a5) * factor
            w[2 * run + v], w[6 * run + v] = (a2 + a6) * factor, (a2 - a6) * factor
            w[3 * run + v], w[7 * run + v] = (a3 + a7) * factor, (a3 - a7) * factor
