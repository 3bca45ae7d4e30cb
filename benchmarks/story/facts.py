"""Figures of the lineage page: a codec against the scalar line, layers against their sum."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import t as student

from benchmarks.lineage_render import layer_bits, packed_layers
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.table import explicit, interval

Results = dict[str, dict[str, Any]]
VERSUS = ["model", "codec", "true bits", "KL [95 %]", "KL over scalar's [95 %]", "verdict"]
# KL below this is the rounding of the forward.
FLOOR = 1e-6


@dataclass(frozen=True)
class Section:
    """One claim: what became of it, in a sentence of figures, and what that rests on."""

    head: str
    claim: str
    fate: str
    figures: str
    lines: list[str]

    def markdown(self) -> list[str]:
        """Heading, verdict, evidence."""
        verdict = f"**The claim {self.fate}.** {self.figures}"
        return [f"## {self.head}", "", f"*{self.claim}.* {verdict}", "", *self.lines, ""]


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
        Whether it has more bits than the last scalar code, whose KL then stands for the line.
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
        """``better``, ``worse``, ``even`` where the interval holds 1, ``open`` on one passage.

        Past the end of the line, no better than fewer bits is worse, and better proves nothing.
        """
        if self.passages < 2:
            return "open"
        if self.high < 1:
            return "even" if self.beyond else "better"
        return "worse" if self.low > 1 or self.beyond else "even"


def versus(data: dict[str, Any], line: Sequence[str] = ()) -> dict[str, Versus]:
    """Every setting of a report with pages, by its string, beside a line of settings of the report.

    Parameters
    ----------
    data : dict
        Of ``benchmarks.lineage codecs`` or ``benchmarks.quality``.
    line : sequence of str
        Settings to compare with, by their true bits; all plain ``scalar`` ones if empty.
    """
    full = packed_layers(data)
    kl = per_passage(data)
    rows = [r for r in data["summary"] if layer_bits(r, full) is not None]
    chosen = [r for r in rows if (r["setting"] in line if line else _is_scalar(r["setting"]))]
    points = sorted((layer_bits(r, full), r["setting"]) for r in chosen)
    found = {}
    for row in rows:
        bits, own = layer_bits(row, full), kl[row["setting"]]
        logs = np.array(
            [
                math.log(max(own[p], FLOOR)) - _at(bits, [(b, kl[s][p]) for b, s in points])
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
            bits > points[-1][0],
        )
    return found


def per_passage(data: dict[str, Any]) -> dict[str, dict[int, float]]:
    """KL per token of every setting and passage."""
    at = {name: i for i, name in enumerate(data["columns"])}
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for score in data["scores"]:
        found[score[at["setting"]]][score[at["passage"]]] = score[at["kl"]] / score[at["tokens"]]
    return found


def against_singles(
    depth: dict[str, Any], layers: dict[str, Any]
) -> dict[tuple[str, str], dict[int, float]]:
    """KL of the first ``k`` layers over the sum of each of them coded alone.

    By codec and protocol, then by ``k``, for codecs that both reports have: 1 adds up, above 1
    compounds.
    """
    alone: dict[str, dict[int, float]] = defaultdict(dict)
    for row in layers["summary"]:
        if row["kind"] == "single":
            alone[row["codec"]][row["coded"][0]] = row["kl"]["mean"]
    found: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in depth["summary"]:
        single = alone.get(row["codec"], {})
        if row["coded"] > 1 and len(single) >= row["coded"]:
            added = sum(single[i] for i in sorted(single)[: row["coded"]])
            found[row["codec"], row["protocol"]][row["coded"]] = row["kl"]["mean"] / added
    return found


def cells(v: Versus) -> list[str]:
    """Columns of :data:`VERSUS` after the model."""
    return [f"`{v.label}`", f"{v.bits:.2f}", interval(v.kl, "{:.2g}"), interval_of(v), v.verdict]


def interval_of(v: Versus) -> str:
    """Factor and its interval; a star where it is over the last scalar code of the line."""
    factor = f"{v.factor:.2f}{'*' if v.beyond else ''}"
    return factor if v.passages < 2 else f"{factor} [{v.low:.2f}, {v.high:.2f}]"


def fate(found: list[Versus]) -> str:
    """What becomes of the claim that these are better, by those with a verdict."""
    found = [v for v in found if v.verdict != "open"]
    better, worse = (sum(v.verdict == w for v in found) for w in ("better", "worse"))
    if 2 * worse > len(found):
        return "falls"
    if 2 * better > len(found):
        return "stands"
    return "neither stands nor falls"


def tally(found: list[Versus]) -> str:
    """Verdicts, counted."""
    counts = {w: sum(v.verdict == w for v in found) for w in ("better", "even", "worse", "open")}
    return ", ".join(f"{w} in {n} of {len(found)}" for w, n in counts.items() if n)


def span(found: list[Versus]) -> str:
    """Least and greatest factor."""
    return f"{min(v.factor for v in found):.2f} to {max(v.factor for v in found):.2f}"


def _is_scalar(setting: str) -> bool:
    each = Setting.parse(setting)
    plain = each.k == each.v and each.k.partition(":")[0] == "scalar"
    return plain and not (each.residual or each.exact or each.metric)


def _at(bits: float, line: list[tuple[float, float]]) -> float:
    """Log of the KL of a line at some bits; flat past its ends, which above favours the codec."""
    return float(
        np.interp(bits, *zip(*((b, math.log(max(k, FLOOR))) for b, k in line), strict=True))
    )


def _half(logs: np.ndarray) -> float:
    n = len(logs)
    if n < 2:
        return math.inf
    return float(student.ppf(0.975, n - 1) * logs.std(ddof=1) / math.sqrt(n))


def prose(text: str) -> str:
    """One line of a text that was written over several."""
    return " ".join(text.split())
