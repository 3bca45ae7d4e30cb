"""The comparison of packed sliding layers with the library's, on a tiny model, and its page."""

import json

import pytest

from benchmarks import sliding


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    out = tmp_path_factory.mktemp("sliding") / "sliding-tiny.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliding, "CODECS", ("scalar:b=4",))
        found = sliding.measure(tiny, 160, 6, 2, out)
    assert json.loads(out.read_text("utf-8"))["settings"].keys() == found["settings"].keys()
    return found


def test_the_same_numbers_come_out_of_raw_pages(data):
    rows = data["settings"]
    assert all(len(row["kl"]) == len(row["same"]) == 2 for row in rows.values())
    assert max(rows["raw, all layers packed"]["kl"]) < 1e-6
    assert rows[sliding.EXACT]["kl"] == [0.0, 0.0]
    assert min(rows["scalar:b=4, all layers packed"]["kl"]) > 1e-6


def test_the_page_says_what_was_measured(data):
    page = sliding.page(data)
    assert "2 full attention and 2 sliding attention layers, window 48" in page
    for name, row in data["settings"].items():
        assert f"| {name} | " in page
        assert f"| {row['bytes'] / 1e6:.2f} |" in page


def test_bytes_are_those_that_the_cache_holds(tiny):
    past = sliding.settings(tiny.model)[sliding.EXACT]()
    sliding.run(tiny, past, list(range(2, 162)), 6)
    # Two full layers of 160 tokens, two sliding ones of one less than the window.
    assert sliding.held(past) >= 2 * 2 * 2 * 16 * 4 * (160 + 47)
