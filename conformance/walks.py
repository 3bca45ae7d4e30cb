"""Inputs on which two walks of a trellis cost exactly the same."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.oracle import ideal_vectors
from kakeya_ref.tables import gain_midpoints, trellis_labels, trellis_values
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
TRIES = 24


def walk_ties(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Half-way between two walks that differ in one code, and on both elsewhere.

    Where its low bit differs, eight values do, and the walks meet again in one state, or end in
    two; where the low bit is the same, two values of one label are equally near. Values have
    eight significant bits, so that in a block of ``4^k`` nothing on the way to the search rounds,
    if the gain is 1: of many walks one is taken whose gain byte says so.
    """
    shape = (n * layout.tokens, TRIES, layout.head_dim)
    d, b = layout.head_dim, layout.codec.integer("b")
    codes = rng.integers(0, 1 << b, shape)
    other = codes.copy()
    place = np.where(rng.random(shape[:2]) < 0.3, d - 1, rng.integers(0, d, shape[:2]))
    at = (*np.indices(shape[:2]), place)
    low = (rng.random(shape[:2]) < 0.5) | (b == 1)
    neighbour = np.where(codes[at] < 2, codes[at] + 2, codes[at] - 2)
    other[at] = np.where(low, codes[at] ^ 1, neighbour)
    z = (walked(codes, b) + walked(other, b)) / 2
    rms = np.sqrt((z**2).mean(axis=-1))
    fits = (rms > gain_midpoints()[128]) & (rms <= gain_midpoints()[129])
    chosen = z[np.arange(len(z)), fits.argmax(axis=1)]
    return ideal_vectors(chosen.reshape(n, layout.tokens, d), layout).astype(np.float32)


def walked(codes: I64, b: int) -> F64:
    """Values of walks (..., n), written a second time: one code after the other.

    Rule: trellis.window.shift, trellis.label.linear, trellis.table.values
    """
    window = np.zeros(codes.shape[:-1], dtype=np.int64)
    labels, values = trellis_labels(), trellis_values(b).astype(np.float64)
    out = np.empty(codes.shape)
    for i in range(codes.shape[-1]):
        code = codes[..., i]
        window = window % 128 * 2 + code % 2
        out[..., i] = values[code // 2 * 16 + labels[window]]
    return out
