"""Nearest even-sum integer point inside a cube, for many blocks side by side."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial


@serial
def nearest_even(z, m, offset, low, high, c, squares, state):
    """Points of even sum with every coordinate in ``low..high`` nearest to ``z - offset``.

    Rule: e8.nearest.inside, e8.nearest.tie, d4.nearest.inside, d4.nearest.tie, num.sum.halving

    Parameters
    ----------
    z : (n, M) float32
        One block of n coordinates per column; the first ``m`` columns are used.
    offset, low, high : float32
    c : (n, M) float32
        Written: the points.
    squares : (n, M) float32
        Written: row 0 is the squared distance.
    state : (4, M) float32
        Scratch: largest saving, its row, its direction, coordinate sum.

    Notes
    -----
    Small integers are exact in float32, so a whole block stays in one vector type. What a branch
    might not need is loaded before it: the compiler then selects instead of branching.
    """
    n = z.shape[0]
    for v in range(m):
        state[0, v], state[3, v] = np.float32(-2), np.float32(0)
    for i in range(n):
        for v in range(m):
            w = z[i, v] - offset
            r = np.rint(w)
            r = r if r > low else low
            r = r if r < high else high
            e = w - r
            d = np.float32(1) if e >= np.float32(0) else np.float32(-1)
            moved = r + d
            d = -d if moved < low or moved > high else d
            f = d * e
            saving, row, direction = state[0, v], state[1, v], state[2, v]
            better = f > saving
            state[0, v] = f if better else saving
            state[1, v] = np.float32(i) if better else row
            state[2, v] = d if better else direction
            state[3, v] += r
            c[i, v] = r
    for v in range(m):
        row = state[1, v]
        state[1, v] = row if np.int32(state[3, v]) & np.int32(1) else np.float32(-1)
    for i in range(n):
        for v in range(m):
            r, direction = c[i, v], state[2, v]
            r = r + direction if state[1, v] == np.float32(i) else r
            e = z[i, v] - offset - r
            c[i, v] = r
            squares[i, v] = e * e
    kept = n
    while kept > 1:
        kept //= 2
        for i in range(kept):
            for v in range(m):
                squares[i, v] += squares[i + kept, v]
