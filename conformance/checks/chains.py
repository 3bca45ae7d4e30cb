"""Dense products beside a table: their order, the centre they choose, what they leave."""

from __future__ import annotations

import numpy as np

from kakeya_conformance import ideal, pages, strategies
from kakeya_conformance.compare import near_floats, refuses, want
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.tables import build, given, numbers_of
from kakeya_conformance.trial import Trial
from kakeya_ref.errors import RangeError

TABLED = ["skeleton", "turbo"]
CHAINED = [*TABLED, "query"]
# Ranks at which level `norm` must hold: the error of a chain grows with its length, and the terms
# of very few components may cancel in all of them.
FEW, MANY = 5, 32


@check(
    rules=[
        "num.chain.order",
        "num.fp32.no-fma",
        "skeleton.encode.project",
        "turbo.encode.project",
        "query.encode.project",
    ],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=CHAINED,
)
def check_chain__components_in_index_order(t: Trial) -> None:
    """Where components are what rounding leaves, they are those of a chain in index order."""
    layout = t.draw_layout()
    x, known = t.draw_input(layout, ["cancelling"], ["plausible", "metric", "foreign"])
    t.agree_encode(x, layout, known)


@check(
    rules=[
        "num.chain.order",
        "num.fp32.no-fma",
        "skeleton.decode.sum",
        "skeleton.decode.synthesis",
        "turbo.decode.sum",
        "turbo.decode.synthesis",
        "query.decode.synthesis",
    ],
    level="bits",
    needs={"decode"},
    over="drawn",
    codecs=CHAINED,
)
def check_chain__vectors_in_index_order(t: Trial) -> None:
    """Vectors are chains in index order, and the mean is added to them, not they to the mean."""
    layout = t.draw_layout()
    n = t.draw(strategies.page_counts(layout), "pages")
    known = t.draw_tables(layout, n, ["plausible", "random_bits", "large", "tiny"])
    fields = pages.random_fields(layout, n, np.random.default_rng(t.draw(strategies.seeds(), "x")))
    t.agree_decode(pages.build(layout, fields), layout, known)


@check(
    rules=[
        "skeleton.decode.sum",
        "skeleton.decode.synthesis",
        "turbo.decode.product",
        "turbo.decode.sum",
        "turbo.decode.synthesis",
    ],
    level="norm",
    needs={"decode"},
    codecs=TABLED,
)
def check_chain__vectors_are_near_the_ideal_ones(t: Trial) -> None:
    """Legal pages decode close to float64 matrix products, without asking the reference."""
    if not FEW <= t.layout.codec.integer("rank") <= MANY:
        raise NotApplicable("too few or too many components for the bound")
    known = given("plausible", t.seed, 3, t.layout)
    fields = pages.random_fields(t.layout, 3, t.rng())
    got = t.decode(pages.build(t.layout, fields), tables=known)
    near_floats(got, ideal.vectors(t.layout, fields, known), t.layout)


@check(
    rules=["skeleton.seg.absolute", "turbo.seg.absolute"],
    level="bits",
    needs={"encode"},
    codecs=TABLED,
)
def check_centre__sign_does_not_matter(t: Trial) -> None:
    """A vector and its opposite take the same centre, with opposite lengths."""
    known, x = given("centred", t.seed, 1, t.layout), t.some(n=3)
    one, other = (pages.read(t.layout, t.encode(some, tables=known)) for some in (x, -x))
    if "seg" in one:
        want((one["seg"] == other["seg"]).all(), f"{t.layout}: the sign changes the centre")
        several = t.layout.codec.integer("rank") == 1 or len(np.unique(one["seg"])) > 1
        want(several, f"{t.layout}: all vectors take one centre")
    flipped = one["proj"] ^ np.uint64(0x8000)
    want((flipped == other["proj"]).all(), f"{t.layout}: the sign changes the length")


@check(
    rules=["skeleton.seg.absolute", "turbo.seg.absolute"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=TABLED,
)
def check_centre__ties_go_to_the_lowest(t: Trial) -> None:
    """Of centres that are equally near, equal or opposite ones among them, the lowest is taken."""
    layout = t.draw_layout()
    x, known = t.draw_input(layout, [], ["repeated", "axes", "transparent"])
    t.agree_encode(x, layout, known)


@check(
    rules=["skeleton.seg.absolute", "skeleton.time.trend", "turbo.seg.absolute"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=TABLED,
)
def check_centre__what_is_stored_is_subtracted(t: Trial) -> None:
    """The rounded length times its direction is subtracted, so that rounding is not lost."""
    layout = t.draw_layout()
    x, known = t.draw_input(layout, ["near_directions"], ["plausible", "metric"])
    t.agree_encode(x, layout, known)


@check(
    rules=["num.round.half-even", "skeleton.seg.absolute", "turbo.seg.absolute"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=TABLED,
)
def check_centre__lengths_round_half_to_even(t: Trial) -> None:
    """Lengths and residual numbers half-way between two of the stored type go to the even one."""
    layout = t.draw_layout()
    x, known = t.draw_input(layout, ["stored_halves"], ["single", "transparent"])
    t.agree_encode(x, layout, known)


@check(rules=["num.subnormal.kept"], level="bits", needs={"decode"}, codecs=TABLED)
def check_chain__keeps_subnormals(t: Trial) -> None:
    """Tables of subnormal numbers are read and multiplied as the numbers they are."""
    known = given("tiny", t.seed, 1, t.layout)
    fields = pages.random_fields(t.layout, 2, t.rng())
    body = pages.build(t.layout, fields)
    t.agree_decode(body, tables=known)
    if t.layout.codec["store"] == "bf16":
        want(bool(t.decode(body, tables=known).any()), f"{t.layout}: all was flushed to zero")


@check(
    rules=["skeleton.value.range", "turbo.value.range"],
    level="bits",
    needs={"encode"},
    codecs=TABLED,
)
def check_centre__length_fits_the_stored_type(t: Trial) -> None:
    """The largest length that rounds to a finite number is stored; half a step on is refused."""
    narrow = t.layout.codec["store"] == "f16"
    below, above = (65519.996, 65520.0) if narrow else (3.39e38, 3.3962e38)
    part, _ = next(numbers_of(given("transparent", t.seed, 1, t.layout), t.layout, 1))
    centres = np.zeros_like(part.centres)
    centres[-1, -1] = 1
    known = build(t.layout, [vars(part) | {"centres": centres}])
    x = np.zeros((1, t.layout.tokens, t.layout.head_dim), dtype=np.float32)
    for at in (0, t.layout.tokens - 1):
        for sign in (1, -1):
            x[0, at, part.centres.shape[1] - 1] = sign * below
            t.agree_encode(x, tables=known)
            x[0, at, part.centres.shape[1] - 1] = sign * above
            with refuses(RangeError, f"{t.layout.codec.id}.value.range"):
                t.encode(x, tables=known)
            x[0, at] = 0
