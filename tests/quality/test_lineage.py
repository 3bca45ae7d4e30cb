"""The lineage benchmark runs from end to end on a tiny model, and its files say what it did."""

import json
import sys

import pytest

pytest.importorskip("torch")
pytest.importorskip("matplotlib")

from benchmarks import lineage, lineage_render
from kakeya_fast.quality.models import load_model

SCALE = lineage.Scale(800, 1, False, 0, 1, (1, 2), 1, 1, (0, 1))


@pytest.fixture
def results(tiny, tmp_path, monkeypatch):
    """Folder of result files; the models of the benchmark are one tiny one."""
    monkeypatch.setattr(lineage_render, "RESULTS", tmp_path)
    monkeypatch.setattr(lineage, "MODELS", ("tiny-llama",))
    monkeypatch.setattr(lineage, "SCALES", {"tiny-llama": SCALE})
    monkeypatch.setattr(lineage, "load_model", lambda *_, **__: load_model(str(tiny)))
    for name in ("CTX", "STAGES_CTX"):
        monkeypatch.setattr(lineage, name, 800)
    # A few codecs are enough, and the calibration text is a download.
    monkeypatch.setattr(lineage, "TABLED", [lineage.TABLED[i] for i in (0, -1)])
    monkeypatch.setattr(lineage, "PLAIN", lineage.PLAIN[:1])
    return tmp_path


def run(monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", ["lineage", *args])
    lineage.main()


def test_every_part_measures_writes_and_renders(results, monkeypatch):
    run(monkeypatch)
    names = {p.name for p in results.iterdir()}
    for part in ("stages", "depth", "layers", "codecs"):
        assert {f"{part}-tiny-llama.{kind}" for kind in ("json", "md", "png")} <= names
    assert "stages-tiny-llama-bits.png" in names
    assert all(p.stat().st_size < 100_000 for p in results.iterdir())
    stages = json.loads((results / "stages-tiny-llama.json").read_text())
    assert len(stages["rows"]) == 2 * 2 * len(lineage.STAGED)
    assert "with error `scale`" in (results / "stages-tiny-llama.md").read_text()
    codecs = json.loads((results / "codecs-tiny-llama.json").read_text())
    assert {row["page_tokens"] for row in codecs["summary"]} == {512}
    table = (results / "codecs-tiny-llama.md").read_text()
    assert "skeleton:res=8 page=512 residual=256" in table
    depth = (results / "depth-tiny-llama.md").read_text()
    assert "first 2 | turbo:b=2 page=512 | snapshot" in depth
    # Rendering alone measures nothing and changes nothing but the pictures and tables.
    before = {p.name: p.read_bytes() for p in results.glob("*.md")}
    run(monkeypatch, "depth", "codecs", "--render")
    assert {p.name: p.read_bytes() for p in results.glob("*.md")} == before


def test_the_committed_settings_are_canonical_and_distinct():
    settings = [lineage.Setting.parse(f"{c}@page={lineage.PAGE}") for c in lineage.PLAIN]
    settings += [
        lineage.Setting.parse(t) for t in (*lineage.TABLED, *lineage.RESIDUAL, *lineage.DEPTH)
    ]
    assert all(lineage.Setting.parse(str(s)) == s for s in settings)
    assert {s.page_tokens(32) for s in settings} == {512}
    assert len(set(lineage.SCALES) & set(lineage.MODELS)) == len(lineage.MODELS)
