"""Claims that need no reference: what a rotation, a gain and a quantiser must do to be right."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance import levels, pages, strategies
from kakeya_conformance.compare import near_floats, want, within
from kakeya_conformance.layouts import announced
from kakeya_conformance.model import NotApplicable, check
from kakeya_conformance.oracle import ideal_coefficients, ideal_vectors
from kakeya_conformance.trial import Trial
from kakeya_ref.layout import page_layout
from kakeya_ref.tables import gain_grid, lattice_step
from kakeya_ref.types import PageLayout

ROTATION_RULES = [
    "hadamard.scale.once",
    "hadamard.order.strides",
    "hadamard.blocks.largest-first",
    "signs.splitmix64.top-bit",
    "signs.seed.zero",
    "rotation.order.forward",
    "rotation.order.inverse",
]
SAMPLE = 2**16


@check(
    rules=ROTATION_RULES,
    level="norm",
    needs={"decode"},
    over="drawn",
    codecs=["scalar", "d4", "e8", "trellis"],
)
def check_rotation__is_the_orthonormal_one(t: Trial) -> None:
    """Vectors are the float64 Hadamard of the coefficients: no lost, doubled or foreign scale."""
    layout = t.draw_layout()
    n = t.draw(strategies.page_counts(layout), "pages")
    rng = np.random.default_rng(t.draw(strategies.seeds(), "fields"))
    body = pages.build(layout, pages.random_fields(layout, n, rng))
    coefficients = t.decode(body, layout, "coefficients")
    near_floats(t.decode(body, layout), ideal_vectors(coefficients, layout), layout)


@check(
    rules=["scalar.table.lloyd-max", *ROTATION_RULES],
    level="quality",
    needs={"encode"},
    over="backend",
    codecs=["scalar"],
)
def check_scalar__error_falls_fourfold_per_bit(t: Trial) -> None:
    """On Gaussian data the error of b bits is the Lloyd-Max optimum, within its band."""
    measured = []
    for b in range(1, 9):
        error = gaussian_error(t, f"scalar:b={b}")
        within(error, *_band(b), f"mean squared error at {b} bits")
        measured.append(error)
    want(measured == sorted(measured, reverse=True), f"more bits, more error: {measured}")


@check(
    rules=["turbo.residual.gain", "turbo.code.boundary", "turbo.decode.product", *ROTATION_RULES],
    level="quality",
    needs={"encode"},
    over="backend",
    codecs=["turbo"],
)
def check_turbo__error_falls_fourfold_per_bit(t: Trial) -> None:
    """At full rank and on Gaussian data the error of b bits is that of scalar, within its band."""
    measured = []
    for b in range(1, 5):
        error = gaussian_error(t, f"turbo:b={b},k=1,rank=128", "centred")
        within(error, *_band(b), f"mean squared error at {b} bits")
        measured.append(error)
    want(measured == sorted(measured, reverse=True), f"more bits, more error: {measured}")


@check(
    rules=["int.decode.affine", "int.code.clamp"],
    level="quality",
    needs={"encode"},
    over="backend",
    codecs=["int"],
)
def check_int__error_falls_per_bit(t: Trial) -> None:
    """One more bit divides the error of uniform integers by the ratio of their steps, squared."""
    errors = [gaussian_error(t, f"int:b={b},g=32") for b in range(2, 9)]
    for b, (coarse, fine) in enumerate(itertools.pairwise(errors), start=2):
        ideal = ((2 ** (b + 1) - 1) / (2**b - 1)) ** 2
        within(
            coarse / fine,
            ideal * (1 - levels.INT_BAND),
            ideal * (1 + levels.INT_BAND),
            f"error at {b} over error at {b + 1} bits",
        )


@check(
    rules=["e8.step.table", "e8.nearest.inside", "d4.step.table", "d4.nearest.inside"],
    level="quality",
    needs={"encode"},
    over="backend",
    codecs=["d4", "e8"],
)
def check_lattice__error_falls_with_q(t: Trial) -> None:
    """Doubling q divides the error by a factor within its band, for both lattices."""
    for codec_id in {"d4", "e8"} & set(announced(t.backend)):
        errors = [gaussian_error(t, f"{codec_id}:q={q}") for q in (3, 6, 12, 24, 48, 96)]
        for coarse, fine in itertools.pairwise(errors):
            within(coarse / fine, levels.PER_Q_LOW, levels.PER_Q_HIGH, f"{codec_id}: ratio per 2q")


@check(
    rules=["scale.byte.grid", *ROTATION_RULES],
    level="quality",
    needs={"encode", "decode"},
    over="drawn",
    codecs=["scalar"],
)
def check_scalar__eight_bits_are_close(t: Trial) -> None:
    """At 8 bits every vector comes back within a few per cent, at any head dim and magnitude."""
    layout = t.draw_layout(codec="scalar:b=8")
    rng = np.random.default_rng(t.draw(strategies.seeds(), "x"))
    shape = (2, layout.tokens, layout.head_dim)
    power = np.exp2(rng.integers(-12, 12, (*shape[:2], 1)))
    x = (rng.standard_normal(shape) * power).astype(np.float32)
    off = np.linalg.norm(t.decode(t.encode(x, layout), layout) - x, axis=-1)
    relative = float((off / np.linalg.norm(x, axis=-1)).max())
    within(relative, 0.0, levels.REL8, f"{layout}: worst relative error")


@check(
    rules=["e8.nearest.inside", "d4.nearest.inside", "e8.index.bijective", "d4.index.bijective"],
    level="bits",
    needs={"decode"},
    codecs=["d4", "e8"],
)
def check_lattice__every_index_is_a_point(t: Trial) -> None:
    """Indices decode to distinct lattice points inside the cube; for small sets, to all of them."""
    layout, q = t.layout, t.layout.codec.integer("q")
    count = pages.valid_count(layout)["index"]
    per_page, _ = pages.field_names(layout)["index"]
    n = max(1, min(-(-count // per_page), -(-4096 // per_page)))
    total = n * per_page
    if total >= count:
        index = np.arange(total, dtype=np.uint64) % np.uint64(count)
    else:
        index = np.unique(t.rng().integers(0, count, 2 * total, dtype=np.uint64))[:total]
        index[:2], index[-1] = (0, 1), count - 1
    fields = pages.random_fields(layout, n, t.rng())
    fields["index"] = index.reshape(n, per_page)
    fields["scales"] = np.full_like(fields["scales"], 128)
    points = _points(t.decode(pages.build(layout, fields), basis="coefficients"), layout)
    twice = np.round(2 * points)
    off = float(np.abs(2 * points - twice).max())
    want(off < levels.TIE, f"{layout}: coordinates are not multiples of a half")
    parity = twice % 2
    want((parity == parity[:, :1]).all(), f"{layout}: whole and half coordinates in one block")
    want(not (twice.sum(axis=1) % 4).any(), f"{layout}: an odd sum is not in the lattice")
    want(np.abs(twice).max() <= 2 * q, f"{layout}: a point outside the cube")
    distinct = len(np.unique(twice, axis=0))
    expected = len(np.unique(index))
    want(distinct == expected, f"{layout}: {expected} indices gave {distinct} points")


@check(
    rules=["e8.nearest.inside", "d4.nearest.inside", "e8.coset.tie"],
    level="tie",
    needs={"encode"},
    codecs=["d4", "e8"],
)
def check_lattice__takes_the_nearest_point(t: Trial) -> None:
    """No neighbour of the chosen point that lies inside the cube is nearer to the input."""
    layout, q = t.layout, t.layout.codec.integer("q")
    x = t.some("outliers")
    body = t.encode(x)
    coefficients = t.oracle.decode(np.ascontiguousarray(body), layout, "coefficients")
    if not isinstance(coefficients, np.ndarray):
        raise NotApplicable(str(coefficients))
    scales = layout.plane("scales")
    byte = body[:, scales.offset : scales.offset + scales.nbytes]
    step = gain_grid()[byte].astype(np.float64) * float(lattice_step(layout.codec.id, q)[0])
    step = np.where(step == 0, 1.0, step)[..., None]
    block = 4 if layout.codec.id == "d4" else 8
    z = (ideal_coefficients(x, layout) / step).reshape(-1, block)
    chosen = np.round(2 * (coefficients.astype(np.float64) / step)).reshape(-1, block) / 2
    ours = ((z - chosen) ** 2).sum(axis=1)
    for move in _roots(block):
        other = chosen + move
        inside = np.abs(other).max(axis=1) <= q
        theirs = ((z - other) ** 2).sum(axis=1)
        # Outliers sit far outside the cube, where distances are large: the allowance is relative.
        nearer = inside & (theirs < ours - levels.TIE * (1 + ours))
        want(not nearer.any(), f"{layout}: a nearer point exists for {int(nearer.sum())} blocks")


def _band(b: int) -> tuple[float, float]:
    """Where the mean squared error of ``b`` bits may lie. Rule: num.level.per-bit"""
    optimum = levels.LLOYD_MAX[b - 1]
    return levels.PER_BIT_LOW * optimum, levels.PER_BIT_HIGH * optimum


def gaussian_error(t: Trial, codec: str, table: str = "plausible") -> float:
    """Mean squared error of 2^16 Gaussian numbers at head dim 128, whatever the page size."""
    x, back = gaussian_numbers(t, codec, table)
    return float(np.mean((back - x) ** 2))


def gaussian_numbers(
    t: Trial, codec: str, table: str = "plausible"
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """2^16 Gaussian numbers at head dim 128, whatever the page size, and what comes back."""
    for tokens in (64, 32, 16):
        layout = page_layout(codec, 128, tokens)
        answer = t.backend.supports(layout)
        if answer.ok and "encode" in answer.features:
            x = t.some("gaussian", SAMPLE // (tokens * 128), layout)
            known = t.tables(table, layout=layout)
            body = t.encode(x, layout, known)
            back = t.decode(body, layout, tables=known)
            return x.astype(np.float64), back.astype(np.float64)
    raise NotApplicable(f"{codec} is not offered at head dim 128")


def _points(coefficients: NDArray[np.float32], layout: PageLayout) -> NDArray[np.float64]:
    block = 4 if layout.codec.id == "d4" else 8
    kappa, _ = lattice_step(layout.codec.id, layout.codec.integer("q"))
    return coefficients.astype(np.float64).reshape(-1, block) / float(kappa)


def _roots(block: int) -> NDArray[np.float64]:
    """Minimal vectors of D4 (24) or E8 (240): the neighbours that bound a Voronoi cell."""
    found = []
    for i in range(block):
        for j in range(i):
            for a in (1.0, -1.0):
                for b in (1.0, -1.0):
                    root = np.zeros(block)
                    root[i], root[j] = a, b
                    found.append(root)
    if block == 8:
        for bits in range(256):
            signs = np.array([-0.5 if bits >> k & 1 else 0.5 for k in range(8)])
            if bin(bits).count("1") % 2 == 0:
                found.append(signs)
    return np.array(found)
