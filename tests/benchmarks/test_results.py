"""The committed results of the standard: projections against what was measured, to the byte."""

import json
from itertools import combinations

import pytest

from benchmarks.standard.bytes import baseline, contexts_of, measured, setting_of, shape_of
from benchmarks.standard.extrapolate import TARGETS, project
from benchmarks.standard.measure import RESULTS
from benchmarks.standard.settings import SETTINGS

FILES = sorted(RESULTS.glob("*.json"))


def test_both_models_read_both_texts_and_one_went_to_16k():
    stems = {path.stem for path in FILES}
    models = ("smollm2-135m", "gemma3-270m")
    assert stems == {f"{m}-{t}" for m in models for t in ("workshop", "repeated")}
    longest = {max(contexts_of(json.loads(p.read_text("utf-8")), "scalar")) for p in FILES}
    assert longest >= {16384}


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_projections_hold_against_longer_measurements(path):
    data = json.loads(path.read_text("utf-8"))
    assert set(data["runs"]) == {s.name for s in SETTINGS}
    for name in data["runs"]:
        known = contexts_of(data, name)
        assert {2048, 4096, 8192} <= set(known)
        for short, long in combinations(known, 2):
            found = measured(data, name, long).total
            p = project(data, name, long, upto=short)
            assert p.floor <= found <= p.ceiling
            if setting_of(data, name).fixed_rate:
                assert p.exact
                assert p.mean == found


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_measured_baseline_is_that_of_the_shape(path):
    data = json.loads(path.read_text("utf-8"))
    kinds = [layer.kind for layer in shape_of(data).layers]
    for tokens, point in data["baseline"]["contexts"].items():
        for kind in ("full", "sliding"):
            got = sum(row[0] for row, k in zip(point["layers"], kinds, strict=True) if k == kind)
            want = baseline(data, int(tokens), data["model"]["itemsize"])
            assert got == getattr(want, kind)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_real_text_does_not_repeat_and_the_paragraph_does(path):
    text = json.loads(path.read_text("utf-8"))["text"]
    again = path.stem.endswith("repeated")
    assert (text["period"] > 0) == again
    assert (text["seen_before"] > 7000) == again
    assert TARGETS[-1] == 262144
