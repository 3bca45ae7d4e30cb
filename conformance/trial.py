"""What a check is handed: the backend under test, one case, and ways to ask."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kakeya_conformance import bounded, compare, recipes, strategies
from kakeya_conformance import tables as table_recipes
from kakeya_conformance.layouts import Offer
from kakeya_conformance.model import Nonconforming, NotApplicable
from kakeya_conformance.oracle import Oracle, ideal_vectors
from kakeya_conformance.vectors import Vector
from kakeya_ref.contract import Backend
from kakeya_ref.errors import KakeyaError
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import Basis, PageLayout

F32 = NDArray[np.float32]
U8 = NDArray[np.uint8]
Draw = Callable[..., Any]


@dataclass
class Trial:
    """One case of one check.

    ``target`` names the backend for a fresh process and is empty when nothing does. ``needs``
    are the features that a drawn layout must offer.
    """

    backend: Backend
    target: str
    oracle: Oracle
    seed: int
    codec_id: str = ""
    offer: Offer | None = None
    needs: frozenset[str] = frozenset()
    fixed: PageLayout | None = None
    frozen: Vector | None = None
    drawer: Draw | None = field(default=None, repr=False)

    @property
    def exact(self) -> bool:
        """Whether the backend claims equality with the reference to the bit."""
        return self.backend.profile == "exact"

    @property
    def layout(self) -> PageLayout:
        """The layout of a ``layout`` check."""
        if self.fixed is None:
            raise TypeError("this check has no fixed layout")
        return self.fixed

    @property
    def vector(self) -> Vector:
        """The frozen vector of a ``vector`` check."""
        if self.frozen is None:
            raise TypeError("this check has no frozen vector")
        return self.frozen

    def rng(self, label: str = "") -> np.random.Generator:
        """A generator that depends on seed, layout and label only."""
        return np.random.default_rng([self.seed, zlib.crc32(f"{self.fixed}/{label}".encode())])

    def tables(
        self, recipe: str = "plausible", n: int = 1, layout: PageLayout | None = None
    ) -> Skeleton | None:
        """``n`` tables from a named recipe; nothing for codecs that need none."""
        layout = layout or self.layout
        if not table_recipes.needed(layout):
            return None
        return table_recipes.given(recipe, self.seed, n, layout)

    def some(self, recipe: str = "gaussian", n: int = 2, layout: PageLayout | None = None) -> F32:
        """Vectors (n, P, D) from a named recipe."""
        layout = layout or self.layout
        known = self.tables(layout=layout)
        return recipes.recipes_for(layout, known)[recipe](self.rng(recipe), n, layout)

    def draw(self, strategy: st.SearchStrategy[Any], label: str) -> Any:
        """One labelled draw of a ``drawn`` check."""
        if self.drawer is None:
            raise TypeError("this check is not drawn")
        return self.drawer(strategy, label=label)

    def draw_layout(self, dims: Sequence[int] = (), codec: str = "") -> PageLayout:
        """A layout that the backend supports, over the whole registry range."""

        def offered(layout: PageLayout) -> bool:
            answer = self.backend.supports(layout)
            return answer.ok and self.needs <= answer.features

        shapes = self.offer.shapes if self.offer and not self.offer.everywhere else ()
        if shapes and dims and not {d for d, _ in shapes} & set(dims):
            raise NotApplicable("the backend offers no head dim that this check needs")
        wanted = strategies.layouts(self.codec_id, dims, codec, shapes).filter(offered)
        layout: PageLayout = self.draw(wanted, "layout")
        return layout

    def draw_tables(self, layout: PageLayout, n: int, only: Sequence[str] = ()) -> Skeleton | None:
        """Tables of ``n`` pages, one for all or one each, by name and seed."""
        if not table_recipes.needed(layout):
            return None
        names = list(only) or list(table_recipes.RECIPES)
        name = self.draw(st.sampled_from(names), "tables")
        count = n if n > 1 and self.draw(st.booleans(), "one each") else 1
        seed = self.draw(strategies.seeds(), "seed of tables")
        return table_recipes.given(name, seed, count, layout)

    def draw_input(
        self, layout: PageLayout, only: Sequence[str] = (), tables: Sequence[str] = ()
    ) -> tuple[F32, Skeleton | None]:
        """Vectors (N, P, D), by name of a recipe and seed, and the tables to encode them with."""
        n = self.draw(strategies.page_counts(layout), "pages")
        known = self.draw_tables(layout, n, tables)
        found = recipes.recipes_for(layout, known)
        names = [name for name in found if not only or name in only]
        name = self.draw(st.sampled_from(names), "recipe")
        seed = self.draw(strategies.seeds(), "seed of vectors")
        return found[name](np.random.default_rng(seed), n, layout), known

    def encode(
        self,
        x: NDArray[Any],
        layout: PageLayout | None = None,
        tables: Skeleton | None = None,
    ) -> U8:
        """The backend's pages; with the plausible table where the codec needs one."""
        layout, tables = self._call(layout, tables)
        return self.backend.encode(x, layout, **table_recipes.option(tables))

    def decode(
        self,
        pages: U8 | bytes,
        layout: PageLayout | None = None,
        basis: Basis = "vectors",
        tables: Skeleton | None = None,
    ) -> F32:
        """The backend's floats; with the plausible table where the codec needs one."""
        layout, tables = self._call(layout, tables)
        return self.backend.decode(pages, layout, basis=basis, **table_recipes.option(tables))

    def reference_pages(
        self,
        x: NDArray[Any],
        layout: PageLayout | None = None,
        tables: Skeleton | None = None,
    ) -> U8:
        """The reference's pages; the case does not apply where the reference refuses."""
        layout, tables = self._call(layout, tables)
        pages = self.oracle.encode(x, layout, tables)
        if isinstance(pages, KakeyaError):
            raise NotApplicable(str(pages))
        return pages

    def _call(
        self, layout: PageLayout | None, tables: Skeleton | None
    ) -> tuple[PageLayout, Skeleton | None]:
        layout = layout or self.layout
        return layout, tables or self.tables(layout=layout)

    def agree_encode(
        self,
        x: NDArray[Any],
        layout: PageLayout | None = None,
        tables: Skeleton | None = None,
    ) -> None:
        """The backend encodes, or refuses, as the reference does.

        Profile ``exact``: equal bytes. Profile ``bounded``: the reference, reading the backend's
        pages, finds an error no worse than its own.
        """
        layout, tables = self._call(layout, tables)
        wanted = self.oracle.encode(x, layout, tables)
        got = compare.outcome(lambda: self.encode(x, layout, tables))
        if isinstance(wanted, KakeyaError):
            self._same_refusal(got, wanted)
            return
        if isinstance(got, KakeyaError):
            raise Nonconforming(f"{layout}: refused valid vectors: {got}") from got
        if self.exact:
            compare.same_bytes(got, wanted, layout)
            return
        bounded.judge(got, wanted, x, layout, self.oracle, tables)

    def agree_decode(
        self, pages: U8, layout: PageLayout | None = None, tables: Skeleton | None = None
    ) -> None:
        """The backend decodes, or refuses, as the reference does, in both bases.

        Coefficients are equal to the bit on every profile; vectors on profile ``exact``, and
        near the float64 ideal on profile ``bounded``.
        """
        layout, tables = self._call(layout, tables)
        bases: tuple[Basis, ...] = ("coefficients", "vectors")
        for basis in bases:
            wanted = self.oracle.decode(pages, layout, basis, tables)
            got = compare.outcome(partial(self.decode, pages, layout, basis, tables))
            if isinstance(wanted, KakeyaError):
                self._same_refusal(got, wanted)
            elif isinstance(got, KakeyaError):
                raise Nonconforming(f"{layout}: refused valid pages: {got}") from got
            elif self.exact or basis == "coefficients":
                compare.same_floats(got, wanted, layout)
            else:
                coefficients = self.oracle.decode(pages, layout, "coefficients", tables)
                if not isinstance(coefficients, KakeyaError):
                    compare.near_floats(got, ideal_vectors(coefficients, layout), layout)

    def agree_vectors(self, got: Any, wanted: F32, layout: PageLayout | None = None) -> None:
        """Two decodings of the same page agree: equal, or (profile ``bounded``) near."""
        layout = layout or self.layout
        if self.exact:
            compare.same_floats(got, wanted, layout)
        else:
            compare.near_floats(got, wanted.astype(np.float64), layout)

    @staticmethod
    def _same_refusal(got: NDArray[Any] | KakeyaError, wanted: KakeyaError) -> None:
        kind, rule = type(wanted), wanted.rule
        if not isinstance(got, KakeyaError):
            raise Nonconforming(f"want {kind.__name__} [{rule}], got a result")
        compare.same_refusal(got, kind, (rule,))
