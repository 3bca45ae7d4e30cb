"""The damage bench on a tiny model: every part runs, goes on where it stopped, and counts bits."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from benchmarks.damage import measure as damage
from benchmarks.damage import settings as damage_settings
from benchmarks.damage.settings import PARTS, half, make_trials
from benchmarks.damage.trials import Bands, Trial
from benchmarks.damage.values import LOOKED, PLAIN, value_moments
from kakeya_fast.quality.calibration import passages_of


@pytest.mark.parametrize("part", list(PARTS))
def test_every_part_runs_and_goes_on(small, part, tmp_path):
    out = tmp_path / f"{small.name}-{part}.json"
    damage.measure(small, [part], tmp_path, 1)
    first = json.loads(out.read_text("utf-8"))["units"]
    assert len(first) == len(PARTS[part][3])
    damage.measure(small, [part], tmp_path, 2)
    units = json.loads(out.read_text("utf-8"))["units"]
    assert units[: len(first)] == first
    assert len(units) == 2 * len(first)
    for unit in units:
        (at, tokens, kl, *_), *_ = unit["buckets"]
        assert (at, tokens) == (8, 140 - 1 - 8)
        assert kl > 1e-4, unit["setting"]
        assert min(unit["bits"]) < 16


def test_bits_of_what_a_setting_codes(small, tmp_path):
    out = tmp_path / f"{small.name}-main.json"
    damage.measure(small, ["main"], tmp_path, 1)
    bits = {u["setting"]: u["bits"] for u in json.loads(out.read_text("utf-8"))["units"]}
    # Head dim 16: one byte of gain is half a bit a number.
    assert bits["scalar:b=2/scalar:b=2"] == [2.5, 2.5]
    assert bits["query:b=2.5/raw@f32"] == [3.0, 16.0]
    assert bits["raw/trellis:b=2"] == [16.0, 2.5]


def test_a_trial_that_changes_nothing_is_near_the_codec(small, tmp_path):
    out = tmp_path / f"{small.name}-open.json"
    damage.measure(small, ["open"], tmp_path, 2)
    kl = {}
    for unit in json.loads(out.read_text("utf-8"))["units"]:
        kl[unit["setting"]] = kl.get(unit["setting"], 0) + unit["buckets"][0][2]
    assert kl["trial:/raw"] == pytest.approx(kl["query:b=2/raw@f32"], rel=0.1)
    assert kl["trial:gain=0/raw"] != kl["trial:/raw"]
    assert len(set(kl.values())) >= len(kl) - 4


def test_trials_are_read_from_their_names():
    trial = Trial.parse("trial:band=16,gain=0,metric=no")
    assert (trial.band, trial.gain, trial.metric, trial.turn) == (16, 0, False, True)
    assert trial.bits(64) == 2.0
    assert Trial.parse("trial:b=2.5").bits(64) == 2.625


@pytest.mark.parametrize(("steps", "most"), [(0, 0.02), (8, 0.1)])
def test_a_trial_reaches_the_leading_component_of_a_token(steps, most):
    # [query.gain.reach]: the widest band has one direction, and a token has far more of it.
    variance = 2.0 ** -np.arange(64.0)
    made = Bands(Trial(steps=steps, turn=False), np.zeros(64), np.diag(variance), np.eye(64), "cpu")
    x = torch.zeros(1, 64)
    x[0, 0] = 100.0
    assert float((made.coded(x) - x).norm()) < most * 100


def test_moments_of_values_are_those_of_the_passes(small):
    known = make_trials(small, damage_settings.table_folder())
    weight, mean, second = known.of_values[PLAIN][1]
    assert mean.shape == (2, 16)
    assert second.shape == (2, 16, 16)
    power = (second / weight[:, None, None]).trace(axis1=1, axis2=2)
    assert (power >= ((mean / weight[:, None]) ** 2).sum(1)).all()
    assert list(weight) == [2 * 96] * 2  # pages of two passages of 128
    assert half("manual-a").text != half("manual-b").text


@pytest.mark.parametrize("layer", [0, 1])  # one of a window of 48, one of all
def test_values_count_by_the_attention_they_get(small, layer):
    ids = list(passages_of(small, [half("manual-a")], 128, 128)[0].ids)
    before = small.model.config._attn_implementation
    small.model.set_attn_implementation("eager")
    with torch.no_grad():
        seen = small.model(torch.tensor([ids]), output_attentions=True).attentions[layer][0]
    small.model.set_attn_implementation(before)
    # Two heads a KV head; tokens 36 .. 67 are one page, read as codes from 68 on.
    want = seen[:2, 68:, 36:68].double().square().sum((0, 1))
    captured = value_moments(small.model, [ids])[LOOKED][layer]
    short = value_moments(small.model, [ids[:68]])[LOOKED][layer]
    first = seen[:2, 36:, 4:36].double().square().sum()
    last = seen[:2, 100:, 68:100].double().square().sum()
    assert captured[0][0] == pytest.approx(float(first + want.sum() + last), rel=1e-4)
    assert short[0][0] == pytest.approx(
        float(seen[:2, 36:68, 4:36].double().square().sum()), rel=1e-4
    )
