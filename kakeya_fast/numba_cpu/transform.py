"""The front and back end shared by the codecs that rotate: vectors <-> scaled coefficients."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.gain import gain_bytes, rms
from kakeya_fast.numba_cpu.jit import serial
from kakeya_fast.numba_cpu.lanes import NONE, VECTORS, load, store
from kakeya_fast.numba_cpu.rotate import hadamard, rotation_blocks
from kakeya_ref.tables import gain_grid, gain_midpoints, signs
from kakeya_ref.types import PageLayout

ROTATION_FIELDS = [
    ("flips", np.ndarray),  # (D,) uint32, sign bits
    ("lengths", np.ndarray),  # (blocks,) int64
    ("factors", np.ndarray),  # (blocks,) float32
    ("midpoints", np.ndarray),  # (257,) float32
    ("forward", np.ndarray),  # (256,) float32, what the encoder multiplies by
    ("backward", np.ndarray),  # (256,) float32, what the decoder multiplies by
]


def rotation(d: int, seed: int, step: np.float32, inverse: np.float32) -> tuple[np.ndarray, ...]:
    """Values of ``ROTATION_FIELDS`` for codes in units of ``step`` times the gain.

    Rule: signs.splitmix64.top-bit, scale.byte.grid, scale.byte.reciprocal, scale.byte.zero
    """
    flips = signs(seed, d).view(np.uint32) & np.uint32(0x80000000)
    lengths, factors = rotation_blocks(d)
    grid = gain_grid()
    mirrored = grid[(256 - np.arange(256)) % 256]
    return flips, lengths, factors, gain_midpoints().copy(), mirrored * inverse, grid * step


@serial
def analyse(x, n, p0, kind, r, bits, squares, gain, byte):
    """Read V vectors, rotate them and choose their gain bytes.

    Rule: num.input.finite, scale.rms, scale.byte.midpoint, scale.byte.range

    Parameters
    ----------
    bits : (D, V) uint32
        Written: the coefficients, as bit patterns.
    byte : (V,) int64
        Written.

    Returns
    -------
    broken, refused : int64
        First lane that is not finite, first lane whose gain is out of range; else ``NONE``.
    """
    y = bits.view(np.float32)
    broken = load(x, n, p0, kind, r.flips, bits)
    if broken != NONE:
        return broken, NONE
    hadamard(y, r.lengths, r.factors)
    rms(y, squares, gain)
    refused = gain_bytes(gain, r.midpoints, byte)
    return NONE, NONE if refused < 0 else np.int64(refused)


@serial
def synthesise(bits, out, n, p0, kind, r, mode):
    """Turn coefficients back, if asked, and write V vectors.

    Rule: hadamard.scale.once, signs.splitmix64.top-bit
    """
    if mode == VECTORS:
        hadamard(bits.view(np.float32), r.lengths, r.factors)
        store(bits, out, n, p0, kind, r.flips)
    else:
        store(bits, out, n, p0, kind, np.zeros_like(r.flips))


def lane_count(layout: PageLayout) -> int:
    """Vectors handled side by side: what divides a page and keeps the lanes in the L1 cache."""
    return 32 if layout.tokens % 32 == 0 else 16
