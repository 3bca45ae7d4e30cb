"""Figures of the lineage page: a codec against the scalar line, layers against their sum."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks.lineage_render import layer_bits
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.table import explicit, interval

VERSUS = ["model", "codec", "true bits", "KL [95 %]", "KL over scalar's [95 %]", "verdict"]
# KL below this is the rounding of the forward.
FLOOR = 1e-6


@dataclass(frozen=True)
class Versus:
    """A setting beside ``scalar`` codes of the same size.

    Attributes
    ----------
    bits : float
        True bits of its pages, tables included, as a mean over packed layers.
    factor, low, high : float
        KL over that of the scalar line at the same bits: geometric mean over passages, and its
        95 % interval by Student's t.
    beyond : bool
        Whether the line had to be carried on past its ends.
    """

    label: str
    bits: float
    kl: dict[str, Any]
    factor: float
    low: float
    high: float
    passages: int
    beyond: bool

    @property
    def verdict(self) -> str:
        """``better``, ``worse``, or ``even`` where the interval holds 1."""
        return "better" if self.high < 1 else "worse" if self.low > 1 else "even"


def versus(data: dict[str, Any], page: int | None = None) -> dict[str, Versus]:
    """Every setting of a report with pages, by its string, beside the scalar line of the report.

    Parameters
    ----------
    data : dict
        Of ``benchmarks.lineage codecs`` or ``benchmarks.quality``.
    page : int, optional
        The line is made of scalar settings of this page size only.
    """
    full = len(data.get("full_layers", ())) or 1
    kl = per_passage(data)
    rows = [r for r in data["summary"] if layer_bits(r, full) is not None]
    line = sorted((layer_bits(r, full), r["setting"]) for r in rows if _on_line(r["setting"], page))
    ends = (line[0][0], line[-1][0])
    found = {}
    for row in rows:
        bits, own = layer_bits(row, full), kl[row["setting"]]
        logs = np.array(
            [
                math.log(max(own[p], FLOOR)) - _at(bits, [(b, kl[s][p]) for b, s in line])
                for p in own
            ]
        )
        middle, half = float(logs.mean()), _half(logs)
        found[row["setting"]] = Versus(
            explicit(row),
            bits,
            row["kl"],
            *(math.exp(x) for x in (middle, middle - half, middle + half)),
            len(logs),
            not ends[0] <= bits <= ends[1],
        )
    return found


def per_passage(data: dict[str, Any]) -> dict[str, dict[int, float]]:
    """KL per token of every setting and passage."""
    at = {name: i for i, name in enumerate(data["columns"])}
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for score in data["scores"]:
        found[score[at["setting"]]][score[at["passage"]]] = score[at["kl"]] / score[at["tokens"]]
    return found


def slope(rows: list[dict[str, Any]]) -> float:
    """Exponent of KL against the number of coded layers: 1 adds up, above 1 compounds."""
    x = np.log([row["coded"] for row in rows])
    y = np.log([max(row["kl"]["mean"], FLOOR) for row in rows])
    return float(np.polyfit(x, y, 1)[0])


def cells(v: Versus) -> list[str]:
    """Columns of :data:`VERSUS` after the model."""
    return [f"`{v.label}`", f"{v.bits:.2f}", interval(v.kl, "{:.2g}"), interval_of(v), v.verdict]


def interval_of(v: Versus) -> str:
    """Factor and its interval; a star where the line was carried on past its ends."""
    return f"{v.factor:.2f}{'*' if v.beyond else ''} [{v.low:.2f}, {v.high:.2f}]"


def fate(found: list[Versus]) -> str:
    """What becomes of the claim that these are better."""
    better, worse = (sum(v.verdict == w for v in found) for w in ("better", "worse"))
    if 2 * worse > len(found):
        return "falls"
    if 2 * better > len(found):
        return "stands"
    return "neither stands nor falls"


def tally(found: list[Versus]) -> str:
    """Verdicts, counted."""
    counts = {w: sum(v.verdict == w for v in found) for w in ("better", "even", "worse")}
    return ", ".join(f"{w} in {n} of {len(found)}" for w, n in counts.items() if n)


def span(found: list[Versus]) -> str:
    """Least and greatest factor."""
    return f"{min(v.factor for v in found):.2f} to {max(v.factor for v in found):.2f}"


def every(found: list[Versus], verdict: str) -> bool:
    """Whether all have that verdict."""
    return all(v.verdict == verdict for v in found)


def _on_line(setting: str, page: int | None) -> bool:
    each = Setting.parse(setting)
    plain = each.k == each.v and each.k.partition(":")[0] == "scalar"
    bare = not (each.residual or each.exact or each.metric)
    return plain and bare and (page is None or each.page == page)


def _at(bits: float, line: list[tuple[float, float]]) -> float:
    """Log of the KL of a line at some bits; its first or last piece is carried on."""
    last = len(line) - 2
    i = min(max(sum(b <= bits for b, _ in line) - 1, 0), last)
    (b0, k0), (b1, k1) = line[i], line[i + 1]
    y0, y1 = (math.log(max(k, FLOOR)) for k in (k0, k1))
    return y0 + (y1 - y0) * (bits - b0) / (b1 - b0)


def _half(logs: np.ndarray) -> float:
    n = len(logs)
    if n < 2:
        return math.inf
    return float(student.ppf(0.975, n - 1) * logs.std(ddof=1) / math.sqrt(n))
