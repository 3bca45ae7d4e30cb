"""The comparison of packed sliding layers with the library's, on a tiny model, and its page."""

import json

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks import sliding
from kakeya_fast.quality.calibration import calibrated
from kakeya_fast.quality.texts import load_text


@pytest.fixture(scope="module")
def known(tiny, tmp_path_factory):
    """A file of tables of the tiny model."""
    path = tmp_path_factory.mktemp("sliding") / "tables.safetensors"
    some = [load_text("manual")]
    calibrated(tiny, some, frame=32, tokens=256, ctx=128, context=512).save(path)
    return path


@pytest.fixture(scope="module")
def data(tiny, known):
    out = known.with_name("sliding-tiny.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding, "make_tables", lambda *_: {sliding.TABLES: known})
        patch.setattr(sliding, "CODECS", ("scalar:b=4/scalar:b=4", "query:b=4/trellis:b=4"))
        patch.setattr(sliding, "TEXT", "manual")
        found = sliding.measure(tiny, 160, 6, 2, out)
    assert json.loads(out.read_text("utf-8"))["settings"].keys() == found["settings"].keys()
    return found


def test_the_same_numbers_come_out_of_raw_pages(data):
    rows = data["settings"]
    assert all(len(row["kl"]) == len(row["same"]) == 2 for row in rows.values())
    assert max(rows["raw, all layers packed"]["kl"]) < 1e-6
    assert rows[sliding.EXACT]["kl"] == [0.0, 0.0]
    for codec in ("scalar:b=4/scalar:b=4", "query:b=4/trellis:b=4"):
        assert min(rows[f"{codec}, all layers packed"]["kl"]) > 1e-6


def test_the_page_says_what_was_measured(data):
    page = sliding.page(data)
    assert "2 full attention and 2 sliding attention layers, window 48" in page
    for name, row in data["settings"].items():
        assert f"| {name} | " in page
        assert f"| {row['bytes'] / 1e6:.2f} |" in page


def test_bytes_are_those_that_the_cache_holds(tiny, known):
    past = sliding.settings(tiny.model, known)[sliding.EXACT]()
    sliding.run(tiny, past, list(range(2, 162)), 6)
    # Two full layers of 160 tokens, two sliding ones of one less than the window.
    assert sliding.held(past) >= 2 * 2 * 2 * 16 * 4 * (160 + 47)
