"""Sign flips and the orthonormal block Hadamard transform, in a fixed order of operations."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.tables import signs

F32 = NDArray[np.float32]


def blocks(d: int) -> list[int]:
    """Power-of-two block lengths of a head dim, largest first.

    Rule: hadamard.blocks.largest-first

    Examples
    --------
    >>> blocks(96), blocks(576), blocks(128)
    ([64, 32], [512, 64], [128])
    """
    return [1 << m for m in reversed(range(d.bit_length())) if d >> m & 1]


def hadamard(y: F32) -> F32:
    """Orthonormal Hadamard transform of each block of the last axis.

    Rule: hadamard.order.strides, hadamard.scale.once, hadamard.blocks.largest-first,
    num.fp32.no-fma

    Parameters
    ----------
    y : (M, D) float32

    Returns
    -------
    (M, D) float32

    Notes
    -----
    Level: bits. Butterflies add and subtract only; the constant ``2^(-m/2)`` is multiplied in
    once, at the end. The transform is its own inverse up to rounding.

    Examples
    --------
    >>> hadamard(np.array([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=np.float32))[0, :6].tolist()
    [1.4142135381698608, 0.0, 0.0, 0.0, 1.4142135381698608, 0.0]
    """
    out = y.astype(np.float32, copy=True)
    start = 0
    for n in blocks(y.shape[1]):
        block = out[:, start : start + n]
        stride = 1
        while stride < n:
            pairs = block.reshape(len(y), n // (2 * stride), 2, stride)
            a, b = pairs[:, :, 0], pairs[:, :, 1]
            # Inputs near the fp32 limit overflow here; the gain then refuses them by token.
            with np.errstate(over="ignore", invalid="ignore"):
                block = np.stack([a + b, a - b], axis=2).reshape(len(y), n)
            stride *= 2
        out[:, start : start + n] = block * np.float32(2.0 ** (-(n.bit_length() - 1) / 2))
        start += n
    return out


def rotate(x: F32, seed: int) -> F32:
    """Coefficients of vectors: sign flips, then Hadamard.

    Rule: signs.splitmix64.top-bit, hadamard.scale.once
    """
    return hadamard(x * signs(seed, x.shape[1]))


def unrotate(y: F32, seed: int) -> F32:
    """Vectors of coefficients: Hadamard, then the same sign flips.

    Rule: signs.splitmix64.top-bit, hadamard.scale.once
    """
    return hadamard(y) * signs(seed, y.shape[1])
