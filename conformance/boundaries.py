"""Inputs that sit exactly on a decision boundary of a codec.

Rotated codecs are driven through the exact inverse: in a block of ``4^k`` the Hadamard constant
is a power of two, so a coded vector of few significant bits, or with one nonzero coordinate, or
proportional to one row of the matrix, survives inverse and forward transform without rounding.
With two such blocks (80 = 64 + 16) the larger one sets the gain and the smaller one holds the tie.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.oracle import ROTATED, blocks, hadamard_matrix, ideal_vectors
from kakeya_conformance.walks import walk_ties
from kakeya_ref.numerics import halving_sum
from kakeya_ref.tables import gain_grid, gain_midpoints, lattice_step, lloyd_max
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Recipe = Callable[[np.random.Generator, int, PageLayout], F32]
EXACT_DIMS = (16, 64, 80, 256, 320)
PAIRED_DIMS = (80, 320)
SINGLE_DIMS = (8, 16, 32, 64, 128, 256, 512)


def recipes_for(layout: PageLayout) -> dict[str, Recipe]:
    """Boundary recipes that apply to this layout."""
    d, codec = layout.head_dim, layout.codec.id
    found: list[Recipe] = []
    if codec == "raw" and layout.codec["dtype"] != "f32":
        found = [raw_halves]
    elif codec == "fp8":
        found = [fp8_halves, fp8_scale_edges]
    elif codec == "int":
        found = [int_halves]
    elif codec in ROTATED:
        found += [small_integers] if d in EXACT_DIMS else []
        found += [gain_midpoints_exact] if len(blocks(d)) == 1 else []
        found += [walk_ties] if codec == "trellis" and d in EXACT_DIMS else []
        if d in PAIRED_DIMS:
            found += [gain_sum_edges]
            found += {"scalar": [scalar_thresholds], "trellis": []}.get(codec, [lattice_halves])
    return {recipe.__name__: recipe for recipe in found}


def raw_halves(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Half-way between two neighbouring stored values; every second one rounds down."""
    shape = (n, layout.tokens, layout.head_dim)
    if layout.codec["dtype"] == "f16":
        low = rng.integers(0, 0x7BFF, shape, dtype=np.uint16)
        a = low.view(np.float16).astype(np.float32)
        b = (low + np.uint16(1)).view(np.float16).astype(np.float32)
        x = (a + b) * np.float32(0.5)
    else:
        high = rng.integers(0, 0x7F7F, shape, dtype=np.uint32)
        x = ((high << np.uint32(16)) | np.uint32(0x8000)).view(np.float32)
    return _either_sign(rng, x)


def fp8_halves(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Half-way between neighbouring e4m3 values, under a gain that is a power of two."""
    code = rng.integers(0, 0x7E, (n, layout.tokens, layout.head_dim))
    x = (_e4m3(code) + _e4m3(code + 1)) * 0.5
    x[..., 0] = 440.0  # between S[b-1] * 448 and S[b] * 448 whatever the rounding of 1/448
    power = rng.integers(-15, 15, (n, layout.tokens, 1))
    return _either_sign(rng, (x * 2.0**power).astype(np.float32))


def fp8_scale_edges(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """The largest value of a vector is 448 times a gain of the grid, or one ulp beside it."""
    x = rng.standard_normal((n, layout.tokens, layout.head_dim)).astype(np.float32)
    byte = rng.integers(1, 256, (n, layout.tokens))
    peak = _hit(gain_grid()[byte], np.float32(1 / 448), rng)
    x *= (peak / np.float32(8))[..., None]
    x = np.clip(x, -peak[..., None], peak[..., None])
    x[..., 0] = peak
    return x.astype(np.float32)


def int_halves(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """``lo + (k + 1/2) * step`` with dyadic lo and step, so that every code is a tie."""
    top = 2 ** layout.codec.integer("b") - 1
    shape = (n, layout.tokens, layout.head_dim)
    halves = rng.integers(0, 2 * top + 1, shape).astype(np.float64) / 2
    # Both ends of the range stand in every group, whichever way groups run.
    token, channel = np.indices(shape[1:])
    halves[:, (token + channel) % 8 == 0] = 0
    halves[:, (token + channel) % 8 == 1] = top
    power = int(rng.integers(-8, 4))
    return ((halves + int(rng.integers(-8, 8))) * 2.0**power).astype(np.float32)


def small_integers(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Coded coordinates are small multiples of one short number: equal errors abound."""
    reach = int(rng.integers(1, 5))
    k = rng.integers(-reach, reach + 1, (n, layout.tokens, layout.head_dim)).astype(np.float64)
    v = rng.integers(2**9, 2**10, (n, layout.tokens, 1)) * 2.0**-9
    return _through_inverse(k * v, layout)


def gain_midpoints_exact(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """The gain is a midpoint of the grid, or one ulp of the input above it.

    One nonzero channel in a block of 2^m: the butterflies copy it, the constant is the only
    rounding, and the sum and the mean of equal squares are exact.
    """
    d = layout.head_dim
    gain = gain_midpoints()[rng.integers(1, 257, (n, layout.tokens))]
    constant = np.float32(2.0 ** (-(d.bit_length() - 1) / 2))
    value = _hit(gain, constant, rng)
    # Above the last midpoint the encoder refuses; other recipes go there.
    while (over := value * constant > gain_midpoints()[256]).any():
        value = np.where(over, np.nextafter(value, np.float32(0)), value)
    x = np.zeros((n, layout.tokens, d), dtype=np.float32)
    at = rng.integers(0, d, (n, layout.tokens, 1))
    np.put_along_axis(x, at, value[..., None], axis=-1)
    return _either_sign(rng, x)


def gain_sum_edges(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """One large square, many near half an ulp of it: the order of the sum decides the byte.

    The large coordinate stands in the last block, the small ones fill the first, and the large
    one is the last, or the one after the last, for which the gain is not above a midpoint.
    """
    d, last = layout.head_dim, blocks(layout.head_dim)[-1]
    shape = (n, layout.tokens)
    middle = gain_midpoints()[rng.integers(40, 220, shape)]
    total = d * middle.astype(np.float64) ** 2
    ulp = np.spacing(total.astype(np.float32))
    small = np.sqrt(rng.uniform(0.1, 2.0, shape) * ulp).astype(np.float32)
    guess = np.sqrt(total - (d - last) * small.astype(np.float64) ** 2).astype(np.float32)
    tries = guess[..., None] * (1 + np.arange(-8, 9) * 2.0**-23).astype(np.float32)
    y = np.zeros((*tries.shape, d), dtype=np.float32)
    y[..., : d - last] = small[..., None, None]
    at = d - last + int(rng.integers(0, last))
    y[..., at] = tries
    gain = np.sqrt(halving_sum(y * y) / np.float32(d))
    below = (gain <= middle[..., None]).sum(axis=-1)
    chosen = np.clip(below - 1 + rng.integers(0, 2, shape), 0, tries.shape[-1] - 1)
    flat = y.reshape(-1, tries.shape[-1], d)
    picked = flat[np.arange(len(flat)), chosen.ravel()]
    return _through_inverse(picked.reshape(*shape, d).astype(np.float64), layout)


def scalar_thresholds(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """One coordinate over the gain is exactly a Lloyd-Max threshold, or one ulp beside it."""
    _, thresholds = lloyd_max(layout.codec.integer("b"))
    target = thresholds[rng.integers(0, len(thresholds), (n, layout.tokens))]
    hot = np.ones(target.shape, dtype=bool)
    return tie_in_last_block(rng, layout, target, lambda byte: gain_grid()[256 - byte], hot)


def lattice_halves(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Lattice coordinates are exactly k/4: all of a block, or one of it, the others zero."""
    _, kinv = lattice_step(layout.codec.id, layout.codec.integer("q"))
    reach = 2.0 * float(kinv)  # what the last block can hold without moving the gain
    top = max(1, min(int(reach * 4), 4 * layout.codec.integer("q") + 3))
    quarters = rng.integers(1, top + 1, (n, layout.tokens))
    target = (quarters / 4).astype(np.float32)
    hot = rng.random(target.shape) < 0.5
    return tie_in_last_block(rng, layout, target, lambda byte: gain_grid()[256 - byte] * kinv, hot)


def tie_in_last_block(
    rng: np.random.Generator,
    layout: PageLayout,
    target: F32,
    multiplier: Callable[[NDArray[np.int64]], F32],
    one_hot: NDArray[np.bool_],
) -> F32:
    """Vectors whose last block, times the encoder's multiplier, holds ``target`` exactly."""
    d, last = layout.head_dim, blocks(layout.head_dim)[-1]
    byte = rng.integers(100, 140, target.shape)
    gain = gain_grid()[byte].astype(np.float64)
    value = _hit(target, multiplier(byte), rng).astype(np.float64)
    y = np.zeros((*target.shape, d))
    rows = np.sign(hadamard_matrix(last))[rng.integers(0, last, target.shape)]
    single = np.eye(last)[rng.integers(0, last, target.shape)]
    y[..., d - last :] = np.where(one_hot[..., None], single, rows) * value[..., None]
    rest = d * gain**2 - (y**2).sum(axis=-1)
    first = np.sqrt(np.maximum(rest, 0) / (d - last))
    # Constant in the larger block, with few bits: one nonzero vector channel after the inverse.
    y[..., : d - last] = _short(first)[..., None]
    return _through_inverse(y, layout)


def _hit(target: F32, multiplier: F32 | np.float32, rng: np.random.Generator) -> F32:
    """fp32 ``v`` with ``v * multiplier == target`` where one exists, else next to it."""
    guess = (target.astype(np.float64) / np.float64(multiplier)).astype(np.float32)
    best = guess.copy()
    for candidate in (
        np.nextafter(guess, np.float32(-np.inf)),
        np.nextafter(guess, np.float32(np.inf)),
    ):
        best = np.where(candidate * multiplier == target, candidate, best)
    exact = rng.random(target.shape) < 0.7
    return np.where(exact, best, np.nextafter(best, np.float32(np.inf)))


def _through_inverse(y: F64, layout: PageLayout) -> F32:
    return ideal_vectors(y, layout).astype(np.float32)


def _short(x: F64) -> F64:
    """Ten significant bits."""
    power = np.exp2(np.floor(np.log2(np.maximum(x, 2.0**-60))) - 9)
    out: F64 = np.round(x / power) * power
    return out


def _either_sign(rng: np.random.Generator, x: F32) -> F32:
    return np.where(rng.random(x.shape) < 0.5, x, -x).astype(np.float32)


def _e4m3(code: NDArray[np.int64]) -> F64:
    exponent, mantissa = code >> 3, code & 7
    return np.where(exponent == 0, mantissa * 2.0**-9, (1 + mantissa / 8) * 2.0 ** (exponent - 7.0))
