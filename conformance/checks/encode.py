"""Writing: vectors in, the right bytes out, or a named refusal."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance import pages, strategies
from kakeya_conformance.boundaries import EXACT_DIMS, PAIRED_DIMS, SINGLE_DIMS
from kakeya_conformance.compare import refuses, same_bytes, want
from kakeya_conformance.model import check
from kakeya_conformance.oracle import GAINED
from kakeya_conformance.tables import doubled, needed
from kakeya_conformance.trial import Trial
from kakeya_ref.errors import RangeError, ShapeError
from kakeya_ref.skeletons import table_store

# Places count from zero up whatever the numbers; an outlier keeps the sign of its zero.
LISTED = ("place", "outplace", "outvalue")
ENCODE_RULES = [
    "backend.profile.exact",
    "backend.profile.bounded",
    "num.fp32.no-fma",
    "scale.rms",
    "scale.byte.reciprocal",
    "raw.encode.nearest",
    "fp8.scale.up",
    "int.group.axis",
    "int.step.rounded",
    "scalar.table.lloyd-max",
    "d4.step.table",
    "e8.step.table",
    "skeleton.encode.project",
    "turbo.encode.project",
]


@check(rules=ENCODE_RULES, level="bits", needs={"encode"}, over="drawn")
def check_encode__agrees_with_reference(t: Trial) -> None:
    """Any layout, any vectors: the reference's bytes, or its refusal."""
    layout = t.draw_layout()
    x, tables = t.draw_input(layout)
    t.agree_encode(x, layout, tables)


@check(
    rules=["scalar.code.boundary", "scale.byte.reciprocal"],
    level="tie",
    needs={"encode"},
    over="drawn",
    codecs=["scalar"],
)
def check_scalar__ties_go_to_the_lower_code(t: Trial) -> None:
    """On a Lloyd-Max threshold the lower code is taken."""
    layout = t.draw_layout(PAIRED_DIMS)
    x, _ = t.draw_input(layout, ["scalar_thresholds"])
    t.agree_encode(x, layout)


@check(
    rules=["scale.byte.midpoint"],
    level="tie",
    needs={"encode"},
    over="drawn",
    codecs=["scalar", "d4", "e8", "trellis"],
)
def check_scale__midpoints_go_to_the_lower_byte(t: Trial) -> None:
    """A gain on a midpoint of the grid takes the lower byte; one ulp above, the upper one."""
    layout = t.draw_layout(SINGLE_DIMS)
    x, _ = t.draw_input(layout, ["gain_midpoints_exact"])
    t.agree_encode(x, layout)


@check(
    rules=["num.sum.halving", "scale.rms"],
    level="tie",
    needs={"encode"},
    over="drawn",
    codecs=["scalar", "d4", "e8", "trellis"],
)
def check_scale__sums_by_halving(t: Trial) -> None:
    """Where the order of the sum decides the scale byte, it is the halving order."""
    layout = t.draw_layout(PAIRED_DIMS)
    x, _ = t.draw_input(layout, ["gain_sum_edges"])
    t.agree_encode(x, layout)


@check(
    rules=[
        "d4.nearest.tie",
        "e8.nearest.tie",
        "d4.nearest.inside",
        "e8.nearest.inside",
        "e8.coset.tie",
        "scale.byte.reciprocal",
        "num.round.half-even",
    ],
    level="tie",
    needs={"encode"},
    over="drawn",
    codecs=["d4", "e8"],
)
def check_lattice__ties_follow_the_rules(t: Trial) -> None:
    """Equal errors, half-way coordinates and equally near cosets are settled by rule."""
    layout = t.draw_layout((*PAIRED_DIMS, *EXACT_DIMS))
    for recipe in ("lattice_halves", "small_integers"):
        if recipe == "small_integers" or layout.head_dim in PAIRED_DIMS:
            x, _ = t.draw_input(layout, [recipe])
            t.agree_encode(x, layout)


@check(
    rules=[
        "num.round.half-even",
        "raw.encode.nearest",
        "int.code.clamp",
        "fp8.code.round",
        "fp8.scale.up",
    ],
    level="tie",
    needs={"encode"},
    over="drawn",
    codecs=["raw", "fp8", "int"],
)
def check_rounding__halves_go_to_even(t: Trial) -> None:
    """Half-way values round to the even neighbour."""
    codec = t.draw(strategies.rounding_codecs(t.codec_id), "codec")
    layout = t.draw_layout((8, 24, 64, 96), codec)
    recipes = ["raw_halves", "fp8_halves", "fp8_scale_edges", "int_halves"]
    x, _ = t.draw_input(layout, recipes)
    t.agree_encode(x, layout)


@check(rules=["num.subnormal.kept"], level="bits", needs={"encode"})
def check_encode__keeps_subnormals(t: Trial) -> None:
    """Subnormal inputs are treated as the numbers they are, beside a table of zeros too."""
    for recipe in ("subnormal", "half_subnormal", "tiniest"):
        t.agree_encode(t.some(recipe))
        t.agree_encode(t.some(recipe), tables=t.tables("transparent"))


@check(
    rules=["num.subnormal.kept", "raw.range"],
    level="bits",
    needs={"encode", "decode"},
    codecs=["raw"],
)
def check_raw__returns_what_it_can_hold(t: Trial) -> None:
    """Values that the stored type holds, subnormals and -0 included, come back to the bit."""
    kept = t.decode(t.reference_pages(t.some("subnormal")))
    again = t.decode(t.encode(kept))
    want(
        np.array_equal(again.view(np.uint32), kept.view(np.uint32)),
        f"{t.layout}: a representable value changed",
    )
    want(bool((kept != 0).any()), f"{t.layout}: every subnormal was flushed to zero")


@check(rules=["num.input.widen"], level="bits", needs={"encode"})
def check_encode__widens_float16(t: Trial) -> None:
    """float16 vectors give the bytes of the same numbers in float32, subnormals included."""
    for recipe in ("gaussian", "half_subnormal"):
        narrow = t.some(recipe).astype(np.float16)
        same_bytes(t.encode(narrow), t.encode(narrow.astype(np.float32)), t.layout)


@check(rules=["scale.byte.zero", "int.lo.positive-zero"], level="bits", needs={"encode"})
def check_encode__zero_vectors(t: Trial) -> None:
    """Vectors of +0 and of -0 encode as the reference's; where zero has no sign, to zero bytes.

    With a table: zero bytes only beside a mean of zero, and but for the lists of places.
    """
    shape = (1, t.layout.tokens, t.layout.head_dim)
    plus, minus = np.zeros(shape, np.float32), np.full(shape, -0.0, np.float32)
    t.agree_encode(plus)
    t.agree_encode(minus)
    if t.layout.codec.id == "raw":
        return
    tables = t.tables("transparent")
    for x, what in ((plus, "zero"), (minus, "-0")):
        body = t.encode(x, tables=tables)
        coded = {k: v for k, v in pages.read(t.layout, body).items() if k not in LISTED}
        want(not any(v.any() for v in coded.values()), f"{t.layout}: {what} is not zero bytes")
        want(not t.decode(body, tables=tables).any(), f"{t.layout}: {what} decodes to a number")


@check(rules=["num.input.finite", "backend.error.family"], level="bits", needs={"encode"})
def check_encode__refuses_nan_and_infinity(t: Trial) -> None:
    """One NaN or infinity anywhere is refused by rule, float16 included."""
    p, d = t.layout.tokens, t.layout.head_dim
    for where in ((0, 0, 0), (1, p - 1, d - 1), (1, p // 2, d // 2)):
        for value in (np.nan, -np.nan, np.inf, -np.inf):
            for dtype in (np.float32, np.float16):
                x = t.some().astype(dtype)
                x[where] = value
                with refuses(RangeError, "num.input.finite"):
                    t.encode(x)


@check(rules=["backend.error.atomic"], level="bits", needs={"encode"})
def check_encode__stays_whole_after_a_refusal(t: Trial) -> None:
    """A refused call leaves nothing behind: the next one is as if it had not been."""
    good = t.some()
    before = t.encode(good).copy()
    bad = good.copy()
    bad[-1, -1, -1] = np.nan
    with refuses(RangeError, "num.input.finite"):
        t.encode(bad)
    same_bytes(t.encode(good), before, t.layout)


@check(rules=["page.shape.exact", "num.input.widen"], level="bits", needs={"encode"})
def check_encode__refuses_other_arrays(t: Trial) -> None:
    """Wrong shapes are ShapeError [page.shape.exact], wrong dtypes ShapeError [num.input.widen]."""
    x = t.some()
    odd = (x[0], x[:, :-1], x[:, :, :-8], x[..., None], x.reshape(-1))
    for wrong in odd:
        with refuses(ShapeError, "page.shape.exact"):
            t.encode(wrong)
    for dtype in (np.float64, np.int32, np.uint8, bool):
        with refuses(ShapeError, "num.input.widen"):
            t.encode(x.astype(dtype))


@check(
    rules=[
        "scale.byte.range",
        "raw.range",
        "int.range.f16",
        "fp8.scale.up",
        "skeleton.value.range",
        "turbo.value.range",
    ],
    level="bits",
    needs={"encode"},
)
def check_encode__refuses_what_is_too_large(t: Trial) -> None:
    """The largest vectors are encoded; the next power of two is refused by the codec's rule."""
    tried = 0
    x = t.some(n=1)
    for power in range(8, 127):
        with np.errstate(over="ignore"):
            big = x * np.float32(2.0**power)
        if not np.isfinite(big).all():
            break
        t.agree_encode(big)
        tried += 1
    want(tried > 0, "nothing was tried")
    # bf16 reaches as far as the input: nothing that skeleton stores of it can be too large.
    narrow = t.layout.codec.id in ("skeleton", "turbo") and t.layout.codec["store"] == "f16"
    if t.layout.codec.id in GAINED or narrow:
        for value in (np.float32(3e38), np.float32(-3e38)):
            full = np.full((1, t.layout.tokens, t.layout.head_dim), value, dtype=np.float32)
            full[..., ::3] *= np.float32(-1)  # sums reach inf - inf
            by = f"{t.layout.codec.id}.value.range" if narrow else "scale.byte.range"
            with refuses(RangeError, by, "fp8.scale.up"):
                t.encode(full)


@check(
    rules=[
        "scale.byte.grid",
        "scale.rms",
        "hadamard.scale.once",
        "fp8.scale.up",
        "skeleton.decode.sum",
        "turbo.residual.gain",
    ],
    level="bits",
    needs={"encode", "decode"},
)
def check_encode__doubling_doubles(t: Trial) -> None:
    """Twice the input decodes to exactly twice the output; only scale bytes change, by eight.

    With a table: twice the input beside twice the mean, and stored lengths double as well.
    """
    x = t.some()
    tables = t.tables()
    twice = doubled(tables, t.layout)
    one, two = t.encode(x, tables=tables), t.encode(x * np.float32(2), tables=twice)
    if t.exact:
        a, b = t.decode(one, tables=tables), t.decode(two, tables=twice)
        same = (a * np.float32(2)).view(np.uint32) == b.view(np.uint32)
        normal = _stored_as_normal_numbers(t, one)[..., None]
        want(
            (same | ~normal).all() and normal.any(),
            f"{t.layout}: decoding twice the input is not twice the output",
        )
    if t.layout.codec.id not in GAINED:
        return
    scales = t.layout.plane("scales")
    up = one.copy()
    up[:, scales.offset : scales.offset + scales.nbytes] += np.uint8(8)
    if t.exact:
        same_bytes(two, up, t.layout)
    else:
        share = float((two != up).mean())
        want(share < np.float64(1) / t.layout.head_dim, f"{t.layout}: {share:.2%} bytes moved")


@check(
    rules=["signs.seed.zero", "signs.splitmix64.top-bit"],
    level="bits",
    needs={"encode"},
    over="drawn",
    codecs=["scalar", "d4", "e8", "trellis", "turbo"],
)
def check_signs__seeds_over_the_whole_range(t: Trial) -> None:
    """Any seed of 32 bits gives the reference's signs; seed 0 gives none."""
    name = {"scalar": "b=2", "trellis": "b=2", "turbo": "b=2,rank=8"}.get(t.codec_id, "q=5")
    seed = t.draw(strategies.sign_seeds(), "seed")
    layout = t.draw_layout((8, 96, 128, 320), f"{t.codec_id}:{name},seed={seed}")
    x, tables = t.draw_input(layout, ["gaussian"], ["plausible"])
    t.agree_encode(x, layout, tables)


@check(rules=["encode.input.untouched"], level="bits", needs={"encode", "decode"})
def check_encode__leaves_its_input_alone(t: Trial) -> None:
    """Neither vectors nor pages are written to, and read-only arrays are taken.

    Tables are read-only in every check.
    """
    x = t.some("outliers")
    before = x.tobytes()
    body = t.encode(x)
    want(x.tobytes() == before, f"{t.layout}: encode changed its input")
    kept = body.copy()
    t.decode(kept)
    want(np.array_equal(kept, body), f"{t.layout}: decode changed its input")
    x.setflags(write=False)
    kept.setflags(write=False)
    same_bytes(t.encode(x), kept, t.layout)
    t.agree_vectors(t.decode(kept), t.decode(body))


def _stored_as_normal_numbers(t: Trial, body: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """(N, P): tokens without a subnormal length, which would not round as its double does."""
    shape, fields = (len(body), t.layout.tokens), pages.read(t.layout, body)
    normal = np.ones(shape, dtype=bool)
    if not needed(t.layout):
        return normal
    least = 0x400 if table_store(t.layout.codec) == "f16" else 0x80
    for name in {"along", "proj", "value"} & set(fields):
        bits = (fields[name] & np.uint64(0x7FFF)).reshape(*shape, -1)
        normal &= ((bits == 0) | (bits >= least)).all(axis=-1)
    if "scales" in fields:
        normal &= fields["scales"] > 0
    return normal
