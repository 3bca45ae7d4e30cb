"""Hypothesis strategies of the suite: layouts over the whole registry range, vectors, bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kakeya_conformance import pages
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import registry, spelled
from kakeya_ref.types import PageLayout

U8 = NDArray[np.uint8]
SPECIAL_DIMS = (8, 16, 64, 80, 96, 112, 128, 192, 256, 320, 576)
# The reference takes the chains of one page at a time: smaller shapes, more of them.
TABLED_DIMS = (8, 16, 24, 64, 80, 96, 128, 192)
LARGEST = 60_000  # values of one example: shapes stay small, examples stay many


def head_dims() -> st.SearchStrategy[int]:
    """Multiples of 8 in 8..576; those of known models and those with exact blocks more often."""
    return st.one_of(st.sampled_from(SPECIAL_DIMS), st.integers(1, 72).map(lambda k: 8 * k))


def codec_strings(codec_id: str) -> st.SearchStrategy[str]:
    """Codec strings over the whole range of every parameter."""
    params: dict[str, Any] = registry()["codecs"][codec_id].get("params", {})
    parts = st.fixed_dictionaries({name: _values(rule) for name, rule in params.items()})
    return parts.map(lambda chosen: _string(codec_id, chosen))


@st.composite
def resolved_strings(draw: st.DrawFn, codec_id: str, d: int, p: int) -> str:
    """Codec strings with a rank up to the head dim, and outliers up to every number of a page.

    Rule: codec.fit.resolved, codec.rank.head-dim, turbo.out.range
    """
    params: dict[str, Any] = registry()["codecs"][codec_id]["params"]
    rules = {name: rule for name, rule in params.items() if not rule.get("fit")}
    chosen = {name: draw(_values(r)) for name, r in rules.items() if name not in ("rank", "out")}
    edges = [rank for rank in (1, 5, 7, 8, 9, d) if rank <= d]
    chosen["rank"] = draw(st.one_of(st.sampled_from(edges), st.integers(1, d)))
    if "out" in rules:
        most = p * -(-chosen["rank"] // 8)
        chosen["out"] = 8 * draw(st.one_of(st.sampled_from([0, 1, most]), st.integers(0, most)))
    return _string(codec_id, chosen)


def _string(codec_id: str, chosen: dict[str, Any]) -> str:
    rules = registry()["codecs"][codec_id].get("params", {})
    shown = ",".join(f"{k}={spelled(rules[k], v)}" for k, v in chosen.items())
    return codec_id + (":" if chosen else "") + shown


def _values(rule: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "choices" in rule:
        return st.sampled_from(rule["choices"])
    step = rule.get("multiple", 1)
    low, high = -(-rule["min"] // step), rule["max"] // step
    edges = st.sampled_from([rule["min"], rule["default"], rule["max"]])
    return st.one_of(edges, st.integers(low, high).map(lambda k: k * step))


@st.composite
def layouts(
    draw: st.DrawFn,
    codec_id: str,
    dims: Sequence[int] = (),
    codec: str = "",
    shapes: Sequence[tuple[int, int]] = (),
) -> PageLayout:
    """A page layout of one codec; ``shapes`` limits (head dim, tokens) to what is offered."""
    tabled = bool(registry()["codecs"][codec_id].get("table"))
    if shapes:
        d, p = draw(st.sampled_from([s for s in shapes if not dims or s[0] in dims]))
    else:
        some = st.sampled_from(TABLED_DIMS) if tabled else head_dims()
        d = draw(st.sampled_from(list(dims)) if dims else some)
        p = draw(st.sampled_from((16, 16, 32) if tabled else (16, 16, 32, 48, 64)))
    ranked = "rank" in registry()["codecs"][codec_id].get("params", {})
    strings = resolved_strings(codec_id, d, p) if ranked else codec_strings(codec_id)
    return page_layout(codec or draw(strings), d, p)


def page_counts(layout: PageLayout) -> st.SearchStrategy[int]:
    """N in 0..4, less where pages are large."""
    most = max(1, min(4, LARGEST // (layout.tokens * layout.head_dim)))
    return st.sampled_from([*range(1, most + 1), 0])


@st.composite
def page_bytes(draw: st.DrawFn, layout: PageLayout) -> U8:
    """Bytes of the right length: all random, all legal fields, or legal with a few flipped bits."""
    n = draw(page_counts(layout))
    kind = draw(st.sampled_from(("legal", "flipped", "random", "zero", "ones")))
    rng = np.random.default_rng(draw(st.integers(0, 2**20)))
    if kind == "zero":
        return np.zeros((n, layout.nbytes), dtype=np.uint8)
    if kind == "ones":
        return np.full((n, layout.nbytes), 255, dtype=np.uint8)
    if kind == "random":
        return rng.integers(0, 256, (n, layout.nbytes), dtype=np.uint8)
    body = pages.build(layout, pages.random_fields(layout, n, rng))
    if kind == "flipped" and body.size:
        at = rng.integers(0, body.size, 4)
        body.ravel()[at] ^= (1 << rng.integers(0, 8, 4)).astype(np.uint8)
    return body


def seeds() -> st.SearchStrategy[int]:
    """Seeds of recipes and fields."""
    return st.integers(0, 2**20)


def sign_seeds() -> st.SearchStrategy[int]:
    """Seeds of the sign flips: the ends of the range and anything between."""
    return st.one_of(st.sampled_from([0, 1, 2, 2**31, 2**32 - 1]), st.integers(0, 2**32 - 1))


def rounding_codecs(codec_id: str) -> st.SearchStrategy[str]:
    """Codec strings of the codecs that round numbers; ``raw`` only where it rounds."""
    if codec_id == "raw":
        return st.sampled_from(["raw:dtype=f16", "raw:dtype=bf16"])
    return codec_strings(codec_id)
