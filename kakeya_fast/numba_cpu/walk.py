"""The trellis on lanes: Viterbi's search and its inverse, for sequences of any mix of bits."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial
from kakeya_fast.numba_cpu.vector16 import LANES, butterfly, nearer
from kakeya_ref.tables import trellis_labels, trellis_values

STATES, LABELS = 128, 16

WALK_FIELDS = [
    ("bits", np.ndarray),  # (n,) int64, bits of each code
    ("values", np.ndarray),  # float32, the values of all bits used, one table after the other
    ("start", np.ndarray),  # (n,) int64, where the table of each code starts
    ("labels", np.ndarray),  # (256,) int64, label of each window
]


def walk(bits: np.ndarray) -> tuple[np.ndarray, ...]:
    """Values of ``WALK_FIELDS`` for codes of these bits.

    Rule: trellis.table.values, trellis.label.linear
    """
    used = sorted({int(b) for b in bits})
    tables = [trellis_values(b) for b in used]
    first = dict(zip(used, np.cumsum([0] + [len(t) for t in tables]).tolist(), strict=False))
    start = np.array([first[int(b)] for b in bits], dtype=np.int64)
    values = np.concatenate(tables) if tables else np.zeros(0, np.float32)
    return bits.astype(np.int64), values, start, trellis_labels().astype(np.int64)


@serial
def search(z, w, cost, after, square, pick, flags, codes):
    """Codes of the walk of least squared error of 16 lanes.

    Rule: trellis.search.branch, trellis.search.start, trellis.search.step, trellis.search.end

    Parameters
    ----------
    z : (n, 16) float32
    w : tuple with ``WALK_FIELDS``
    cost, after : (128, 16) float32
        Scratch.
    square : (16, 16) float32
        Scratch.
    pick : (n * 16, 16) uint8
        Scratch.
    flags : (n, 128) uint16
        Scratch.
    codes : (n, 16) uint8
        Written.
    """
    n = len(z)
    cost[:] = np.float32(np.inf)
    cost[0] = np.float32(0)
    for i in range(n):
        for u in range(1 << (w.bits[i] - 1)):
            for label in range(LABELS):
                value = w.values[w.start[i] + u * LABELS + label]
                nearer(z, square, pick, i, label, i * LABELS + label, value, np.uint8(u))
        for s in range(STATES // 2):
            butterfly(cost, after, square, flags[i], s, w.labels[2 * s], w.labels[2 * s + 1])
        cost, after = after, cost
    for v in range(LANES):
        state = 0
        for s in range(1, STATES):
            if cost[s, v] < cost[state, v]:
                state = s
        for back in range(n):
            i = n - 1 - back
            window = state + STATES * (flags[i, state] >> v & 1)
            codes[i, v] = pick[i * LABELS + w.labels[window], v] << 1 | state & 1
            state = window >> 1


@serial
def values(codes, w, scale, y):
    """Value times gain of every code of every lane.

    Rule: trellis.window.shift, trellis.decode.product

    Parameters
    ----------
    codes : (n, V) uint8
    scale : (V,) float32
    y : (n, V) float32
        Written.
    """
    n, lanes = codes.shape
    for v in range(lanes):
        window = 0
        for i in range(n):
            code = np.int64(codes[i, v])
            window = (window << 1 | code & 1) & 255
            at = w.start[i] + (code >> 1) * LABELS + w.labels[window]
            # Adding +0 turns the -0 of a zero vector into +0 and changes nothing else.
            y[i, v] = w.values[at] * scale[v] + np.float32(0)
