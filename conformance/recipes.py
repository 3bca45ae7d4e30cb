"""Inputs by name: plain data, extremes, and what all codecs find awkward.

A recipe is drawn by name and seed, so a failing example is two small numbers, not an array.
Recipes that sit exactly on a decision boundary are in :mod:`boundaries`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance import boundaries, tabled
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
Recipe = Callable[[np.random.Generator, int, PageLayout], F32]


def gaussian(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Unit normal."""
    return rng.standard_normal((n, layout.tokens, layout.head_dim)).astype(np.float32)


def scaled(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Normal, every vector times its own power of two inside the range of the codec."""
    low, high = exponents(layout)
    power = rng.integers(low, high, (n, layout.tokens, 1)).astype(np.float32)
    return gaussian(rng, n, layout) * np.exp2(power)


def outliers(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """A few channels a hundred times larger, as keys have them."""
    x = gaussian(rng, n, layout)
    x[..., rng.integers(0, layout.head_dim, 3)] *= np.float32(100)
    return x


def sparse(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Mostly zeros of either sign, whole zero vectors among them."""
    x = gaussian(rng, n, layout)
    x *= rng.random(x.shape) < 0.1
    x[rng.random(x.shape[:2]) < 0.3] = 0.0
    return np.where(rng.random(x.shape) < 0.5, x, -x).astype(np.float32)


def constant(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """One value per vector: the Hadamard transform puts it all in one coordinate."""
    x = gaussian(rng, n, layout)
    return np.broadcast_to(x[..., :1], x.shape).copy()


def one_hot(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """One nonzero channel per vector."""
    x = np.zeros((n, layout.tokens, layout.head_dim), dtype=np.float32)
    at = rng.integers(0, layout.head_dim, (n, layout.tokens, 1))
    values = rng.standard_normal((n, layout.tokens, 1)).astype(np.float32)
    np.put_along_axis(x, at, values, axis=-1)
    return x


def subnormal(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Subnormal numbers, alone or next to normal ones."""
    bits = rng.integers(0, 2**23, (n, layout.tokens, layout.head_dim), dtype=np.uint32)
    x = bits.view(np.float32) * np.where(rng.random(bits.shape) < 0.5, 1, -1).astype(np.float32)
    mixed = rng.random((n, layout.tokens, 1)) < 0.5
    return np.where(mixed, x, x + gaussian(rng, n, layout) * np.float32(2.0**-14))


def tiniest(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Vectors whose largest number is a few steps of the smallest subnormal, of either sign."""
    reach = np.exp2(rng.integers(0, 14, (n, layout.tokens, 1)))
    shape = (n, layout.tokens, layout.head_dim)
    steps = np.round(rng.uniform(-1, 1, shape) * reach)
    return (steps * 2.0**-149).astype(np.float32)


def half_subnormal(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Numbers that are subnormal in float16 and normal in float32."""
    return gaussian(rng, n, layout) * np.float32(2.0**-18)


def huge(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Near or beyond what the codec can carry: encode, or refuse, as the reference does."""
    x = gaussian(rng, n, layout)
    _, high = exponents(layout)
    x *= np.float32(2.0 ** min(high + int(rng.integers(0, 4)), 125))
    return x


def random_bits(rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Any finite float32 pattern."""
    shape = (n, layout.tokens, layout.head_dim)
    bits = rng.integers(0, 2**32, shape, dtype=np.uint32)
    bits = np.where((bits & 0x7F800000) == 0x7F800000, bits & 0xBFFFFFFF, bits)
    return bits.astype(np.uint32).view(np.float32)


def exponents(layout: PageLayout) -> tuple[int, int]:
    """Powers of two by which unit data can be scaled and, nearly always, still be encoded."""
    if layout.codec.id == "raw":
        return (-20, 12) if layout.codec["dtype"] == "f16" else (-120, 120)
    if layout.codec.id == "fp8":
        return -24, 20
    if layout.codec.id == "skeleton" and layout.codec["store"] == "bf16":
        return -60, 60
    return -18, 11


PLAIN: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (
        gaussian,
        scaled,
        outliers,
        sparse,
        constant,
        one_hot,
        subnormal,
        tiniest,
        half_subnormal,
        huge,
        random_bits,
    )
}


def recipes_for(layout: PageLayout, tables: Skeleton | None = None) -> dict[str, Recipe]:
    """Plain recipes plus the boundary recipes of this codec that head dim and tables allow."""
    found = PLAIN | boundaries.recipes_for(layout)
    if tables is not None:
        found |= {k: partial(v, tables) for k, v in tabled.recipes_for(layout).items()}
    return found
