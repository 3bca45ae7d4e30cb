"""The damage bench on a tiny model: every part runs, goes on where it stopped, and counts bits."""

import json

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

import torch

from benchmarks.damage import measure as damage
from benchmarks.damage import settings as damage_settings
from benchmarks.damage.moments import moments
from benchmarks.damage.settings import PARTS, half, make_trials
from benchmarks.damage.trials import Bands, Trial
from kakeya_fast.hf.rotary import ropes
from kakeya_fast.hf.watch import watching
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


def test_tables_of_settings_measured_before_stay_in_the_file(small, tmp_path):
    out = tmp_path / f"{small.name}-main.json"
    for settings in (["query:b=2/raw@f32"], ["query:b=2,f=1/raw@f1"]):
        damage.measure(small, ["main"], tmp_path, 1, settings)
    data = json.loads(out.read_text("utf-8"))
    assert set(data["calibration"]["tables"]) == {"f1", "f32"}


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
    sums = known.attended[1].values
    assert sums.mean.shape == (2, 16)
    assert sums.second.shape == (2, 16, 16)
    assert list(sums.weight) == [2 * 96] * 2  # pages of two passages of 128
    mean, second = sums.of(0)
    assert np.trace(second) >= mean @ mean
    assert half("manual-a").text != half("manual-b").text


@pytest.mark.parametrize("layer", [0, 1])  # one of a window of 48, one of all
def test_tokens_count_by_the_attention_they_get(small, layer):
    ids = list(passages_of(small, [half("manual-a")], 128, 128)[0].ids)
    keys, text = {}, torch.tensor([ids])
    with torch.no_grad(), watching(small.model, lambda c: keys.setdefault(c.layer, c)):
        small.model(text)
    before = small.model.config._attn_implementation
    small.model.set_attn_implementation("eager")
    with torch.no_grad():
        told = small.model(text, output_attentions=True)
    small.model.set_attn_implementation(before)
    # Two query heads a KV head; complete pages are tokens 4 .. 35, 36 .. 67 and 68 .. 99.
    squares = told.attentions[layer][0, :2].double().square()
    got = [squares[:, 4 + 32 * (i + 1) :, 4 + 32 * i : 36 + 32 * i].sum((0, 1)) for i in range(3)]
    weight = torch.cat(got)
    small_ropes = ropes(small.model)
    found = moments(small.model, small_ropes, [ids])[layer]
    assert found.looked_values.weight[0] == pytest.approx(float(weight.sum()), rel=1e-4)
    assert found.looking.weight[0] == pytest.approx(float(weight.sum()), rel=1e-4)
    call = keys[layer]
    q, k = (x[0].double().square().sum(-1) for x in (call.query, call.key))
    assert np.trace(found.looked_keys.second[0]) == pytest.approx(
        float((weight * k[0, 4:100]).sum()), rel=1e-4
    )
    seen = [squares[:, n, 4 : max(4, 4 + (n - 4) // 32 * 32)].sum(-1) for n in range(128)]
    assert np.trace(found.looking.second[0]) == pytest.approx(
        float((torch.stack(seen, 1) * q[:2]).sum()), rel=1e-4
    )
    back = small_ropes[layer].turned(call.key[0, 0, 4:100], -torch.arange(4, 100)).double()
    mean = (weight[:, None] * back).sum(0) / weight.sum()
    assert np.allclose(found.looked_keys.of(0)[0], mean, atol=1e-4)
