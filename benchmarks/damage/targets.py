"""What the damage was to be, and what it is: ratios of passages that both settings have."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.damage.rates import Row, gain, row_of
from benchmarks.damage.settings import PARTS, name_of
from kakeya_fast.quality.stats import DRAWS, SEED, tail_share

Unit = dict[str, Any]
# (setting, against, what the ratio of their KL may be at most)
RATIOS: dict[str, tuple[tuple[str, str, float], ...]] = {
    "smollm2-135m": (
        ("query:b=3/trellis:b=3,gain=unbiased@moved", "scalar:b=4/scalar:b=4", 1.0),
        ("query:b=2.5/trellis:b=2,gain=unbiased@moved", "scalar:b=3/scalar:b=3", 0.85),
        ("query:b=2/trellis:b=2,gain=unbiased@moved", "scalar:b=2/scalar:b=2", 0.28),
        ("query:b=2/raw@moved", "scalar:b=3/raw", 0.6),
        ("query:b=2,f=1/raw@moved1", "scalar:b=3/raw", 0.3),
        ("query:b=2,f=128/raw@moved128", "scalar:b=3/raw", 0.6),
        ("query:b=2/raw@reference", "scalar:b=2/raw", 0.5),
        ("raw/trellis:b=2,gain=unbiased", "raw/scalar:b=2", 0.8),
    ),
    "gemma3-270m": (
        ("query:b=3/trellis:b=3,gain=unbiased@moved", "scalar:b=4/scalar:b=4", 0.4),
        ("query:b=2.5/trellis:b=2,gain=unbiased@moved", "scalar:b=4/scalar:b=4", 1.0),
        ("query:b=2/trellis:b=2,gain=unbiased@moved", "scalar:b=2/scalar:b=2", 0.09),
        ("query:b=2/raw@moved", "scalar:b=3/raw", 0.6),
        ("query:b=2,f=1/raw@moved1", "scalar:b=3/raw", 0.3),
        ("query:b=2,f=128/raw@moved128", "scalar:b=3/raw", 0.6),
        ("raw/trellis:b=2,gain=unbiased", "raw/scalar:b=2", 0.8),
    ),
}
# (setting, what ΔPPL may be at most)
LIMITS: dict[str, tuple[tuple[str, float], ...]] = {
    "smollm2-135m": (
        ("query:b=3/trellis:b=3,gain=unbiased@moved", 0.05),
        ("query:b=3/raw@moved", 0.02),
    ),
    "gemma3-270m": (
        ("query:b=3/trellis:b=3,gain=unbiased@moved", 0.03),
        ("query:b=3/raw@moved", 0.02),
    ),
}
# What `scalar` is to need more for the same KL, in bits of keys and values together.
AHEAD = 1.0
# With frames, every ratio was to be a quarter lower than with absolute tables.
BEYOND = 0.75


def by_setting(data: dict[str, Any]) -> dict[str, dict[int, Unit]]:
    """Units by setting and passage, settings in the order of the plan."""
    found: dict[str, dict[int, Unit]] = {
        name_of(row): {} for part in PARTS.values() for row in part[3]
    }
    for unit in data["units"]:
        found.setdefault(unit["setting"], {})[unit["passage"]] = unit
    return {name: units for name, units in found.items() if units}


def targets(found: dict[str, list[Unit]], model: str) -> list[str]:
    """A table of targets, met or missed; those that nobody measured are named as well."""
    lines = [
        "| target | measured | n | |",
        "|---|---|---|---|",
    ]
    for setting, against, most in RATIOS.get(model, ()):
        both = paired(found.get(setting, []), found.get(against, []))
        text = f"KL of `{setting}` ≤ {most} x `{against}`"
        if not both:
            lines.append(f"| {text} | – | 0 | not measured |")
            continue
        ratio, low, high = ratio_of(both)
        span = "" if low is None else f" [{low:.2f}, {high:.2f}]"
        word = "met" if ratio <= most else "missed"
        word += ", by a quarter and more" if ratio <= BEYOND * most else ""
        lines.append(f"| {text} | {ratio:.2f}{span} | {len(both)} | {word} |")
    for setting, most in LIMITS.get(model, ()):
        units = found.get(setting, [])
        text = f"ΔPPL of `{setting}` ≤ {100 * most:.0f} %"
        if not units:
            lines.append(f"| {text} | – | 0 | not measured |")
            continue
        rows = np.array([_sums(unit) for unit in units])
        ppl = math.expm1(rows[:, 2].sum() / rows[:, 0].sum())
        word = "met" if ppl <= most else "missed"
        lines.append(f"| {text} | {100 * ppl:+.1f} % | {len(units)} | {word} |")
    return [*lines, ""]


def of_both(found: dict[str, dict[int, Unit]]) -> tuple[dict[str, Row], dict[str, Row]]:
    """Settings that code keys and values, and those of them that are ``scalar``."""
    rows = {name: row_of(name, units) for name, units in found.items()}
    both = {name: row for name, row in rows.items() if max(row.bits) < 16}
    return both, {name: row for name, row in both.items() if name.startswith("scalar")}


def ahead(found: dict[str, dict[int, Unit]]) -> list[str]:
    """How many bits ``scalar`` needs more, for every setting of both streams."""
    both, scalar = of_both(found)
    lines = [
        f"At the same KL `scalar` needs more bits, on the line of log KL by bits; {AHEAD:.0f} was "
        "asked.",
        "",
        "| keys/values | true bits | n | `scalar` needs more [95 %] | |",
        "|---|---|---|---|---|",
    ]
    for name, row in both.items():
        if name in scalar or len(scalar) < 2:
            continue
        bits, low, high = gain(row, list(scalar.values()))
        word = "met" if bits >= AHEAD else "missed"
        word = word if name.startswith("query") else ""
        lines.append(
            f"| `{name}` | {row.mean_bits:.3f} | {len(row.kl)} | {bits:.2f} [{low:.2f}, "
            f"{high:.2f}] | {word} |"
        )
    return [*lines, ""]


def _sums(unit: Unit) -> np.ndarray:
    """Tokens, KL, ΔNLL of a passage."""
    return np.array(unit["buckets"])[:, 1:4].sum(0)


def where(data: dict[str, Any]) -> str:
    """Devices and backends of the runs of a file, and what was measured there."""
    told: dict[str, set[str]] = {}
    for unit in data["units"]:
        run = data["runs"][unit["run"]]
        codecs = {c.partition(":")[0] for c in unit["setting"].partition("@")[0].split("/")}
        place = f"{run['device']} (backend {run['backend']}, {run['commit'] or 'commit unknown'})"
        told.setdefault(place, set()).update(codecs - {"raw"})
    if len(told) == 1:
        return next(iter(told))
    return "; ".join(f"{', '.join(sorted(what))} on {place}" for place, what in told.items())


def paired(mine: list[Unit], other: list[Unit]) -> list[tuple[float, float]]:
    """KL sums of the passages that both have."""
    of = {unit["passage"]: _sums(unit)[1] for unit in other}
    return [(_sums(u)[1], of[u["passage"]]) for u in mine if u["passage"] in of]


def ratio_of(both: list[tuple[float, float]]) -> tuple[float, float | None, float | None]:
    """Ratio of sums, with its interval over passages."""
    x = np.array(both)
    ratio = float(x[:, 0].sum() / x[:, 1].sum())
    if len(x) < 3:
        return ratio, None, None
    picks = np.random.default_rng(SEED).integers(0, len(x), size=(DRAWS, len(x)))
    drawn = x[picks].sum(1)
    tail = tail_share(len(x))
    low, high = np.quantile(drawn[:, 0] / drawn[:, 1], [tail, 1 - tail])
    return ratio, float(low), float(high)
