"""Tables for codecs that need one: by name and seed, so that a failing example stays small.

A table is drawn like vectors are: a recipe gives its numbers, :func:`given` rounds them to the
stored type. Everything a backend is handed is read-only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.layout import table_layout
from kakeya_ref.registry import table_kind
from kakeya_ref.skeletons import (
    Parts,
    Skeleton,
    parts,
    table_body,
    table_rank,
    table_store,
    widen16,
)
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
Numbers = dict[str, NDArray[Any]]
Recipe = Callable[[np.random.Generator, PageLayout], Numbers]


def needed(layout: PageLayout) -> bool:
    """Whether the codec is read and written with tables. Rule: codec.table.given"""
    return table_kind(layout.codec) != ""


def option(tables: Skeleton | None) -> dict[str, Any]:
    """Keyword arguments of a call: a codec without tables is not handed any."""
    return {} if tables is None else {"tables": tables}


@lru_cache(maxsize=128)
def given(recipe: str, seed: int, count: int, layout: PageLayout) -> Skeleton:
    """``count`` tables of a recipe, the first being the same for every count."""
    made = []
    for i in range(count):
        made.append(RECIPES[recipe](np.random.default_rng([seed, i]), layout))
    return build(layout, made)


def build(layout: PageLayout, made: list[Numbers]) -> Skeleton:
    """Tables of these numbers, each rounded to the stored type; ``analysis`` is kept as it is."""
    bodies = np.stack([table_body(layout.codec, layout.head_dim, **numbers) for numbers in made])
    analysis = None
    if "analysis" in made[0]:
        analysis = np.stack([numbers["analysis"] for numbers in made]).astype(np.float32)
        analysis.setflags(write=False)
    bodies.setflags(write=False)
    return Skeleton(bodies, analysis)


def numbers_of(tables: Skeleton, layout: PageLayout, pages: int) -> Iterator[tuple[Parts, F32]]:
    """Numbers and analysis that hold for each of the pages."""
    for n in range(pages):
        at = n if len(tables) > 1 else 0
        part = parts(tables.bodies[at], layout.codec, layout.head_dim)
        yield part, part.basis if tables.analysis is None else tables.analysis[at]


def pick(tables: Skeleton | None, rows: slice | list[int]) -> Skeleton | None:
    """Tables of some of the pages; one table for all stays as it is."""
    if tables is None or len(tables) == 1:
        return tables
    analysis = tables.analysis
    return Skeleton(tables.bodies[rows], None if analysis is None else analysis[rows])


def doubled(tables: Skeleton | None, layout: PageLayout) -> Skeleton | None:
    """The same tables about twice the mean: what doubled vectors are encoded with."""
    if tables is None:
        return None
    made = []
    for part, _ in numbers_of(tables, layout, len(tables)):
        made.append(vars(replace(part, mean=part.mean * np.float32(2))))
    return Skeleton(build(layout, made).bodies, tables.analysis)


def faithful(tables: Skeleton, layout: PageLayout) -> bool:
    """Whether distance means something: an orthonormal basis that is the analysis as well."""
    if tables.analysis is not None:
        return False
    for part, basis in numbers_of(tables, layout, len(tables)):
        if np.abs(part.basis @ basis.T - np.eye(len(basis))).max() > 2.0**-6:
            return False
    return True


def plausible(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """What a fit gives: orthonormal basis, unit centres and trend, levels near Lloyd-Max."""
    d, rank, k = _shape(layout)
    centres = rng.standard_normal((k, rank))
    trend = rng.standard_normal(rank)
    return {
        "mean": rng.standard_normal(d),
        "basis": np.linalg.qr(rng.standard_normal((d, rank)))[0].T,
        "centres": centres / np.linalg.norm(centres, axis=1, keepdims=True),
        "trend": trend / np.linalg.norm(trend),
        "levels": np.sort(_normal(layout) * rng.uniform(0.8, 1.2, _normal(layout).shape)),
        "spread": np.sort(np.exp(rng.standard_normal(d // 8)))[::-1],
    }


def centred(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Plausible, about a mean of zero: a vector and its opposite have opposite components."""
    return plausible(rng, layout) | {"mean": np.zeros(layout.head_dim)}


def transparent(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Identity and zeros: what remains of a vector is the vector itself, to the bit."""
    d, rank, k = _shape(layout)
    return {
        "mean": np.zeros(d),
        "basis": np.eye(rank, d),
        "centres": np.zeros((k, rank)),
        "trend": np.zeros(rank),
        "levels": _normal(layout),
        "spread": np.ones(d // 8),
    }


def single(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Transparent, but for centres that are all the same axis: its number becomes the length."""
    made, (_, rank, _) = transparent(rng, layout), _shape(layout)
    return made | {"centres": made["centres"] + np.eye(rank)[rng.integers(0, rank)]}


def axes(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Whole numbers everywhere: nothing is rounded, so ties abound."""
    d, rank, k = _shape(layout)
    few = np.eye(rank)[rng.integers(0, rank, min(k, 3))]
    return {
        "mean": rng.integers(-2, 3, d),
        "basis": np.eye(d)[rng.permutation(d)[:rank]],
        "centres": few[rng.integers(0, len(few), k)] * rng.choice([-1, 1, 2], (k, 1)),
        "trend": np.eye(rank)[rng.integers(0, rank)] * rng.integers(0, 2),
        "levels": np.sort(rng.integers(-4, 5, len(_normal(layout)))) / 2,
        "spread": np.sort(4.0 ** rng.integers(-3, 2, d // 8))[::-1],
    }


def repeated(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Centres that are equal, or opposite, to one another."""
    made = plausible(rng, layout)
    first = made["centres"][rng.integers(0, 2, len(made["centres"])) % len(made["centres"])]
    return made | {"centres": first * rng.choice([-1, 1], (len(first), 1))}


def zeros(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Nothing: every component is zero, every vector decodes to the mean."""
    return {name: np.zeros_like(values) for name, values in transparent(rng, layout).items()}


def large(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Numbers near the end of the stored type, or far out where that end is float32's."""
    top = 2.0 ** (10 if table_store(layout.codec) == "f16" else 30)
    made = plausible(rng, layout)
    return made | {name: made[name] * top for name in ("mean", "basis", "centres", "levels")}


def tiny(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Subnormal numbers of the stored type, for ``bf16`` those of float32."""
    least = 2.0 ** (-24 if table_store(layout.codec) == "f16" else -133)
    made = plausible(rng, layout)
    small = {name: np.round(made[name] * 16) * least for name in ("mean", "basis", "centres")}
    return made | small


def random_bits(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """Any finite 16-bit pattern; levels in order, and such that their sums stay finite."""
    store, found = table_store(layout.codec), {}
    full = np.uint16(0x7C00 if store == "f16" else 0x7F80)
    for plane in table_layout(layout.codec, layout.head_dim).planes:
        bits = rng.integers(0, 2**16, plane.rows * plane.row, dtype=np.uint16)
        found[plane.name] = widen16(np.where((bits & full) == full, bits ^ 0x4000, bits), store)
    if "spread" in found:
        found["spread"] = np.sort(np.abs(found["spread"]))[::-1]
    if "levels" in found:
        found["levels"] = np.sort(np.fmod(found["levels"], np.float32(2.0**15)))
    return found


def metric(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """A basis stretched by a metric, and the analysis that is its inverse, not rounded."""
    made, d = plausible(rng, layout), layout.head_dim
    left = np.tril(rng.standard_normal((d, d)) / d, -1) + np.diag(rng.uniform(0.5, 2, d))
    return made | {"basis": made["basis"] @ np.linalg.inv(left), "analysis": made["basis"] @ left.T}


def foreign(rng: np.random.Generator, layout: PageLayout) -> Numbers:
    """An analysis that has nothing to do with the basis."""
    made = plausible(rng, layout)
    return made | {"analysis": rng.standard_normal(made["basis"].shape) / 4}


def _shape(layout: PageLayout) -> tuple[int, int, int]:
    """Head dim, rows of the basis, centres."""
    centres = dict(layout.codec.params).get("k", 1)
    return layout.head_dim, table_rank(layout.codec, layout.head_dim), int(centres)


def _normal(layout: PageLayout) -> F32:
    """Levels of N(0, 1) for as many bits as the codec has; unused by codecs without levels."""
    if layout.codec.id != "turbo":
        return np.zeros(0, np.float32)
    return lloyd_max(layout.codec.integer("b"))[0]


RECIPES: dict[str, Recipe] = {
    recipe.__name__: recipe
    for recipe in (
        plausible,
        centred,
        transparent,
        single,
        axes,
        repeated,
        zeros,
        large,
        tiny,
        random_bits,
        metric,
        foreign,
    )
}
