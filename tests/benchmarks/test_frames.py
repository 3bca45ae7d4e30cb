"""The bench of frame lengths on a tiny model: every length steps, and the page says its figures."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from tinymodel import make_tiny

from benchmarks import frames
from kakeya_fast.quality.models import load_model


@pytest.mark.parametrize("lengths", [(1, 32), (32, 64)])
def test_frames_of_every_length_step(tmp_path, monkeypatch, lengths):
    from benchmarks.damage import settings

    for name, value in {"TOKENS": 256, "CTX": 128}.items():
        monkeypatch.setattr(settings, name, value)
    monkeypatch.setattr(frames, "table_folder", lambda: tmp_path / "tables")
    monkeypatch.setattr(frames, "FRAMES", lengths)
    for f in lengths:
        monkeypatch.setitem(settings.TABLES, f"f{f}", (("manual-a",), {"frame": f}))
    monkeypatch.setattr(frames, "TEXT", "manual")
    found = frames.measure(load_model(str(make_tiny(tmp_path / "tiny"))), 140, "cpu", 2)
    assert list(found["seconds"]) == [*map(str, lengths), "exact"]
    assert all(s["samples"] == 2 and s["median"] > 0 for s in found["seconds"].values())
    about = {
        "threads": 1, "clock": "cpu", "commit": "c",
        "machine": {"cpu": "x", "load_before": [0.0], "load_after": [0.0]},
    }  # fmt: skip
    rows = [r for r in frames.page(found | about).splitlines() if r.startswith("| ")][1:]
    assert [r.split(" | ")[0] for r in rows] == [*(f"| {f}" for f in lengths), "| `DynamicCache`"]


def test_the_page_is_that_of_the_file():
    path = Path(frames.DEFAULT)
    result = json.loads(path.read_text("utf-8"))
    assert path.with_suffix(".md").read_text("utf-8") == frames.page(result)
