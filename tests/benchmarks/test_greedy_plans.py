"""Greedy agreement and plans on a tiny model: what is there is kept, pages say what files say."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks import greedy, plans, resume


def test_greedy_answers_are_compared_with_the_exact_ones(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KAKEYA_BACKEND", "torch")
    monkeypatch.setattr(greedy, "TEXT", "manual-b")
    monkeypatch.setattr(greedy, "load_model", lambda *_, **__: small)
    for name, value in {"PROMPTS": 3, "PROMPT": 80, "NEW": 12}.items():
        monkeypatch.setattr(greedy, name, value)
    out = tmp_path / "greedy.json"
    some = ("exact", "scalar:b=2/scalar:b=2", "query:b=4/trellis:b=4")
    data = greedy.measure("tiny", "cpu", 1, some, out)
    assert list(data["answers"]) == list(some)
    assert all(np.array(a["tokens"]).shape == (3, 12) for a in data["answers"].values())
    assert data["answers"]["query:b=4/trellis:b=4"]["bits"] < 32
    kept = json.loads(out.read_text("utf-8"))
    greedy.measure("tiny", "cpu", 1, some, out)
    assert json.loads(out.read_text("utf-8")) == kept
    assert "| `scalar:b=2/scalar:b=2` |" in greedy.page(kept)


def test_what_other_tables_gave_is_measured_again():
    names = ("exact", "scalar:b=2/scalar:b=2", "query:b=2/trellis:b=2")
    before = {"tables": "old", "answers": {name: {} for name in names}, "runs": [1]}
    found = resume.with_tables(before, "answers", "new")
    assert found == {"tables": "new", "answers": {name: {} for name in names[:2]}, "runs": [1]}
    assert resume.with_tables(before, "answers", "old") == before
    units = ("0k/query:b=2@manual 1024 0", "0v/trellis:b=2@manual 1024 0", "plan 2.15 1024 3")
    found = resume.with_tables({"units": dict.fromkeys(units)}, "units", "new")
    assert found == {"tables": "new", "units": {units[1]: None}}


def test_the_first_token_that_differs_is_counted():
    assert greedy.same([[1, 2, 3], [1, 9, 3], [9, 2, 3]], [[1, 2, 3]] * 3).tolist() == [3, 1, 0]


def test_passages_of_two_texts_have_uncompressed_passes_of_their_own(small, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "WARMUP", 8)
    bench = plans.Bench(small, tmp_path / "plans.json")
    jobs = [
        (f"exact@{text}", window, {})
        for text in ("manual-a", "manual-b")
        for window in bench.windows(text, 140, 1)
    ]
    assert len({job[1].index for job in jobs}) == 1
    bench.measure(jobs, 1)
    assert all(abs(unit[0]) < 1e-6 for unit in bench.data["units"].values())
    assert len(bench.data["units"]) == 2


def test_plans_are_made_and_compared(small, tmp_path, monkeypatch):
    monkeypatch.setattr(plans, "RESULTS", tmp_path)
    monkeypatch.setattr(plans, "REPORTED_ON", "manual-b")
    monkeypatch.setattr(plans, "PLANNED_ON", (("manual-a", 2),))
    monkeypatch.setattr(plans, "load_model", lambda *_, **__: small)
    for name, value in {"CTX": 140, "WARMUP": 8, "COUNT": 3}.items():
        monkeypatch.setattr(plans, name, value)
    monkeypatch.setattr(plans, "BUDGETS", (3.0,))
    plans.compare("tiny", 3, "cpu", 1)
    data = json.loads((tmp_path / "tiny.json").read_text("utf-8"))
    # Rates of both streams of four layers, the first of them twice, then all settings on three.
    rates = sum(map(len, plans.PROBE_AT.values())) + len(plans.PROBE_AT)
    assert len(data["units"]) == rates * 4 + 3 * (len(plans.UNIFORM) + 1)
    rows = {r.name: r for r in plans.summary(data)}
    assert len(rows["plan 3.0"].kl) == 3
    assert rows["plan 3.0"].mean_bits <= 3.0
    assert set(data["expected"]) == {name for name in rows if not name.startswith("plan")}
    plans.render("tiny")
    assert "| plan 3.0 |" in (tmp_path / "tiny.md").read_text("utf-8")
