"""Vectors that are awkward beside the table they are encoded with.

A recipe is handed the tables first. The ``residual`` ones drive the rotated residual exactly, as
:mod:`boundaries` drives ``scalar``: beside the table ``transparent`` the residual is the vector.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance import boundaries
from kakeya_conformance.tables import numbers_of
from kakeya_ref.layout import page_layout, residual_width
from kakeya_ref.skeletons import Skeleton, table_store
from kakeya_ref.tables import gain_grid
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
Recipe = Callable[[Skeleton, np.random.Generator, int, PageLayout], F32]


def recipes_for(layout: PageLayout) -> dict[str, Recipe]:
    """Recipes that apply to this layout, all of which need tables."""
    found: list[Recipe] = [cancelling, whole_numbers, stored_halves]
    if layout.codec.id == "query":
        return {recipe.__name__: recipe for recipe in [*found, crowded]}
    found.append(near_directions)
    if layout.codec.id == "turbo" and layout.codec.integer("rank") % 8 == 0:
        width = residual_width(layout.codec)
        found += [residual_integers] if width in boundaries.EXACT_DIMS else []
        found += [residual_midpoints] if width in boundaries.SINGLE_DIMS else []
        if width in boundaries.PAIRED_DIMS:
            found += [residual_sums, residual_thresholds]
    return {recipe.__name__: recipe for recipe in found}


def cancelling(tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Large vectors outside the analysis: their components are the rounding of the chain."""
    shape = (layout.tokens, layout.head_dim)
    x = np.zeros((n, *shape))
    for page, (part, analysis) in enumerate(numbers_of(tables, layout, n)):
        inside, _ = np.linalg.qr(analysis[: layout.head_dim - 1].astype(np.float64).T)
        g = rng.standard_normal(shape) * 2.0 ** rng.integers(6, 16)
        x[page] = part.mean + g - g @ inside @ inside.T
    return x.astype(np.float32)


def near_directions(tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Far along a centre or the trend, and next to it: the length is rounded, the rest is small."""
    p, rank = layout.tokens, layout.codec.integer("rank")
    x = np.zeros((n, p, layout.head_dim))
    for page, (part, _) in enumerate(numbers_of(tables, layout, n)):
        lines = np.concatenate([part.centres, part.trend.reshape(-1, rank)])
        length = rng.choice([-1, 1], (p, 1)) * np.exp2(rng.uniform(4, 11, (p, 1)))
        c = length * lines[rng.integers(0, len(lines), p)]
        c += rng.standard_normal((p, rank)) * 2.0 ** rng.integers(-12, -3)
        x[page] = part.mean + c @ part.basis.astype(np.float64)
    return np.clip(x, -(2.0**120), 2.0**120).astype(np.float32)


def whole_numbers(tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Small multiples of one short number; beside a table of whole numbers nothing is rounded."""
    reach = int(rng.integers(1, 5))
    k = rng.integers(-reach, reach + 1, (n, layout.tokens, layout.head_dim))
    return (k * 2.0 ** rng.integers(-3, 5)).astype(np.float32)


def stored_halves(tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Half-way between two neighbouring numbers of the stored type, as ``raw`` would store them."""
    raw = page_layout(f"raw:dtype={table_store(layout.codec)}", layout.head_dim, layout.tokens)
    return boundaries.raw_halves(rng, n, raw)


def crowded(tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """Components that are small multiples of one number, where the basis is one of axes."""
    x = np.zeros((n, layout.tokens, layout.head_dim))
    for page, (part, _) in enumerate(numbers_of(tables, layout, n)):
        c = rng.integers(-3, 4, (layout.tokens, layout.head_dim)) * 2.0 ** rng.integers(-8, 5)
        x[page] = part.mean + c @ part.basis.astype(np.float64)
    return np.clip(x, -(2.0**100), 2.0**100).astype(np.float32)


def residual_integers(
    tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout
) -> F32:
    """The rotated residual is small multiples of one number: equal magnitudes abound."""
    return _embedded(boundaries.small_integers(rng, n, _scalar(layout)), layout)


def residual_midpoints(
    tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout
) -> F32:
    """The gain of the residual is a midpoint of the grid, or one ulp beside it."""
    return _embedded(boundaries.gain_midpoints_exact(rng, n, _scalar(layout)), layout)


def residual_sums(tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout) -> F32:
    """The order of the sum of squares decides the scale byte."""
    return _embedded(boundaries.gain_sum_edges(rng, n, _scalar(layout)), layout)


def residual_thresholds(
    tables: Skeleton, rng: np.random.Generator, n: int, layout: PageLayout
) -> F32:
    """A rotated residual number over its gain is exactly a threshold, or one ulp beside it."""
    scalar, pages = _scalar(layout), []
    for part, _ in numbers_of(tables, layout, n):
        if not part.levels.size:
            pages.append(boundaries.scalar_thresholds(rng, 1, scalar))
            continue
        thresholds = (part.levels[:-1] + part.levels[1:]) * np.float32(0.5)
        target = thresholds[rng.integers(0, len(thresholds), (1, layout.tokens))]
        hot = np.ones(target.shape, dtype=bool)
        pages.append(boundaries.tie_in_last_block(rng, scalar, target, _reciprocal, hot))
    x = np.concatenate(pages) if pages else np.zeros((0, layout.tokens, scalar.head_dim))
    return _embedded(x.astype(np.float32), layout)


def _reciprocal(byte: NDArray[np.int64]) -> F32:
    mirrored: F32 = gain_grid()[256 - byte]
    return mirrored


def _scalar(layout: PageLayout) -> PageLayout:
    """The layout of ``scalar`` whose vectors are this one's padded residuals."""
    b, seed = layout.codec.integer("b"), layout.codec.integer("seed")
    return page_layout(f"scalar:b={b},seed={seed}", residual_width(layout.codec), layout.tokens)


def _embedded(rest: F32, layout: PageLayout) -> F32:
    """The residual in the first channels, zeros in the others."""
    x = np.zeros((*rest.shape[:2], layout.head_dim), dtype=np.float32)
    x[..., : rest.shape[2]] = rest
    return x
