"""Nearest even-sum integer point inside a cube, for V blocks side by side."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial


@serial
def nearest_even(y, scale, offset, low, high, c, squares, state):
    """Point of even sum with every coordinate in ``low..high`` nearest to ``y * scale - offset``.

    Rule: e8.nearest.inside, e8.nearest.tie, d4.nearest.inside, d4.nearest.tie, num.sum.halving

    Parameters
    ----------
    y : (n, V) float32
        One block of n coordinates per lane.
    scale : (V,) float32
    offset, low, high : float32
    c : (n, V) float32
        Written: the point.
    squares : (n, V) float32
        Written: row 0 is the squared distance.
    state : (4, V) float32
        Scratch: largest saving, its row, its direction, coordinate sum.

    Notes
    -----
    Small integers are exact in float32, so a whole block stays in one vector type.
    """
    n, lanes = y.shape
    saving, row, direction, total = state[0], state[1], state[2], state[3]
    for i in range(n):
        for v in range(lanes):
            w = y[i, v] * scale[v] - offset
            r = np.rint(w)
            r = r if r > low else low
            r = r if r < high else high
            e = w - r
            d = np.float32(1) if e >= np.float32(0) else np.float32(-1)
            moved = r + d
            d = -d if moved < low or moved > high else d
            f = d * e
            better = f > saving[v] if i else True
            saving[v] = f if better else saving[v]
            direction[v] = d if better else direction[v]
            row[v] = np.float32(i) if better else row[v]
            total[v] = r + total[v] if i else r
            c[i, v] = r
    for v in range(lanes):
        even = np.int32(total[v]) & np.int32(1) == 0
        row[v] = np.float32(-1) if even else row[v]
    for i in range(n):
        for v in range(lanes):
            w = y[i, v] * scale[v] - offset
            r = c[i, v]
            r = r + direction[v] if row[v] == np.float32(i) else r
            c[i, v] = r
            e = w - r
            squares[i, v] = e * e
    kept = n
    while kept > 1:
        kept //= 2
        for i in range(kept):
            for v in range(lanes):
                squares[i, v] += squares[i + kept, v]
