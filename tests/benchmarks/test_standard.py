"""The standard from end to end on a tiny model, and its projections against longer measurements."""

import json
from copy import deepcopy

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from transformers import DynamicCache  # noqa: E402

from benchmarks.standard import measure as standard  # noqa: E402
from benchmarks.standard.bytes import (  # noqa: E402
    baseline,
    full_layers,
    historic,
    layer_costs,
    measured,
    sizes,
)
from benchmarks.standard.extrapolate import main as extrapolate  # noqa: E402
from benchmarks.standard.extrapolate import project  # noqa: E402
from benchmarks.standard.report import write_reports  # noqa: E402
from benchmarks.standard.run import fill, packed_rows, prefill  # noqa: E402
from benchmarks.standard.settings import Setting  # noqa: E402
from benchmarks.standard.texts import REPEATED, repeats, stretch  # noqa: E402
from kakeya_fast.hf import build_kakeya_cache  # noqa: E402
from kakeya_ref.errors import Malformed, UsageError  # noqa: E402

SMALL = {"page_tokens": 32, "residual": 16, "sinks": 4}
FIXED = Setting("scalar", "scalar:b=4", "e8:q=4", **SMALL)
SKELETON = Setting("skeleton", "skeleton:k=4", "skeleton:k=4", **SMALL)
SHARED = Setting("turbo", "turbo:b=3,k=4", "turbo:b=2,k=4,share=1", **SMALL)
CONTEXTS = (160, 320, 640)


def go(tiny, text, folder, contexts=CONTEXTS, settings=(FIXED, SKELETON, SHARED)):
    out = folder / f"{tiny.name}-{text}.json"
    return standard.Run(tiny, text, contexts, settings, out, chunk=96).go()


@pytest.fixture(scope="module")
def prose(tiny, tmp_path_factory):
    return go(tiny, "manual", tmp_path_factory.mktemp("prose"))


@pytest.fixture(scope="module")
def again(tiny, tmp_path_factory):
    return go(tiny, REPEATED, tmp_path_factory.mktemp("again"))


@pytest.mark.parametrize("tokens", CONTEXTS)
def test_the_baseline_is_measured_as_the_config_says(prose, tokens):
    """The run itself refuses a difference; here the figures are had by hand."""
    full, sliding = 2 * tokens, 2 * 47
    want = (full + sliding) * 2 * 2 * 16 * 4
    rows = prose["baseline"]["contexts"][str(tokens)]["layers"]
    assert sum(row[0] for row in rows) == want == baseline(prose, tokens, 4).total
    assert baseline(prose, tokens).sliding == 2 * 47 * 2 * 2 * 16 * 2
    kinds = [layer[0] for layer in prose["model"]["shape"]]
    assert kinds == ["sliding", "full", "sliding", "full"]
    assert [len(row) for row in prose["runs"]["scalar"]["contexts"][str(tokens)]["layers"]] == [
        len(standard.COLUMNS) if kind == "full" else 2 for kind in kinds
    ]


def test_a_config_that_disagrees_with_the_cache_is_refused(tiny, tmp_path, monkeypatch):
    real = standard.from_config

    def wrong(config, name):
        shape = real(config, name)
        layers = (deepcopy(shape.layers[1]), *shape.layers[1:])
        return type(shape)(shape.name, shape.source, layers)

    monkeypatch.setattr(standard, "from_config", wrong)
    with pytest.raises(Malformed, match=r"rate\.bytes\.true"):
        go(tiny, "manual", tmp_path, contexts=(96,), settings=())


@pytest.mark.parametrize("how", [FIXED, SKELETON, SHARED], ids=lambda s: s.name)
def test_a_longer_context_is_as_the_shorter_ones_project(prose, how):
    for short, long in ((160, 320), (320, 640), (160, 640)):
        found = measured(prose, how.name, long).total
        p = project(prose, how.name, long, upto=short)
        assert p.exact == how.fixed_rate
        if how.fixed_rate:
            assert p.mean == found
        assert p.floor <= p.low <= p.mean <= p.high <= p.ceiling
        assert p.floor <= found <= p.ceiling
        assert project(prose, how.name, long) == type(p)(long, *[found] * 5)


@pytest.mark.parametrize(("rank", "wall"), [(1, "floor"), (16, "ceiling")])
def test_the_walls_are_reached_by_the_least_and_the_greatest_rank(prose, rank, wall):
    """Four pages as they were measured, then fifteen of one rank."""
    got = baseline(prose, 640).sliding
    for index, layer in full_layers(prose):
        ranks = deepcopy(prose["runs"]["skeleton"]["ranks"][str(index)])
        for stream in "kv":
            ranks[stream][SKELETON.pages(160) :] = [[rank, rank]] * 15
        once, pages = layer_costs(SKELETON, layer, ranks)
        assert SKELETON.pages(640) == len(pages) == 4 + 15
        got += once + sum(pages) + SKELETON.exact(640) * 2 * (16 + 16) * 2
    assert getattr(project(prose, "skeleton", 640, upto=160), wall) == got


def test_bytes_that_the_formats_do_not_explain_are_refused(prose):
    data = deepcopy(prose)
    data["runs"]["scalar"]["contexts"]["320"]["layers"][1][1] += 1
    with pytest.raises(Malformed, match=r"rate\.bytes\.true.*at 320 tokens"):
        project(data, "scalar", 640)
    data = deepcopy(prose)
    data["runs"]["skeleton"]["ranks"]["1"]["k"][0][0] += 1
    with pytest.raises(Malformed, match=r"rate\.bytes\.true"):
        project(data, "skeleton", 640)
    with pytest.raises(UsageError, match=r"rate\.sequence\.parts"):
        project(prose, "scalar", 640, upto=100)


@pytest.mark.parametrize("how", [FIXED, SHARED], ids=lambda s: s.name)
def test_filling_is_what_a_cache_in_use_would_hold(tiny, how):
    """Same bytes of a fixed rate; of a fit, where no layer below was damaged."""
    ids = stretch(tiny, "manual", 200).ids
    clean = DynamicCache(config=tiny.model.config)
    filled, used = (build_kakeya_cache(tiny.model, **how.options()) for _ in range(2))
    for begin, _ in prefill(tiny.model, ids, [200], clean, 64):
        fill(filled, clean, begin)
    for _ in prefill(tiny.model, ids, [200], used, 50):
        pass
    a, b = packed_rows(filled), packed_rows(used)
    # Of a window only the numbers are held; the storage behind them depends on the chunks.
    assert [row[0] for row in a] == [row[0] for row in b]
    assert a[1] == b[1]
    assert a[3] == b[3] or not how.fixed_rate
    assert np.array_equal(filled.layers[1].state.pages.first, used.layers[1].state.pages.first)


def test_repetition_lowers_the_rank_and_lifts_the_ratio(prose, again):
    assert prose["text"]["seen_before"] == 0
    assert again["text"]["seen_before"] > 400
    for tokens in CONTEXTS[1:]:
        assert measured(again, "scalar", tokens) == measured(prose, "scalar", tokens)
        assert measured(again, "skeleton", tokens).full < measured(prose, "skeleton", tokens).full
    assert repeats(range(100), 8) == 0


def test_what_the_predecessor_would_have_said(prose):
    """One block of 512 at residual 16 would not exist; its preset codes none of 640 tokens."""
    said = historic(prose, 640)
    assert said.exact == said.projected == baseline(prose, 640).total
    data = deepcopy(prose)
    data["protocol"]["historic"] |= {"block": 256, "residual": 128}
    for found in data["clean_ranks"].values():
        found["k"] = found["v"] = [10, 12]
    said = historic(data, 640)
    assert said.projected < said.exact


def test_a_second_call_measures_what_is_missing_and_nothing_else(tiny, tmp_path, monkeypatch):
    first = go(tiny, "manual", tmp_path, contexts=(160,), settings=(FIXED,))
    monkeypatch.setattr(standard, "prefill", lambda *_: pytest.fail("measured again"))
    assert go(tiny, "manual", tmp_path, contexts=(160,), settings=(FIXED,)) == first
    monkeypatch.undo()
    both = go(tiny, "manual", tmp_path, contexts=(160,), settings=(FIXED, SKELETON))
    assert both["runs"]["scalar"] == first["runs"]["scalar"]
    longer = go(tiny, "manual", tmp_path, contexts=(160, 320), settings=(FIXED, SKELETON))
    assert set(longer["runs"]["scalar"]["contexts"]) == {"160", "320"}
    assert set(longer["text"]["ids_sha256"]) == {"160", "320"}
    coarser = Setting("scalar", "scalar:b=2", "e8:q=4", **SMALL)
    changed = go(tiny, "manual", tmp_path, contexts=(160,), settings=(coarser,))
    assert measured(changed, "scalar", 160).full < measured(first, "scalar", 160).full


def test_reports_are_written_from_the_files_alone(prose, again, tmp_path, capsys):
    for data in (prose, again):
        standard.write_compact(data, tmp_path / f"tiny-{data['text']['name']}.json")
    write_reports(tmp_path)
    name = prose["model"]["name"]
    page = (tmp_path / f"{name}.md").read_text("utf-8")
    for head in ("Bytes of the whole cache", "Prose against one paragraph", "in use"):
        assert head in page
    assert "OUTSIDE" in page or "inside" in page
    assert (tmp_path / f"{name}.png").stat().st_size < 100_000
    assert name in (tmp_path / "cross-model.md").read_text("utf-8")
    assert "Llama-3.1-8B" in (tmp_path / "shapes.md").read_text("utf-8")
    stored = tmp_path / "tiny-manual.json"
    extrapolate([str(stored), "--tokens", "640", "--tokens", "4096", "--json"])
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2 * 3
    assert rows[0]["mean"] == measured(prose, "scalar", 640).total
    extrapolate([str(stored), "--tokens", "4096"])
    assert "exact" in capsys.readouterr().out
    assert sizes(prose, prose["runs"]["skeleton"]["live"]["layers"]).full > 0


def test_the_command_runs_from_the_command_line(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(standard, "load_model", lambda *_, **__: tiny)
    monkeypatch.setattr(standard, "TEXTS", ("manual", REPEATED))
    args = ["tiny", "--context", "800", "--context", "1024", "--context", "2048", "--report"]
    standard.main([*args, "--out", str(tmp_path)])
    assert "2 settings" not in capsys.readouterr().out
    data = json.loads((tmp_path / f"{tiny.name}-manual.json").read_text("utf-8"))
    assert set(data["runs"]) == {s.name for s in standard.SETTINGS}
    # The model knows 1024 positions.
    assert set(data["baseline"]["contexts"]) == {"800", "1024"}
    assert (tmp_path / f"{tiny.name}.md").exists()
    with pytest.raises(SystemExit):
        standard.main([])
