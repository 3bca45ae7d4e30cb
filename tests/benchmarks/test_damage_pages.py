"""The page of damage says what its files say, and no more."""

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

from benchmarks.damage import report as damage_report
from benchmarks.damage.far import far
from benchmarks.damage.rates import Row, gain
from benchmarks.damage.targets import ahead


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


def test_bits_saved_lie_on_the_line_through_uniform_settings():
    bits, factor = np.array([2.0, 3.0, 2.5]), np.array([0.04, 0.01, 0.05])
    spread = np.array([1.0, 2.0, 3.0])
    uniform = [
        Row(f"u{b}", (b, b), np.full(3, 10.0), 10 * f * spread, np.zeros(3))
        for b, f in zip(bits, factor, strict=True)
    ]
    # What costs 2.2 bits loses what uniform settings do with 2.5: the dearer third does not count.
    plan = Row("plan", (2.0, 2.4), np.full(3, 10.0), 10 * 0.02 * spread, np.zeros(3))
    found = gain(plan, uniform)
    assert found == pytest.approx((0.3, 0.3, 0.3))
    other = Row("plan", (2.0, 2.4), plan.tokens, 0.2 * spread[::-1], np.zeros(3))
    best, low, high = gain(other, uniform)
    assert low < best < high
    assert best == pytest.approx(0.3)


def test_what_is_ahead_of_scalar_is_said_by_bits():
    def units(kl, bits):
        rows = [[64, 100, 100 * kl * (1 + i / 10), 0.0, 90.0, 0.0] for i in range(4)]
        return {i: {"bits": [bits, bits], "buckets": [row]} for i, row in enumerate(rows)}

    found = {f"scalar:b={b}/scalar:b={b}": units(4.0**-b, b + 0.125) for b in (2, 3, 4, 5)}
    found["query:b=2/raw"] = units(0.01, 2.125) | {0: {"bits": [2.125, 16], "buckets": [[0] * 6]}}
    found["query:b=2/trellis:b=2@f32"] = units(4.0**-3.5, 2.125)
    found["query:b=3/trellis:b=3@f32"] = units(4.0**-3.5, 3.125)
    first, second = [line for line in ahead(found) if line.startswith("| `query")]
    assert "| 1.50 [1.50, 1.50] | met |" in first
    assert "| 0.50 [0.50, 0.50] | missed |" in second
