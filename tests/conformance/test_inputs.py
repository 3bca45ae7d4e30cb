"""The suite's inputs are what they claim: ties are hit, bytes are legal, pages match the layout."""

from __future__ import annotations

import numpy as np
import pytest

from kakeya_conformance import boundaries, oracle, pages, recipes, tables
from kakeya_conformance.layouts import fixed_layouts
from kakeya_conformance.vectors import frozen_vectors, manifest_problems
from kakeya_ref import bits, rotation, scaling
from kakeya_ref import tables as spec_tables
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.layout import page_layout

LAYOUTS = fixed_layouts("standard")


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_second_writer_agrees_with_the_first(layout):
    fields = pages.random_fields(layout, 3, rng())
    built = pages.build(layout, fields)
    assert np.array_equal(built, bits.write_page(layout, fields, 3))
    read = pages.read(layout, built)
    assert all(np.array_equal(read[name], fields[name]) for name in {*read, *fields})
    beside = tables.option(tables.given("plausible", 5, 1, layout)) if tables.needed(layout) else {}
    assert np.isfinite(ReferenceBackend().decode(built, layout, **beside)).all()


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_recipes_give_finite_vectors_of_the_right_shape(layout):
    for name, recipe in recipes.recipes_for(layout).items():
        x = recipe(rng(), 2, layout)
        assert x.shape == (2, layout.tokens, layout.head_dim), name
        assert x.dtype == np.float32, name
        assert np.isfinite(x).all(), name


def coded(layout, name, n=4):
    x = boundaries.recipes_for(layout)[name](rng(), n, layout).reshape(-1, layout.head_dim)
    y = rotation.rotate(x, layout.codec.integer("seed"))
    return y, scaling.gain_byte(scaling.rms(y))


def test_thresholds_are_hit_exactly():
    layout = page_layout("scalar:b=4", 80, 16)
    y, byte = coded(layout, "scalar_thresholds")
    z = y * scaling.reciprocal_of(byte)[:, None]
    _, thresholds = spec_tables.lloyd_max(4)
    assert np.isin(z, thresholds).any(axis=1).mean() > 0.3


def test_gain_midpoints_are_hit_exactly():
    y, _ = coded(page_layout("scalar", 64, 16), "gain_midpoints_exact")
    gain = scaling.rms(y)
    assert np.isin(gain, spec_tables.gain_midpoints()).mean() > 0.2
    assert (~np.isin(gain, spec_tables.gain_midpoints())).any()


@pytest.mark.parametrize("codec", ["d4:q=1", "e8:q=2", "e8:q=10", "d4:q=38"])
def test_lattice_halves_are_hit_exactly(codec):
    layout = page_layout(codec, 80, 32)
    y, byte = coded(layout, "lattice_halves")
    _, kinv = spec_tables.lattice_step(layout.codec.id, layout.codec.integer("q"))
    z = y * (scaling.reciprocal_of(byte) * kinv)[:, None]
    last = z[:, 64:]
    quarter = (last * 4 == np.rint(last * 4)).all(axis=1) & (last != 0).any(axis=1)
    half = quarter & ((last * 2) % 2 == 1).any(axis=1)
    assert quarter.mean() > 0.3
    assert half.any()


def test_small_integers_survive_the_rotation():
    y, _ = coded(page_layout("e8", 64, 16), "small_integers")
    unit = np.abs(y).max(axis=1, keepdims=True)
    distinct = [len(np.unique(np.abs(row))) for row in y / np.where(unit == 0, 1, unit)]
    assert max(distinct) <= 5


def test_the_order_of_the_sum_decides_bytes():
    layout = page_layout("scalar", 80, 16)
    y, byte = coded(layout, "gain_sum_edges", 8)
    plain = np.sqrt(np.cumsum(y * y, axis=1, dtype=np.float32)[:, -1] / np.float32(80))
    assert (scaling.gain_byte(plain) != byte).any()


def test_integer_ties_are_hit_exactly():
    layout = page_layout("int:b=3,g=8", 64, 16)
    x = boundaries.int_halves(rng(), 2, layout).reshape(-1, 8)
    lo, step = x.min(axis=1, keepdims=True), (x.max(axis=1) - x.min(axis=1))[:, None] / 7
    code = (x - lo) / step
    assert (code % 1 == 0.5).mean() > 0.2


def test_the_ideal_rotation_is_the_reference_rotation():
    for d in (8, 80, 96, 112, 192, 576):
        layout = page_layout("scalar:seed=9", d, 16)
        y = rng().standard_normal((1, 16, d)).astype(np.float32)
        ideal = oracle.ideal_vectors(y, layout)
        got = rotation.unrotate(y[0], 9)
        assert np.linalg.norm(got - ideal[0]) < 8 * 2.0**-23 * np.linalg.norm(ideal)
        assert np.allclose(oracle.ideal_coefficients(ideal, layout), y)


def test_frozen_vectors_are_whole():
    assert manifest_problems() == ()
    assert len(frozen_vectors()) > 200
    assert {v.layout.codec.id for v in frozen_vectors()} >= {
        "raw",
        "fp8",
        "int",
        "scalar",
        "d4",
        "e8",
        "skeleton",
        "turbo",
    }
