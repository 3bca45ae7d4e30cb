"""The committed table of attention is what its result files say."""

from __future__ import annotations

import pytest

from benchmarks import gpu_attention_table as table


def test_the_committed_page_is_rendered_from_the_files() -> None:
    wanted = (table.RESULTS / "gpu-attention.md").read_text("utf-8")
    assert table.markdown(table.runs()) == wanted


def test_no_row_errs_more_than_twice_plain_bf16() -> None:
    """Rule: attend.error.mean"""
    for run in table.runs().values():
        assert run["failed"] == []
        assert max(row["errors"]["ratio"] for row in run["rows"]) <= 2


def test_shares_of_a_row() -> None:
    """The numbers are made up."""
    row = {"shape": "1k B=2 G=4 D=64", "bytes": 1000, "seconds": {"median": 1e-6}}
    assert table.dense_bytes(row["shape"]) == 2 * 8 * 1024 * 64 * 2 * 2
    share, over, roof = table.figures(row, copy=4e9, sdpa=3e-6)
    assert (share, over) == (pytest.approx(0.25), pytest.approx(3))
    assert roof == pytest.approx(4_194_304 / 4e9 / 1e-6)
