"""The page of damage says what its files say, and no more."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks.damage import report as damage_report
from benchmarks.damage.far import far


def test_the_page_is_that_of_the_files(monkeypatch):
    monkeypatch.setattr(damage_report, "plot", lambda *_: None)
    page = (damage_report.RESULTS / "DAMAGE.md").read_text("utf-8")
    assert damage_report.text() == page


def passages(*losses: tuple[float, float]) -> dict:
    """Of each passage: ΔNLL a token at 1k to 2k, and at 6k to 8k."""
    units = []
    for n, (first, last) in enumerate(losses):
        nll = [0.0, first, 0.0, 0.0, 0.0, 0.0, last, last]
        rows = [[1024 * i, 1000, 10.0, 1000 * x, 900.0, 0.0] for i, x in enumerate(nll)]
        units.append({"passage": n, "setting": "query:b=2/raw@f32", "buckets": rows, "run": 0})
    return {
        "model": {"name": "m"}, "text": {"name": "t"}, "protocol": {"ctx": 8192}, "units": units,
        "runs": [{"device": "CPU", "backend": "numba", "commit": "c"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("losses", "word"),
    [
        ([(0.010, 0.011), (0.012, 0.013), (0.011, 0.011), (0.010, 0.012)], "met"),
        ([(0.010, 0.020), (0.012, 0.023), (0.011, 0.022), (0.010, 0.021)], "missed"),
        ([(0.0011, 0.002), (-0.0023, 0.003), (0.0037, -0.001), (0.0004, 0.001)], "no loss seen"),
        ([(0.0005, 0.002), (0.004, 0.0022), (0.0002, 0.0018), (0.0003, 0.0021)], "cannot be told"),
    ],
)
def test_a_ratio_of_next_to_nothing_decides_nothing(losses, word):
    row = far(passages(*losses))[-2]
    assert row.startswith("| `query:b=2/raw@f32` | 4 | ")
    assert row.endswith(f"| {word} |")
