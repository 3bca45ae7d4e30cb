"""Fits of skeleton and turbo: judged by what they promise, through the bytes of pages."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from kakeya_ref import (
    RangeError,
    ReferenceBackend,
    ShapeError,
    UsageError,
    fitting,
    page_layout,
    parse_codec,
)
from kakeya_ref.fitting import Fit, fit, for_page, spherical_centres
from kakeya_ref.skeletons import parts, table_body

P, D = 256, 32
BOTH = ["skeleton", "turbo"]


def gaussian(seed: int, rows: int = P, d: int = D, decay: float = 1.0) -> np.ndarray:
    """Rows whose components have standard deviations 1, decay, decay^2, …, in a random basis."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.standard_normal((d, d)))
    x = rng.standard_normal((rows, d)) * decay ** np.arange(d) @ turn
    return (x + rng.standard_normal(d)).astype(np.float32)


def decoded(fitted: Fit, x: np.ndarray) -> np.ndarray:
    """The block through its own page and table, and through nothing else."""
    layout, ref = page_layout(for_page(fitted, x, 0), x.shape[1], len(x)), ReferenceBackend()
    pages = ref.encode(x[None], layout, tables=fitted.tables)
    # A decoder has the bodies alone.
    return ref.decode(pages, layout, tables=type(fitted.tables)(fitted.tables.bodies))[0]


def error(codec: str, x: np.ndarray) -> float:
    return float(((decoded(fit(x, parse_codec(codec)), x) - x) ** 2).sum())


def test_error_falls_about_fourfold_with_every_bit_of_turbo() -> None:
    """A scale of the wrong size, or a gain lost in decoding, would stop the fall."""
    x = gaussian(1)
    found = [error(f"turbo:b={b},k=1,vr=100", x) for b in (1, 2, 3, 4)]
    falls = [a / b for a, b in pairwise(found)]
    # Lloyd-Max on N(0, 1): 3.1, 3.4, 3.6; the gain grid blurs them by some per cent.
    assert all(2.7 < fall < 4.2 for fall in falls), falls


def test_error_of_skeleton_falls_with_every_number_kept() -> None:
    x = gaussian(2)
    found = [error(f"skeleton:res={n},time=none,vr=100", x) for n in (1, 4, 16, 32)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 1e-5 * (x**2).sum(), "all kept: nothing but rounding is lost"


@pytest.mark.parametrize("codec", [*BOTH, "turbo:b=2,levels=own", "turbo:b=2,pca=random"])
def test_twice_the_input_gives_twice_the_output(codec: str) -> None:
    x = gaussian(3, decay=0.9)
    once, twice = (decoded(fit(v, parse_codec(codec)), v) for v in (x, 2 * x))
    np.testing.assert_allclose(twice, 2 * once, rtol=0, atol=2e-3)


@pytest.mark.parametrize("codec", BOTH)
@pytest.mark.parametrize("vr", [50, 90, 99])
def test_rank_is_the_smallest_that_holds_the_share(codec: str, vr: int) -> None:
    """Rule: codec.fit.variance"""
    x = gaussian(4, decay=0.85)
    fitted = fit(x, parse_codec(f"{codec}:vr={vr}"))
    energy = np.linalg.svd(x - x.mean(axis=0, dtype=np.float64), compute_uv=False) ** 2
    share, rank = np.cumsum(energy) / energy.sum(), fitted.codec.integer("rank")
    assert share[rank - 1] >= vr / 100 > (share[rank - 2] if rank > 1 else 0)
    assert fitted.captured == pytest.approx(share[rank - 1])
    assert "vr" not in str(fitted.codec), "a resolved codec says nothing that steered the fit"


def test_a_sketch_that_misses_variance_says_so() -> None:
    """Rule: codec.fit.variance

    Half the directions of white noise hold little more than half its variance; measured against
    the sketch alone they would hold all of it.
    """
    x = gaussian(5, rows=1024, d=64)
    fitted = fit(x, parse_codec("turbo:pca=random,vr=95"))
    assert fitted.codec.integer("rank") == 32
    basis = parts(fitted.tables.bodies[0], fitted.codec, 64).basis.astype(np.float64)
    centred = x - x.mean(axis=0, dtype=np.float64)
    held = ((centred @ basis.T) ** 2).sum() / (centred**2).sum()
    assert fitted.captured == pytest.approx(held, rel=1e-3)
    assert fitted.captured < 0.7


def test_a_sketch_finds_what_is_there_to_find() -> None:
    x = gaussian(6, rows=512, d=64, decay=0.8)
    exact, sketch = (fit(x, parse_codec(f"turbo:pca={p}")) for p in ("exact", "random"))
    assert sketch.codec.integer("rank") == exact.codec.integer("rank") < 32
    assert sketch.captured == pytest.approx(exact.captured, rel=1e-3)


def test_a_sketch_has_a_seed_and_power_steps(monkeypatch) -> None:
    """Rule: turbo.fit.random

    Variance that falls off slowly is where a sketch without power steps misses most.
    """
    x, codec = gaussian(7, rows=512, d=64, decay=0.97), parse_codec("turbo:pca=random,vr=100")
    once, again = fit(x, codec), fit(x, codec)
    assert once.tables.bodies.tobytes() == again.tables.bodies.tobytes()
    assert (fitting.SKETCH_SEED, fitting.POWER_STEPS, fitting.OVERSAMPLE) == (0x9E3779B9, 2, 8)
    held = []
    for steps in (0, 1, 2):
        monkeypatch.setattr(fitting, "POWER_STEPS", steps)
        held.append(fit(x, codec).captured)
    assert held[0] < held[1] < held[2]
    monkeypatch.setattr(fitting, "SKETCH_SEED", 1)
    other = fit(x, codec)
    assert other.tables.bodies.tobytes() != once.tables.bodies.tobytes()
    assert other.captured == pytest.approx(once.captured, rel=1e-2)
    assert once.codec.integer("rank") == 32


def test_trend_is_the_drift_and_zero_without_one() -> None:
    """Rule: skeleton.fit.trend"""
    codec, way = parse_codec("skeleton:vr=100"), np.zeros(D)
    way[3] = 1
    for seed in range(10):
        fitted = fit(gaussian(100 + seed), codec)
        still = parts(fitted.tables.bodies[0], fitted.codec, D)
        assert not still.trend.any(), "noise has no direction"
    fits = (fit(gaussian(200 + seed, decay=0.5), codec) for seed in range(40))
    found = [parts(f.tables.bodies[0], f.codec, D).trend.any() for f in fits]
    assert sum(found) <= 3, "one direction that holds most of the noise may fool it, one in twenty"
    drifting = (gaussian(7) + np.linspace(-4, 4, P)[:, None] * way).astype(np.float32)
    fitted = fit(drifting, codec)
    moved = parts(fitted.tables.bodies[0], fitted.codec, D)
    assert abs(np.linalg.norm(moved.trend) - 1) < 1e-2
    assert abs(moved.trend @ moved.basis @ way) > 0.95


def test_centres_are_lines() -> None:
    """A vector and its opposite count the same, in the start as in the assignment."""
    rng = np.random.default_rng(8)
    lines = np.eye(12)[:4] + 0.02 * rng.standard_normal((200, 4, 12))
    c = (lines * rng.choice([-1.0, 1.0], size=(200, 4, 1))).reshape(-1, 12)
    centres = spherical_centres(c, 4)
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-9)
    assert sorted(np.abs(centres).argmax(axis=1)) == [0, 1, 2, 3], "no line is found twice"
    flipped = spherical_centres(c * rng.choice([-1.0, 1.0], size=(len(c), 1)), 4)
    np.testing.assert_allclose(np.abs((flipped * centres).sum(axis=1)), 1, atol=1e-9)


def test_centres_that_nothing_needs_are_zero() -> None:
    c = np.array([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 0]])
    centres = spherical_centres(c, 8)
    assert np.count_nonzero(centres.any(axis=1)) == 2
    assert not spherical_centres(np.zeros((5, 3)), 2).any()


@pytest.mark.parametrize("codec", ["skeleton:vr=90", "turbo:b=2,vr=90"])
def test_metric_spends_the_error_where_no_query_looks(codec: str) -> None:
    """Rule: codec.fit.metric"""
    x, rng = gaussian(9), np.random.default_rng(10)
    queries = rng.standard_normal((2000, D)) * 0.8 ** np.arange(D)
    metric = np.linalg.cholesky(queries.T @ queries / len(queries))
    seen = []
    for given in (None, metric):
        rest = decoded(fit(x, parse_codec(codec), metric=given), x) - x
        seen.append(float(((rest @ metric) ** 2).sum()))
    assert seen[1] < 0.6 * seen[0]


def test_an_identity_metric_changes_no_byte() -> None:
    """Rule: codec.fit.metric"""
    x, codec = gaussian(11, decay=0.9), parse_codec("turbo")
    plain, same = fit(x, codec), fit(x, codec, metric=np.eye(D))
    assert np.array_equal(plain.tables.bodies, same.tables.bodies)


def test_own_levels_fit_what_is_not_gaussian() -> None:
    """A single component turns into numbers of one size, beside which the levels of N(0, 1) lie."""
    rng = np.random.default_rng(12)
    x = np.zeros((P, 16), dtype=np.float32)
    at = rng.integers(16, size=P)
    x[np.arange(P), at] = rng.choice([-1.0, 1.0], size=P) * (8 + at)
    normal, own = (error(f"turbo:b=2,k=1,levels={n},seed=0,vr=100", x) for n in ("normal", "own"))
    assert own < 0.2 * normal


def test_outliers_of_a_page_follow_the_cut() -> None:
    """Rule: turbo.fit.cut"""
    x = gaussian(13)
    fitted = fit(x, parse_codec("turbo:b=1,cut=20,k=1,vr=100"))
    assert fitted.codec.integer("out") == 0, "outliers are the business of a page"
    out = for_page(fitted, x, 20).integer("out")
    # 4.6 % of Gaussian numbers lie beyond two standard deviations.
    assert out % 8 == 0
    assert 0.03 * x.size < out < 0.06 * x.size
    assert for_page(fitted, x, 0) == fitted.codec
    assert for_page(fitted, x, 99).integer("out") < 0.001 * x.size
    still = fit(x, parse_codec("skeleton"))
    assert for_page(still, x, 20) == still.codec
    layout, ref = page_layout(for_page(fitted, x, 20), D, P), ReferenceBackend()
    pages = ref.encode(x[None], layout, tables=fitted.tables)
    guarded = float(((ref.decode(pages, layout, tables=fitted.tables)[0] - x) ** 2).sum())
    assert guarded < 0.8 * error("turbo:b=1,k=1,vr=100", x)


@pytest.mark.parametrize("codec", [*BOTH, "turbo:pca=random,levels=own"])
def test_the_same_block_gives_the_same_table(codec: str) -> None:
    x = gaussian(14, decay=0.9)
    first, again = fit(x, parse_codec(codec)), fit(x.copy(), parse_codec(codec))
    assert first.codec == again.codec
    assert np.array_equal(first.tables.bodies, again.tables.bodies)


@pytest.mark.parametrize("codec", BOTH)
@pytest.mark.parametrize("value", [0.0, 1.5])
def test_a_block_that_does_not_vary_comes_back(codec: str, value: float) -> None:
    x = np.full((16, 8), value, dtype=np.float32)
    fitted = fit(x, parse_codec(codec))
    assert (fitted.codec.integer("rank"), fitted.captured) == (1, 1.0)
    assert np.array_equal(decoded(fitted, x), x)


@pytest.mark.parametrize("codec", BOTH)
def test_fewer_rows_than_numbers(codec: str) -> None:
    x = gaussian(15, rows=16, d=64)
    fitted = fit(x, parse_codec(f"{codec}:vr=100"))
    assert fitted.codec.integer("rank") < 16
    assert np.isfinite(decoded(fitted, x)).all()


def test_refusals() -> None:
    """Rule: codec.fit.resolved, codec.fit.metric, codec.table.range, num.input.finite"""
    x, turbo = gaussian(16), parse_codec("turbo")
    for text in ("scalar", "turbo:rank=8"):
        with pytest.raises(UsageError, match=r"^\[codec.fit.resolved\]"):
            fit(x, parse_codec(text))
    for bad in (x[None], x[:0]):
        with pytest.raises(ShapeError, match=r"^\[page.shape.exact\]"):
            fit(bad, turbo)
    with pytest.raises(ShapeError, match=r"^\[codec.fit.metric\]"):
        fit(x, turbo, metric=np.eye(D - 1))
    bad = x.copy()
    bad[5, 5] = np.inf
    with pytest.raises(RangeError, match=r"^\[num.input.finite\]"):
        fit(bad, turbo)
    with pytest.raises(RangeError, match=r"^\[codec.table.range\] mean"):
        fit(x + np.float32(70000), turbo)
    assert fit(x + np.float32(70000), parse_codec("turbo:store=bf16")).captured > 0.9


def test_a_table_takes_only_numbers_that_fit() -> None:
    """Rule: codec.table.range"""
    codec = parse_codec("skeleton:k=1,time=none,rank=1")
    numbers = {"mean": np.zeros(8), "basis": np.eye(1, 8), "centres": np.ones((1, 1))}
    assert table_body(codec, 8, **numbers).shape == (48,)
    with pytest.raises(RangeError, match=r"^\[codec.table.range\] centres"):
        table_body(codec, 8, **(numbers | {"centres": np.full((1, 1), 65520.0)}))
