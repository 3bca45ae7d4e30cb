"""Tables of the suite are what they claim, and vectors beside them hit what they aim at."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as drawn_from
from hypothesis import settings
from hypothesis import strategies as st

from kakeya_conformance import pages, recipes, run_checks, strategies, tabled, tables
from kakeya_conformance.layouts import fixed_layouts
from kakeya_conformance.vectors import frozen_vectors
from kakeya_ref import chains, rotation, scaling
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import KakeyaError, Unsupported
from kakeya_ref.layout import page_layout, residual_width, table_layout
from kakeya_ref.registry import is_resolved
from kakeya_ref.skeletons import parts
from kakeya_ref.tables import gain_midpoints, lloyd_max
from kakeya_ref.types import Support

sys.path.insert(0, str(Path(__file__).parent))

from patching import Mutant

LAYOUTS = [layout for layout in fixed_layouts("standard") if tables.needed(layout)]
REFERENCE = ReferenceBackend()


def rng():
    return np.random.default_rng(5)


@pytest.mark.parametrize("name", tables.RECIPES)
@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_table_can_be_read(layout, name):
    known = tables.given(name, 3, 2, layout)
    assert known.bodies.shape == (2, table_layout(layout.codec, layout.head_dim).nbytes)
    assert not known.bodies.flags.writeable
    for body in known.bodies:
        assert np.isfinite(parts(body, layout.codec, layout.head_dim).basis).all()
    one = tables.given(name, 3, 1, layout)
    assert np.array_equal(one.bodies[0], known.bodies[0])
    if name in ("metric", "foreign"):
        rank = dict(layout.codec.params).get("rank", layout.head_dim)
        assert known.analysis.shape == (2, rank, layout.head_dim)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_plausible_tables_are_faithful_and_others_are_not(layout):
    assert tables.faithful(tables.given("plausible", 0, 3, layout), layout)
    assert not tables.faithful(tables.given("zeros", 0, 1, layout), layout)
    assert not tables.faithful(tables.given("metric", 0, 1, layout), layout)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_recipes_beside_tables_give_finite_vectors(layout):
    for table in tables.RECIPES:
        known = tables.given(table, 1, 2, layout)
        for name, recipe in recipes.recipes_for(layout, known).items():
            x = recipe(rng(), 2, layout)
            assert x.shape == (2, layout.tokens, layout.head_dim), (table, name)
            assert x.dtype == np.float32, (table, name)
            assert np.isfinite(x).all(), (table, name)


@settings(max_examples=100, deadline=None)
@drawn_from(st.sampled_from(["skeleton", "turbo"]).flatmap(strategies.layouts))
def test_drawn_layouts_are_resolved_and_have_room(layout):
    assert is_resolved(layout.codec)
    assert 1 <= layout.codec.integer("rank") <= layout.head_dim
    if layout.codec.id == "turbo":
        most = layout.tokens * residual_width(layout.codec)
        assert layout.codec.integer("out") <= most


def encoded(layout, table, recipe, n=4):
    known = tables.given(table, 2, n, layout)
    x = recipes.recipes_for(layout, known)[recipe](rng(), n, layout)
    return x, known, REFERENCE.encode(x, layout, tables=known)


@pytest.mark.parametrize("codec", ["skeleton:rank=20,k=5", "turbo:rank=20,k=5"])
def test_the_order_of_a_chain_decides_bytes(codec, monkeypatch):
    layout = page_layout(codec, 64, 16)
    x, known, body = encoded(layout, "plausible", "cancelling")
    real = chains.chain
    monkeypatch.setattr(chains, "chain", lambda x, rows: real(x[:, ::-1], rows[:, ::-1]))
    other = REFERENCE.encode(x, layout, tables=known)
    lengths = [pages.read(layout, some)["proj"] for some in (body, other)]
    assert (lengths[0] != lengths[1]).mean() > 0.5


def test_lengths_near_a_direction_are_long_beside_what_is_left():
    layout = page_layout("skeleton:rank=12,k=3,res=12,time=none,store=bf16", 64, 16)
    _, _, body = encoded(layout, "plausible", "near_directions")
    fields = pages.read(layout, body)
    proj, value = (chains.widen16(fields[n].astype(np.uint16), "bf16") for n in ("proj", "value"))
    left = np.abs(value.reshape(*proj.shape, -1)).max(axis=-1)
    assert np.median(left / np.abs(proj)) < 2.0**-4
    assert (left > 0).mean() > 0.9


def rotated(layout, recipe):
    x, known, body = encoded(layout, "transparent", recipe)
    y = rotation.rotate(
        x[..., : layout.codec.integer("rank")].reshape(-1, layout.codec.integer("rank")),
        layout.codec.integer("seed"),
    )
    byte = pages.read(layout, body)["scales"].reshape(-1).astype(np.uint8)
    return y, byte, known


@pytest.mark.parametrize("codec", ["turbo:b=4,rank=80", "turbo:b=3,rank=80,levels=own"])
def test_thresholds_of_the_residual_are_hit_exactly(codec):
    layout = page_layout(codec, 96, 16)
    y, byte, known = rotated(layout, "residual_thresholds")
    part = parts(known.bodies[0], layout.codec, 96)
    levels, thresholds = lloyd_max(layout.codec.integer("b"))
    if part.levels.size:
        levels = part.levels
        thresholds = (levels[:-1] + levels[1:]) * np.float32(0.5)
    z = y * scaling.reciprocal_of(byte)[:, None]
    assert np.isin(z, thresholds).any(axis=1).mean() > 0.3


def test_midpoints_of_the_residual_are_hit_exactly():
    y, _, _ = rotated(page_layout("turbo:rank=64", 80, 16), "residual_midpoints")
    assert np.isin(scaling.rms(y), gain_midpoints()).mean() > 0.2


def test_outliers_tie():
    layout = page_layout("turbo:rank=16,out=8", 64, 16)
    y, byte, _ = rotated(layout, "residual_integers")
    z = np.abs(y * scaling.reciprocal_of(byte)[:, None]).reshape(4, -1)
    last = np.sort(z, axis=1)[:, -9:]
    assert (last[:, 0] == last[:, 1]).any()


def test_a_recipe_applies_where_its_width_does():
    names = tabled.recipes_for(page_layout("turbo:rank=21", 64, 16))
    assert not [name for name in names if name.startswith("residual")]
    assert "residual_sums" in tabled.recipes_for(page_layout("turbo:rank=80", 80, 16))


def test_frozen_vectors_bring_their_tables():
    found = [v for v in frozen_vectors() if tables.needed(v.layout)]
    given = [v for v in found if v.tables() is not None]
    assert {v.op for v in given} == {"encode", "decode"}
    assert any(v.tables().analysis is not None for v in given)
    assert all("error" in v.expect for v in found if v.tables() is None)


class Small(ReferenceBackend):
    """Offers ``turbo`` of one shape, without outliers, and ``raw``."""

    def supports(self, layout):
        codec = layout.codec
        plain = codec.id == "turbo" and not codec.integer("out")
        shape = (layout.head_dim, layout.tokens) == (128, 32)
        ok = codec.id == "raw" or (plain and shape)
        return Support(ok, reason="" if ok else "not here")

    def encode(self, x, layout, **options):
        self.known(layout)
        return super().encode(x, layout, **options)

    def decode(self, pages, layout, **options):
        self.known(layout)
        return super().decode(pages, layout, **options)

    def known(self, layout):
        answer = self.supports(layout)
        if not answer.ok:
            raise Unsupported("backend.codec.offered", answer.reason)


def test_a_backend_with_a_part_of_turbo_is_tried_on_that_part():
    report = run_checks(Small())
    assert report.exit_code == 0, report.to_text()
    assert sorted(report.offers) == ["raw", "turbo"]
    assert report.checks["check_table__must_be_given"].ran == 1
    assert report.checks["check_turbo__takes_out_the_largest"].ran == 0


class Deaf(ReferenceBackend):
    """Takes no tables at all, and offers what needs none."""

    def supports(self, layout):
        ok = layout.codec.id == "raw"
        return Support(ok, reason="" if ok else "raw only")

    def encode(self, x, layout):
        self.known(layout)
        return super().encode(x, layout)

    def decode(self, pages, layout, *, basis="vectors"):
        self.known(layout)
        return super().decode(pages, layout, basis=basis)

    known = Small.known


def test_a_backend_that_knows_no_tables_is_not_handed_any():
    report = run_checks(Deaf(), only="check_encode")
    assert report.exit_code == 0, report.to_text()


class Dense(Mutant):
    """A bounded encoder: products in float64, so that only last bits and near ties differ."""

    name = "dense"
    profile = "bounded"

    @staticmethod
    def chain(x, rows):
        with np.errstate(over="ignore", invalid="ignore"):
            return (x.astype(np.float64) @ rows.astype(np.float64).T).astype(np.float32)

    def decode(self, pages, layout, **options):
        return REFERENCE.decode(pages, layout, **options)


Dense.patches = ((chains, "chain", Dense.chain),)


class Worse(Dense):
    def encode(self, x, layout, **options):
        try:
            body = super().encode(x, layout, **options)
        except KakeyaError:
            return super().encode(x, layout, **options)
        proj = layout.plane("proj")
        body[:, proj.offset : proj.offset + proj.nbytes : 20] ^= 0xFF
        return body


@pytest.mark.parametrize("area", ["check_encode", "check_chain", "check_centre", "check_turbo"])
def test_a_bounded_encoder_beside_tables_conforms(area):
    report = run_checks(Dense(), codecs=["skeleton", "turbo"], only=area)
    assert report.exit_code == 0, report.to_text()


def test_a_worse_encoder_beside_tables_is_not_bounded():
    report = run_checks(Worse(), codecs=["skeleton", "turbo"], only="agrees_with_reference")
    assert report.exit_code == 1
    assert "mean squared error" in report.failures[0].message


class WrongBesideTies(Mutant):
    patches = (
        (chains, "largest", lambda m, n: np.sort(np.argsort(m, axis=-1)[..., -n:], axis=-1)),
    )


def test_a_failure_names_recipe_and_seed():
    report = run_checks(
        WrongBesideTies(), codecs=["skeleton"], only="keeps_the_largest", profile="standard"
    )
    draws = report.failures[0].detail["draws"]
    assert "(recipe): 'whole_numbers'" in draws or "(recipe): 'sparse'" in draws
    assert "(tables): 'axes'" in draws or "(tables): 'transparent'" in draws
    assert "(seed of vectors): " in draws
    shown = next(line for line in report.to_text().splitlines() if "drawn  " in line)
    assert "recipe '" in shown
    assert "layout" not in shown
