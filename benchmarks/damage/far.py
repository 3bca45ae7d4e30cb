"""Damage by position in a long context, with the ratio of the last positions to the first."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.damage.targets import Unit, by_setting, where
from kakeya_fast.quality.stats import DRAWS, SEED, tail_share

# From a position, up to one; the first and the last are held against each other.
SPANS = ((1024, 2048), (2048, 4096), (6144, 8192))
# How much more the last may lose with tables of frames.
MOST = 1.25


def far(data: dict[str, Any]) -> list[str]:
    """One line a setting."""
    shown = " | ".join(f"{a}–{b}" for a, b in SPANS)
    lines = [
        f"## {data['model']['name']}: {data['protocol']['ctx']} tokens of {data['text']['name']}, "
        "by position",
        "",
        "ΔPPL (and KL) of the tokens at these positions; the tables know the first 2048 positions. "
        "The last positions over the first, with intervals over passages; tables of frames may "
        f"lose {MOST} times as much ΔPPL there: met, missed, no loss seen there, or too few "
        f"passages to tell. Measured: {where(data)}.",
        "",
        f"| keys/values@tables | n | {shown} | ΔPPL, last over first | KL, last over first | |",
        "|---|---|" + "---|" * (len(SPANS) + 3),
    ]
    for name, units in by_setting(data).items():
        sums = np.array([_spans(unit) for unit in units.values()])
        kl, ppl = _means(sums.sum(0))
        cells = [f"{100 * p:+.1f} % ({k:.4f})" for k, p in zip(kl, ppl, strict=True)]
        word = _word(sums) if name.endswith(("@f32", "@moved")) else ""
        lines.append(
            f"| `{name}` | {len(units)} | {' | '.join(cells)} | {_ratio(sums, 1)} | "
            f"{_ratio(sums, 0)} | {word} |"
        )
    return [*lines, ""]


def _spans(unit: Unit) -> np.ndarray:
    """Tokens, KL and ΔNLL of every span, (spans, 3)."""
    rows = np.array(unit["buckets"])
    return np.array([rows[(a <= rows[:, 0]) & (rows[:, 0] < b), 1:4].sum(0) for a, b in SPANS])


def _means(sums: np.ndarray) -> np.ndarray:
    """KL and ΔPPL of sums (..., spans, 3), each (..., spans)."""
    return np.stack([sums[..., 1] / sums[..., 0], np.expm1(sums[..., 2] / sums[..., 0])])


def _drawn(sums: np.ndarray) -> np.ndarray:
    """:func:`_means` of passages drawn again, (2, DRAWS, spans)."""
    picks = np.random.default_rng(SEED).integers(0, len(sums), size=(DRAWS, len(sums)))
    return _means(sums[picks].sum(1))


def _word(sums: np.ndarray) -> str:
    """Whether ΔPPL keeps to MOST; a ratio of two numbers near nothing says little."""
    first, *_, last = _means(sums.sum(0))[1]
    if last <= MOST * first:
        return "met"
    ppl, tail = _drawn(sums)[1], tail_share(len(sums))
    if np.quantile(ppl[:, -1], tail) <= 0:
        return "no loss seen"
    more = np.quantile(ppl[:, -1] - MOST * ppl[:, 0], tail)
    return "missed" if more > 0 else "cannot be told"


def _ratio(sums: np.ndarray, of: int) -> str:
    found = _means(sums.sum(0))[of]
    told = f"{found[-1] / found[0]:.2f}"
    if len(sums) < 4:
        return told
    drawn = _drawn(sums)[of]
    tail = tail_share(len(sums))
    low, high = np.quantile(drawn[:, -1] / drawn[:, 0], [tail, 1 - tail])
    return f"{told} [{low:.2f}, {high:.2f}]"
