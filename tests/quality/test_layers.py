"""Depth and layers on a tiny model: identities that hold whatever a codec does."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from kakeya_fast.quality.depth import depth, depth_arms  # noqa: E402
from kakeya_fast.quality.draw import draw_depth, draw_layers  # noqa: E402
from kakeya_fast.quality.layers import layers, most_steps  # noqa: E402
from kakeya_fast.quality.models import load_model  # noqa: E402
from kakeya_fast.quality.protocol import Options, measure_passage  # noqa: E402
from kakeya_fast.quality.report import Report  # noqa: E402
from kakeya_fast.quality.run import run  # noqa: E402
from kakeya_fast.quality.setting import Setting  # noqa: E402
from kakeya_fast.quality.texts import load_text, passages  # noqa: E402
from kakeya_ref.errors import UsageError  # noqa: E402

OPTIONS = Options(chunk=48, warmup=40, page_tokens=16, backend="ref")
RUN = {"ctx": 128, "passages": 2, "options": OPTIONS}
TURBO = Setting.parse("turbo:b=2@page=32")


@pytest.fixture(scope="module")
def loaded(tiny):
    return load_model(str(tiny))


def scores(loaded, *texts, ctx=128):
    (passage,) = passages(loaded.tokens(load_text("manual").text), loaded.prefix, ctx, 1)
    settings = [Setting.parse(t) for t in texts]
    return measure_passage(loaded.model, passage, settings, OPTIONS)


def test_snapshot_of_exact_bytes_is_the_identity(loaded):
    (found,) = scores(loaded, "raw@protocol=snapshot")
    assert abs(found.kl) / found.tokens < 1e-6
    assert found.agree == found.tokens


def test_one_coded_layer_is_the_same_under_both_protocols(loaded):
    """Nothing before it is damaged, so what it stores is clean anyway."""
    for exact in ("0", "1"):
        live, clean = scores(
            loaded, f"scalar:b=1@exact={exact}", f"scalar:b=1@exact={exact},protocol=snapshot"
        )
        assert live.kl > 1e-3
        assert clean.kl == pytest.approx(live.kl, rel=1e-4)


def test_protocols_differ_where_damage_can_pile_up(loaded):
    live, clean = scores(loaded, "scalar:b=1", "scalar:b=1@protocol=snapshot")
    assert abs(live.kl - clean.kl) > 1e-3 * live.kl


def test_snapshot_stores_the_bytes_of_the_clean_forward(loaded):
    """By hand: the pages are those of a cache that never damages anything but itself."""
    from transformers import DynamicCache

    from kakeya_fast.hf import build_kakeya_cache
    from kakeya_fast.quality.protocol import open_cache

    ids = torch.tensor([passages(loaded.tokens(load_text("manual").text), [], 80, 1)[0].ids])
    clean = DynamicCache(config=loaded.model.config)
    caches = [open_cache(loaded.model, TURBO, OPTIONS, {}, clean)]
    snapshot = Setting.parse("scalar:b=2@page=16,protocol=snapshot")
    caches.append(open_cache(loaded.model, snapshot, OPTIONS, {}, clean))
    with torch.inference_mode():
        for begin in (0, 48):
            for cache in (clean, *caches):
                loaded.model(ids[:, begin : begin + 48], past_key_values=cache)
    by_hand = build_kakeya_cache(loaded.model, k="scalar:b=2", v="scalar:b=2", page_tokens=16)
    for i, layer in enumerate(clean.layers):
        by_hand.layers[i].update(layer.keys, layer.values)
        state = by_hand.layers[i].state
        state.settle(np.zeros(1, np.int64))
        assert torch.equal(state.pages.bodies, caches[1].layers[i].state.pages.bodies)
    live = caches[0].layers[1].dense()[0]
    assert not torch.allclose(live, clean.layers[1].keys, atol=1e-3)


def test_exact_layers_and_bits(loaded):
    options = ("", ",exact=1", "", ",exact=0+1")
    coded, half, none, whole = scores(loaded, *(f"scalar:b=2@page=16{e}" for e in options))
    assert none.kl == coded.kl
    # A drawn model may be no better off for one exact layer; for both it is.
    assert half.kl != coded.kl
    assert abs(whole.kl) < 1e-3 * coded.kl
    assert coded.sizes["page_bits"] == half.sizes["page_bits"] == 2 + 8 / 16
    assert coded.sizes["bits_exact_bf16"] < half.sizes["bits_exact_bf16"] < 16
    # A model in fp32 keeps exact numbers at 32 bits: what is held is more than counted at bf16.
    assert half.sizes["bits_per_element"] > half.sizes["bits_exact_bf16"]


def test_bits_of_a_tabled_page_are_those_of_its_parts(loaded):
    (found,) = scores(loaded, "turbo:b=2@page=32", ctx=4 + 2 * 32)
    parts = sum(found.sizes[f"{p}_bytes"] for p in ("codes", "scales", "padding", "skeletons"))
    pages = 2 * 2 * 2 * 2  # layers, streams, heads, slots
    words, elements = 4 * pages, 32 * 16 * pages
    assert found.sizes["page_bits"] == pytest.approx(8 * (parts + words) / elements)


def test_depth_ends_where_everything_is_coded(loaded, tmp_path):
    out = tmp_path / "depth.json"
    calls, again = [], []
    given = {"protocol": "both", "counts": (1, 2), "out": out, **RUN}
    found = depth(loaded, load_text("manual"), [TURBO], step=lambda: calls.append(1), **given)
    rows = {(r["protocol"], r["coded"]): r for r in found["summary"]}
    assert list(rows) == [(p, k) for p in ("inforward", "snapshot") for k in (1, 2)]
    everything = run(
        loaded, load_text("manual"), [TURBO], ctx=128, count=2, options=OPTIONS
    ).summary()[0]
    assert rows["inforward", 2]["kl"] == everything["kl"]
    assert rows["inforward", 1]["kl"] == rows["snapshot", 1]["kl"]
    assert rows["inforward", 1]["true_bytes"] > rows["inforward", 2]["true_bytes"]
    assert rows["inforward", 1]["page_tokens"] == 32
    assert "protocol=snapshot" in found["protocol"]["description"], "the report defines it"
    stored = json.loads(out.read_text())
    assert stored["format"] == "kakeya-depth/1"
    assert stored["summary"] == found["summary"]
    # A second call measures nothing.
    stored["scores"][0][stored["columns"].index("kl")] = 999.0
    out.write_text(json.dumps(stored))
    second = depth(loaded, load_text("manual"), [TURBO], step=lambda: again.append(1), **given)
    assert len(again) == len(calls)
    assert second["scores"][0] == stored["scores"][0]
    draw_depth(found, "tiny", tmp_path / "depth.png")
    assert 1000 < (tmp_path / "depth.png").stat().st_size < 100_000


def test_layers_sum_singles_and_measure_the_advice(loaded, tmp_path):
    out = tmp_path / "layers.json"
    calls = []
    given = {"exact": 1, "protocol": "both", "out": out, **RUN}
    found = layers(loaded, load_text("manual"), [TURBO], step=lambda: calls.append(1), **given)
    rows = found["summary"]
    single = [r for r in rows if r["kind"] == "single" and r["protocol"] == "inforward"]
    assert [r["coded"] for r in single] == [[0], [1]]
    everything = next(r for r in rows if r["kind"] == "all")
    (live, clean) = found["sums"]
    assert (live["protocol"], clean["protocol"]) == ("inforward", "snapshot")
    assert live["singles"]["kl"]["mean"] == pytest.approx(sum(r["kl"]["mean"] for r in single))
    assert live["together"]["kl"] == everything["kl"]
    assert live["ratio"] == pytest.approx(everything["kl"]["mean"] / live["singles"]["kl"]["mean"])
    choices = [r for r in rows if r["kind"] == "choice" and r["protocol"] == "inforward"]
    worst = max(single, key=lambda r: r["kl"]["mean"])
    assert choices[0]["exact"] == worst["coded"]
    assert [r["name"].partition("(")[2] for r in choices] == [
        "advised)", "both ends)", "first)", "last)"
    ]  # fmt: skip
    # With two layers, all but one exact is the other one alone.
    other = next(r for r in single if r["coded"] != worst["coded"])
    assert choices[0]["kl"] == other["kl"]
    assert json.loads(out.read_text())["sums"] == found["sums"]
    assert 0 < len(calls) <= most_steps(1, 2, "both", 1, 128, 2, OPTIONS)
    draw_layers(found, "tiny", tmp_path / "layers.png")
    assert 1000 < (tmp_path / "layers.png").stat().st_size < 100_000


def test_a_killed_run_goes_on_with_the_next_setting(loaded, tmp_path, monkeypatch):
    import kakeya_fast.quality.run as running

    monkeypatch.setattr(running, "AT_ONCE", 1)
    out, text = tmp_path / "r.json", load_text("manual")
    settings = [Setting.parse(t) for t in ("scalar:b=1", "scalar:b=2")]
    done = []

    def stop():
        done.append(1)
        if len(done) == 8:  # two groups of two forwards of two chunks
            raise KeyboardInterrupt

    options = {"ctx": 96, "count": 2, "options": OPTIONS, "out": out}
    with pytest.raises(KeyboardInterrupt):
        run(loaded, text, settings, **options, step=stop)
    stored = json.loads(out.read_text())
    assert len(stored["scores"]) == 1
    resumed = Report.start(loaded, text, 0, settings, 96, 2, OPTIONS)
    assert resumed.resume(out) == {("scalar:b=1", 0)}
    whole = run(loaded, text, settings, **options)
    assert len(whole.scores) == 4
    assert json.loads(out.read_text())["scores"][0] == stored["scores"][0]


def test_parts_of_two_commits_are_named_or_not_mixed(loaded, tmp_path):
    out, text = tmp_path / "r.json", load_text("manual")
    settings = [Setting.parse("scalar:b=1")]
    run(loaded, text, settings, ctx=96, count=2, options=OPTIONS, out=out)
    stored = json.loads(out.read_text())
    stored["environment"]["commit"] = "earlier"
    stored["scores"] = stored["scores"][:1]
    out.write_text(json.dumps(stored))
    strict = Report.start(loaded, text, 0, settings, 96, 2, OPTIONS)
    assert strict.resume(out) == set()
    now = strict.environment["commit"]
    both = Report.start(loaded, text, 0, settings, 96, 2, OPTIONS)
    assert both.resume(out, any_commit=True) == {("scalar:b=1", 0)}
    assert both.environment["commit"] == f"earlier, {now}"


def test_a_metric_from_the_measured_text_is_refused(loaded):
    settings = [Setting.parse("turbo@page=32,metric=manual")]
    with pytest.raises(UsageError, match=r"quality\.metric\.leak"):
        run(loaded, load_text("manual"), settings, ctx=96, count=1, options=OPTIONS)


def test_counts_and_exact_layers_beyond_the_model_are_refused(loaded):
    with pytest.raises(UsageError, match=r"depth\.count\.range"):
        depth_arms([TURBO], [0, 1], [3], "both")
    with pytest.raises(UsageError, match=r"layers\.exact\.range"):
        layers(loaded, load_text("manual"), [TURBO], exact=2, **RUN)
    with pytest.raises(UsageError, match=r"quality\.protocol\.known"):
        depth_arms([TURBO], [0, 1], [1], "live")
