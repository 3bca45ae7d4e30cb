"""``query``: bits by spread, the walk with changing bits, the row of bits."""

from __future__ import annotations

import numpy as np

from kakeya_conformance import pages, strategies
from kakeya_conformance.compare import refuses, same_bytes
from kakeya_conformance.model import check
from kakeya_conformance.tables import build, given, numbers_of
from kakeya_conformance.trial import Trial
from kakeya_ref.errors import Malformed, RangeError
from kakeya_ref.layout import band_bits
from kakeya_ref.skeletons import Skeleton

CODECS = ["query"]


@check(rules=["query.spread.descending"], level="bits", needs={"decode"}, codecs=CODECS)
def check_query__spread_must_not_ascend(t: Trial) -> None:
    """An ascending or negative spread is refused as Malformed; equal bands are not."""
    part, _ = next(numbers_of(given("plausible", t.seed, 1, t.layout), t.layout, 1))
    bands = t.layout.head_dim // 8
    body = t.reference_pages(t.some())
    wrong = [np.full(bands, -1.0)]
    if bands > 1:
        last = np.ones(bands)
        last[-1] = 2
        wrong += [np.arange(bands, dtype=np.float64), last]
    for spread in wrong:
        beside = build(t.layout, [vars(part) | {"spread": spread}])
        with refuses(Malformed, "query.spread.descending"):
            t.decode(body, tables=beside)
        if "encode" in t.backend.supports(t.layout).features:
            with refuses(Malformed, "query.spread.descending"):
                t.encode(t.some(), tables=beside)
    beside = build(t.layout, [vars(part) | {"spread": np.ones(bands)}])
    t.agree_decode(body, tables=beside)


@check(
    rules=["query.bits.greedy", "query.row.bits", "query.decode.product", "query.page.layout",
           "query.table.layout"],
    level="bits",
    needs={"decode"},
    over="drawn",
    codecs=CODECS,
)  # fmt: skip
def check_query__any_spread_and_any_bytes(t: Trial) -> None:
    """Any table and any bytes decode to the reference's coefficients: bits go where they should."""
    layout = t.draw_layout()
    n = t.draw(strategies.page_counts(layout), "pages")
    names = ["plausible", "axes", "zeros", "transparent", "random_bits"]
    known = t.draw_tables(layout, n, names)
    rng = np.random.default_rng(t.draw(strategies.seeds(), "fields"))
    t.agree_decode(pages.build(layout, pages.random_fields(layout, n, rng)), layout, known)


@check(
    rules=[
        "query.code.trellis",
        "query.code.boundary",
        "query.gain.active",
        "query.gain.reach",
        "query.row.bits",
    ],
    level="tie",
    needs={"encode"},
    over="drawn",
    codecs=CODECS,
)
def check_query__walks_as_the_rules_say(t: Trial) -> None:
    """Where equal costs abound, beside tables of whole numbers, the walk is the reference's."""
    layout = t.draw_layout()
    x, known = t.draw_input(layout, ["crowded", "whole_numbers"], ["axes", "transparent"])
    t.agree_encode(x, layout, known)


def _transparent(t: Trial, second: float) -> Skeleton:
    """A table that passes vectors on, with nearly all of the bits in its first band."""
    part, _ = next(numbers_of(given("transparent", t.seed, 1, t.layout), t.layout, 1))
    spread = np.zeros(t.layout.head_dim // 8)
    spread[1:2] = second
    spread[0] = 1
    return build(t.layout, [vars(part) | {"spread": spread}])


@check(rules=["query.gain.active"], level="bits", needs={"encode"}, codecs=CODECS)
def check_query__gain_is_of_active_components(t: Trial) -> None:
    """What stands in bands without bits moves neither gain nor codes."""
    d = t.layout.head_dim
    known = _transparent(t, second=0.0)
    active = 8 * max(1, -(-band_bits(t.layout.codec, d) // 7))
    x = t.some(n=1)
    moved = x.copy()
    moved[..., active:] *= np.float32(1000)
    same_bytes(t.encode(moved, tables=known), t.encode(x, tables=known), t.layout)
    t.agree_encode(moved, tables=known)


@check(rules=["query.gain.reach"], level="bits", needs={"encode"}, codecs=CODECS)
def check_query__no_component_leaves_a_wide_table(t: Trial) -> None:
    """A token with far more of one component than of others gets a gain that brings it in."""
    known = _transparent(t, second=2.0**-12)
    x, rng = t.some(n=1), t.rng("places")
    for size in (3, 8, 100):
        for sign in (1, -1):
            x[0, :, rng.integers(8)] = sign * np.float32(size)
            t.agree_encode(x, tables=known)


@check(
    rules=["query.value.range", "scale.byte.range"], level="bits", needs={"encode"}, codecs=CODECS
)
def check_query__refuses_components_beyond_float32(t: Trial) -> None:
    """A component with bits that leaves fp32, or a gain above the grid, is refused by rule."""
    part, _ = next(numbers_of(given("transparent", t.seed, 1, t.layout), t.layout, 1))
    known = build(t.layout, [vars(part) | {"basis": part.basis * np.float32(4)}])
    x = np.zeros((1, t.layout.tokens, t.layout.head_dim), dtype=np.float32)
    for at in (0, t.layout.tokens - 1):
        x[0, at, 0] = 3e38
        with refuses(RangeError, "query.value.range"):
            t.encode(x, tables=known)
        x[0, at, 0] = 1e30
        with refuses(RangeError, "scale.byte.range"):
            t.encode(x, tables=known)
        x[0, at, 0] = 1
        t.agree_encode(x, tables=known)
        x[0, at] = 0
