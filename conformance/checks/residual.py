"""What remains after the centre: kept numbers of ``skeleton``, rotated codes of ``turbo``."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kakeya_conformance import levels, pages
from kakeya_conformance.compare import refuses, same_bytes, same_floats, want, within
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.tables import build, given, numbers_of
from kakeya_conformance.trial import Trial
from kakeya_ref.errors import Malformed
from kakeya_ref.layout import page_layout, residual_width
from kakeya_ref.registry import resolved
from kakeya_ref.types import PageLayout

SAMPLE = 2**14
# (widths of the residual that a recipe drives exactly, head dims that hold them)
ONE_BLOCK = (("rank=16", "rank=64"), (64, 80, 96, 128))
TWO_BLOCKS = (("rank=80",), (80, 96, 128))


def _layout(
    t: Trial, ranks: tuple[str, ...], dims: tuple[int, ...], more: tuple[str, ...]
) -> PageLayout:
    """A drawn layout of ``turbo`` with one of these ranks and one of these parameters."""
    text = f"turbo:{t.draw(st.sampled_from(ranks), 'rank')}"
    return t.draw_layout(dims, f"{text},{t.draw(st.sampled_from(more), 'parameters')}")


@check(
    rules=["skeleton.place.largest"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=["skeleton"],
)
def check_skeleton__keeps_the_largest(t: Trial) -> None:
    """The residual numbers of largest magnitude are kept; of equal ones, the first."""
    layout = t.draw_layout()
    x, known = t.draw_input(layout, ["whole_numbers", "sparse"], ["axes", "transparent"])
    t.agree_encode(x, layout, known)


@check(rules=["turbo.out.largest"], level="bits", needs={"encode"}, over="drawn", codecs=["turbo"])
def check_turbo__takes_out_the_largest(t: Trial) -> None:
    """The largest numbers of the page become outliers; of equal ones, the first."""
    layout = _layout(t, *ONE_BLOCK, ("out=8", "out=72", "b=2,store=bf16,out=200", "k=1,out=256"))
    recipes = ["residual_integers", "whole_numbers", "sparse"]
    x, known = t.draw_input(layout, recipes, ["transparent", "axes"])
    t.agree_encode(x, layout, known)


@check(
    rules=["turbo.code.boundary", "turbo.levels.midpoint", "scale.byte.reciprocal"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=["turbo"],
)
def check_turbo__ties_go_to_the_lower_code(t: Trial) -> None:
    """On a threshold, of the table of N(0, 1) or half-way between own levels, the lower code."""
    more = ("b=2", "b=3", "b=4", "b=4,levels=own", "b=3,levels=own,store=bf16", "b=1,levels=own")
    layout = _layout(t, *TWO_BLOCKS, more)
    x, known = t.draw_input(layout, ["residual_thresholds"], ["transparent"])
    t.agree_encode(x, layout, known)


@check(
    rules=["turbo.residual.gain", "scale.byte.midpoint"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=["turbo"],
)
def check_turbo__gain_midpoints_go_to_the_lower_byte(t: Trial) -> None:
    """A gain of the residual on a midpoint of the grid takes the lower byte."""
    layout = _layout(t, *ONE_BLOCK, ("b=1", "b=3,out=8", "levels=own"))
    x, known = t.draw_input(layout, ["residual_midpoints"], ["transparent"])
    t.agree_encode(x, layout, known)


@check(
    rules=["turbo.residual.gain", "num.sum.halving"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=["turbo"],
)
def check_turbo__gain_sums_by_halving(t: Trial) -> None:
    """Where the order of the sum decides the scale byte of the residual, it is by halving."""
    layout = _layout(t, *TWO_BLOCKS, ("b=1", "b=3,out=8"))
    x, known = t.draw_input(layout, ["residual_sums"], ["transparent"])
    t.agree_encode(x, layout, known)


@check(
    rules=["turbo.residual.gain", "turbo.decode.product"],
    level="quality",
    needs={"encode", "decode"},
    codecs=["turbo"],
)
def check_turbo__gain_travels_in_the_bytes(t: Trial) -> None:
    """A residual of any size comes back at that size: its gain is stored, and it is used."""
    codec = t.layout.codec
    width = residual_width(codec)
    if codec.integer("rank") < 16:
        raise NotApplicable("too few numbers of a token for a figure")
    known = given("transparent", t.seed, 1, t.layout)
    rng, n = t.rng(), max(1, SAMPLE // (t.layout.tokens * width))
    x = np.zeros((n, t.layout.tokens, t.layout.head_dim), dtype=np.float32)
    rest = rng.standard_normal((*x.shape[:2], codec.integer("rank")))
    x[..., : rest.shape[2]] = rest * np.exp2(rng.integers(-9, 12, (*x.shape[:2], 1)))
    off = t.decode(t.encode(x, tables=known), tables=known).astype(np.float64) - x
    share = (off**2).sum(axis=-1) / (x.astype(np.float64) ** 2).sum(axis=-1)
    allowed = levels.PER_BIT_HIGH * levels.LLOYD_MAX[codec.integer("b") - 1]
    within(float(share.mean()), 0.0, allowed, f"{t.layout}: share of the residual that is lost")


@check(
    rules=["scale.byte.zero", "turbo.decode.product"],
    level="bits",
    needs={"decode"},
    codecs=["turbo"],
)
def check_turbo__gain_zero_leaves_the_centre(t: Trial) -> None:
    """Under scale byte 0 neither codes nor outliers change anything."""
    fields = pages.random_fields(t.layout, 2, t.rng())
    fields["scales"] = np.zeros_like(fields["scales"])
    other = pages.random_fields(t.layout, 2, t.rng("others"))
    mixed = {
        k: other[k] if k in ("codes", "outvalue", "outplace") else v for k, v in fields.items()
    }
    one, two = (t.decode(pages.build(t.layout, some)) for some in (fields, mixed))
    same_floats(two, one, t.layout)


@check(rules=["turbo.decode.product"], level="bits", needs={"decode"}, codecs=["turbo"])
def check_turbo__outliers_stand_at_their_places(t: Trial) -> None:
    """An outlier changes the token that its place says, and no other, whatever its code is."""
    layout = t.layout
    if not layout.codec.integer("out"):
        raise NotApplicable("this layout has no outliers")
    fields = pages.random_fields(layout, 2, t.rng())
    one = np.uint64(0x3C00 if layout.codec["store"] == "f16" else 0x3F80)
    fields["proj"], fields["scales"] = (
        np.zeros_like(fields["proj"]),
        np.full_like(fields["scales"], 128),
    )
    fields["outvalue"] = np.full_like(fields["outvalue"], one)
    plain = t.decode(pages.build(layout, fields))
    place = fields["outplace"].astype(np.int64)
    for at in (0, place.shape[1] // 2, place.shape[1] - 1):
        changed = fields["outvalue"].copy()
        changed[1, at] ^= np.uint64(0x8000)
        got = t.decode(pages.build(layout, fields | {"outvalue": changed}))
        moved = np.argwhere((got != plain).any(axis=-1)).tolist()
        token = int(place[1, at]) // residual_width(layout.codec)
        want(moved == [[1, token]], f"{layout}: an outlier of token {token} moved {moved}")
    hidden = fields["codes"].copy()
    np.put_along_axis(hidden, place, hidden[np.arange(2)[:, None], place] ^ np.uint64(1), axis=1)
    same_floats(t.decode(pages.build(layout, fields | {"codes": hidden})), plain, layout)


@check(rules=["turbo.residual.padded"], level="bits", needs={"encode", "decode"}, codecs=["turbo"])
def check_turbo__pads_the_residual_with_zeros(t: Trial) -> None:
    """A rank is read and written as the next multiple of 8 with components that are all zero."""
    layout, rank = t.layout, t.layout.codec.integer("rank")
    width = residual_width(layout.codec)
    wide = page_layout(resolved(layout.codec, rank=width), layout.head_dim, layout.tokens)
    answer = t.backend.supports(wide)
    if width == rank or not answer.ok or "encode" not in answer.features:
        raise NotApplicable("no padding, or no layout to compare with")
    known = given("plausible", t.seed, 1, layout)
    part, _ = next(numbers_of(known, layout, 1))
    more = {
        "basis": np.pad(part.basis, ((0, width - rank), (0, 0))),
        "centres": np.pad(part.centres, ((0, 0), (0, width - rank))),
    }
    padded = build(wide, [vars(part) | more])
    x = t.some(n=3)
    body = t.encode(x, tables=known)
    same_bytes(t.encode(x, wide, padded), body, layout)
    t.agree_vectors(t.decode(body, wide, tables=padded), t.decode(body, tables=known))


@check(
    rules=["skeleton.place.ascending", "turbo.out.ascending"],
    level="bits",
    needs={"decode"},
    codecs=["skeleton", "turbo"],
)
def check_place__must_ascend(t: Trial) -> None:
    """Places that repeat, descend or lie outside are Malformed; the first and the last are read."""
    layout = t.layout
    if not pages.lists(layout):
        raise NotApplicable("this layout lists no places")
    (name, (each, below)) = next(iter(pages.lists(layout).items()))
    rule = f"{layout.codec.id}.{'place' if name == 'place' else 'out'}.ascending"
    fields = pages.random_fields(layout, 2, t.rng())
    rows = fields[name].reshape(2, -1, each)
    ends: list[NDArray[np.int64]] = [np.arange(each), np.arange(below - each, below)]
    for end in ends:
        legal = np.broadcast_to(end.astype(np.uint64), rows.shape).reshape(2, -1)
        t.agree_decode(pages.build(layout, fields | {name: legal}))
    for row in (0, rows.shape[1] - 1):
        for at in range(each - 1):
            for pair in (rows[1, row, at : at + 2][::-1], rows[1, row, [at, at]]):
                wrong = rows.copy()
                wrong[1, row, at : at + 2] = pair
                with refuses(Malformed, rule):
                    t.decode(pages.build(layout, fields | {name: wrong.reshape(2, -1)}))
