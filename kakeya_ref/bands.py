"""Bands of ``query``: how many bits each has, and codes in and out of a row of bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.tables import band_savings

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

BAND = 8
CAP = 7
# Widest code of the trellis; wider ones are Lloyd-Max codes.
WALKED = 3


def widths(spread: F32, total: int) -> I64:
    """Bits of every coefficient that has any, from the variances of the bands.

    Rule: query.bits.greedy

    Parameters
    ----------
    spread : (D / 8,) float32
        Not ascending.
    total : int
        Bits to share out; a band takes one at a time, for all of its coefficients.

    Returns
    -------
    (8 * active bands,) int64, not ascending

    Examples
    --------
    >>> widths(np.array([1, 0.25, 0.01], dtype=np.float32), 4)[::8].tolist()
    [3, 1]
    """
    bits = np.zeros(len(spread), dtype=np.int64)
    for _ in range(total):
        saved = np.where(bits < CAP, spread * band_savings()[np.minimum(bits, CAP - 1)], -1)
        bits[int(np.argmax(saved))] += 1
    return np.repeat(bits[bits > 0], BAND)


def pack(codes: I64, width: I64) -> NDArray[np.uint8]:
    """Rows of bytes of codes (P, n): one string of bits, each code's highest bit first.

    Rule: query.row.bits
    """
    bits = [codes[:, i] >> j & 1 for i, b in enumerate(width) for j in reversed(range(int(b)))]
    return np.packbits(np.stack(bits, axis=1).astype(np.uint8), axis=1)


def unpack(rows: NDArray[np.uint8], width: I64) -> I64:
    """Inverse of :func:`pack`. Rule: query.row.bits"""
    bits = np.unpackbits(rows, axis=1).astype(np.int64)
    codes, at = np.zeros((len(rows), len(width)), dtype=np.int64), 0
    for i, b in enumerate(width):
        for _ in range(int(b)):
            codes[:, i] = codes[:, i] << 1 | bits[:, at]
            at += 1
    return codes
