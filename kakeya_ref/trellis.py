"""The trellis: a code whose low bits walk through windows, and the walk of least error.

A sequence of coefficients may change its bits from one to the next: only the low bit of a code
enters the window, the others choose among the values that the window leaves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.tables import trellis_labels, trellis_values

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]

STATES = 128  # last seven low bits
LABELS = 16


def values(codes: U64, bits: NDArray[np.int64]) -> F32:
    """Values of codes, each from its own bits and the low bits of the seven codes before it.

    Rule: trellis.window.shift, trellis.label.linear, trellis.table.values

    Parameters
    ----------
    codes : (M, n) uint64
    bits : (n,) int64
        Bits of each code, 1 to 8.

    Returns
    -------
    (M, n) float32

    Examples
    --------
    >>> values(np.array([[0, 1, 1]], dtype=np.uint64), np.array([1, 1, 2]))[0].tolist()
    [-1.6953125, 0.244140625, -1.046875]
    """
    low = (codes & np.uint64(1)).astype(np.int64)
    window = np.zeros_like(low)
    for back in range(min(8, low.shape[1])):
        window[:, back:] |= low[:, : low.shape[1] - back] << back
    at = (codes >> np.uint64(1)).astype(np.int64) * LABELS + trellis_labels()[window]
    return np.stack([trellis_values(int(b))[at[:, i]] for i, b in enumerate(bits)], axis=1)


def search(z: F32, bits: NDArray[np.int64], weight: F32 | None = None) -> U64:
    """Codes of the walk of least squared error, by Viterbi's algorithm.

    Rule: trellis.search.branch, trellis.search.step, trellis.search.start, trellis.search.end

    Parameters
    ----------
    z : (M, n) float32
        Coefficients in units of the gain.
    bits : (n,) int64
    weight : (n,) float32, optional
        What an error of each coefficient counts, where they count differently.

    Returns
    -------
    (M, n) uint64

    Notes
    -----
    Level: bits. Each step is one subtraction, one product and one sum; nothing is reassociated. A
    weight is one more product, of the branch.
    """
    m, n = z.shape
    labels = trellis_labels()
    cost = np.full((m, STATES), np.inf, dtype=np.float32)
    cost[:, 0] = 0
    upper = np.zeros((n, m, STATES), dtype=np.uint8)  # which half the better predecessor is in
    choice = np.zeros((n, m, LABELS), dtype=np.uint64)
    for i in range(n):
        off = z[:, i, None, None] - trellis_values(int(bits[i])).reshape(-1, LABELS)
        square = off * off
        choice[i] = square.argmin(axis=1)  # the lowest of equals
        branch = square.min(axis=1)
        if weight is not None:
            branch = branch * weight[i]
        both = (np.repeat(cost, 2, axis=1) + branch[:, labels]).reshape(m, 2, STATES)
        upper[i] = both[:, 1] < both[:, 0]
        cost = np.where(upper[i], both[:, 1], both[:, 0])
    state = cost.argmin(axis=1)
    codes = np.zeros((m, n), dtype=np.uint64)
    rows = np.arange(m)
    for i in reversed(range(n)):
        window = state + STATES * upper[i, rows, state].astype(np.int64)
        pick = choice[i, rows, labels[window]]
        codes[:, i] = pick << np.uint64(1) | (state & 1).astype(np.uint64)
        state = window >> 1
    return codes
