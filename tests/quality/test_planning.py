"""Plans: their file, the allocation, and a cache that follows one."""

from __future__ import annotations

import itertools

import pytest
from typer.testing import CliRunner

from kakeya_fast.cli.app import app
from kakeya_fast.hf import Plan, build_kakeya_cache
from kakeya_fast.quality.allocate import Part, Shape, Step, curve, hull, mean_bits, probes, spend
from kakeya_fast.quality.models import load_model
from kakeya_fast.quality.setting import Setting
from kakeya_ref.errors import UsageError


def test_plan_survives_its_file(tmp_path):
    plan = Plan({0: ("trellis:b=3", "trellis"), 7: ("raw", "scalar:b=3")})
    (tmp_path / "p.toml").write_text(plan.text({"model": "m", "bits": 2.5}))
    assert Plan.read(tmp_path / "p.toml") == plan


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("x = [", "cache.plan.file"),
        ('format = "kakeya-plan/2"\n[layer.0]\nk = "raw"\nv = "raw"', "cache.plan.file"),
        ('format = "kakeya-plan/1"', "cache.plan.file"),
        ('format = "kakeya-plan/1"\n[layer.0]\nk = "raw"', "cache.plan.file"),
        ('format = "kakeya-plan/1"\n[layer.a]\nk = "raw"\nv = "raw"', "cache.plan.file"),
        ('format = "kakeya-plan/1"\n[layer.0]\nk = "raw"\nv = "none"', "codec.string.known"),
    ],
)
def test_other_files_are_refused(tmp_path, text, rule):
    """Rule: cache.plan.file"""
    (tmp_path / "p.toml").write_text(text)
    with pytest.raises(UsageError, match=rule):
        Plan.read(tmp_path / "p.toml")
    with pytest.raises(UsageError, match=r"cache\.plan\.file"):
        Plan.read(tmp_path / "absent.toml")


def test_a_cache_follows_its_plan(tiny):
    """Rule: cache.plan.file"""
    model = load_model(str(tiny)).model
    plan = Plan({1: ("trellis:b=3", "trellis:b=1")})
    cache = build_kakeya_cache(model, k="fp8", v="fp8", plan=plan)
    pairs = [(str(layer.policy.k), str(layer.policy.v)) for layer in cache.layers]
    assert pairs == [("fp8", "fp8"), ("trellis:b=3", "trellis:b=1")]
    exact = build_kakeya_cache(model, plan=plan, exact_layers=[-1])
    assert str(exact.layers[1].policy.k) == "raw"
    with pytest.raises(UsageError, match=r"cache\.plan\.file"):
        build_kakeya_cache(model, plan=Plan({2: ("raw", "raw")}))


def test_the_allocation_is_the_best_there_is():
    """Against every combination, where the budget is one that the greedy steps reach."""
    shapes = {0: Shape(8, 8, 2), 1: Shape(8, 16, 1), 2: Shape(8, 8, 1)}
    curves = {
        Part(layer, s): hull(
            [Step(f"{b}", b, (1 + 3 * layer + 5 * (s == "k")) * 4.0**-b) for b in range(1, 5)]
        )
        for layer in shapes
        for s in "kv"
    }
    chosen = spend(curves, shapes, 2.5)
    reached = mean_bits(chosen, shapes)
    best = min(
        sum(step.kl for step in combination)
        for combination in itertools.product(*curves.values())
        if mean_bits(dict(zip(curves, combination, strict=True)), shapes) <= reached + 1e-9
    )
    assert 2.2 < reached <= 2.5
    assert sum(s.kl for s in chosen.values()) == pytest.approx(best)
    with pytest.raises(UsageError, match=r"plan\.budget\.least"):
        spend(curves, shapes, 0.5)


def test_curves_go_through_what_was_measured():
    shape = Shape(128, 128, 1)
    names = [f"trellis:b={b}" for b in (1, 2, 3, 4)]
    steps = {
        s.codec: s.kl for s in curve(names, {"trellis": 0.16, "trellis:b=4": 0.01}, shape, "k")
    }
    assert steps["trellis:b=2" if "trellis:b=2" in steps else "trellis"] == pytest.approx(0.16)
    assert steps["trellis:b=3"] == pytest.approx(0.04)
    one = {s.codec: s.kl for s in curve(names, {"trellis:b=3": 0.04}, shape, "k")}
    assert one["trellis:b=4"] == pytest.approx(0.01)


def test_neighbours_can_be_measured_together():
    found = probes([0, 1, 2], {"k": ["trellis"], "v": ["fp8"]}, together=2)
    assert len(found) == 6
    assert {str(s) for s in found.values()} == {
        "trellis/raw@exact=2", "trellis/raw@exact=0..1", "raw/fp8@exact=2", "raw/fp8@exact=0..1",
    }  # fmt: skip


def test_tables_go_with_the_keys_that_need_them():
    found = probes([0, 1], {"k": ["query:b=2"], "v": ["trellis"]}, tables="t.safetensors")
    assert {str(s) for s in found.values()} == {
        "query:b=2/raw@exact=1,tables=t.safetensors", "raw/trellis@exact=1",
        "query:b=2/raw@exact=0,tables=t.safetensors", "raw/trellis@exact=0",
    }  # fmt: skip


def test_hull_drops_what_is_never_best():
    steps = [Step("a", 1, 1.0), Step("b", 2, 0.9), Step("c", 3, 0.1), Step("d", 4, 0.2)]
    assert [s.codec for s in hull(steps)] == ["a", "c"]


def test_command_writes_a_plan_that_settings_take(tiny, tmp_path):
    out = tmp_path / "plan.toml"
    given = ["plan", "--model", str(tiny), "--bits", "4.0", "--out", str(out), "--ctx", "200"]
    given += ["--passages", "1", "--measured", str(tmp_path / "m.json"), "--json"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    plan = Plan.read(out)
    assert sorted(plan.codecs) == [0, 1]
    assert Setting.parse(f"trellis@plan={out}").plan == str(out)
    assert (tmp_path / "m.json").exists()


def test_command_plans_query_keys_with_tables(tiny, tmp_path):
    tables, out = str(tmp_path / "t.safetensors"), tmp_path / "plan.toml"
    given = ["calibrate", "--model", str(tiny), "--text", "manual", "--out", tables]
    result = CliRunner().invoke(app, [*given, "--tokens", "512", "--ctx", "256", "--frame", "64"])
    assert result.exit_code == 0, result.output
    given = ["plan", "--model", str(tiny), "--bits", "4.0", "--out", str(out), "--ctx", "200"]
    given += ["--passages", "1", "--tables", tables, "--json"]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 0, result.output
    plan = Plan.read(out)
    assert all(k.startswith("query:") and "f=64" in k for k, _ in plan.codecs.values())
    model = load_model(str(tiny)).model
    cache = build_kakeya_cache(model, plan=str(out), tables=tables)
    assert [str(layer.policy.k) for layer in cache.layers] == [k for k, _ in plan.codecs.values()]


@pytest.mark.parametrize("bits", ["0.5", "nan", "inf"])
def test_command_refuses_a_budget_before_it_measures(tiny, tmp_path, bits, monkeypatch):
    """Rule: plan.budget.least"""
    monkeypatch.setattr("kakeya_fast.quality.planning.run", None)
    out = tmp_path / "plan.toml"
    given = ["plan", "--model", str(tiny), "--bits", bits, "--out", str(out)]
    result = CliRunner().invoke(app, given)
    assert result.exit_code == 2
    assert f"[plan.budget.least] {float(bits)} bits" in result.stderr
    assert not out.exists()
