"""Tables of foreign calibration and of choices that were open: one line each, against a basis."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from benchmarks.damage.settings import KINDS
from benchmarks.damage.targets import Unit, by_setting, paired, ratio_of, where
from kakeya_fast.quality.stats import DRAWS, SEED, tail_share

Found = dict[str, dict[int, Unit]]
UNBIASED = ",gain=unbiased"
# What a row is held against, by how it begins or what it is.
BASES = (
    ("raw/even:scalar:b=2", "raw/scalar:b=2"),
    ("trial:looked=yes,looking=yes,even=yes/raw", "trial:looked=yes,looking=yes/raw"),
    ("trial:b=3,looked=yes,looking=yes,even=yes/raw", "trial:b=3,looked=yes,looking=yes/raw"),
    ("trial:/raw", "query:b=2/raw@f32"),
    ("raw/trial", "raw/trellis:b=2"),
    ("trial", "trial:/raw"),
    ("query:b=1.5/trellis:b=3", "query:b=2.5/trellis:b=2@f32"),
    ("query:b=2/trellis:b=3", "query:b=3/trellis:b=2@f32"),
    ("query:b=2/raw", "query:b=2/raw@f32"),
    ("query:b=3/raw", "query:b=3/raw@f32"),
    ("query:b=2,f=1/raw@moved1", "query:b=2/raw@moved"),
    ("query:b=3,f=1/raw@moved1", "query:b=3/raw@moved"),
    ("query:b=2,f=128/raw@moved128", "query:b=2/raw@moved"),
    ("query:b=2,f=1", "query:b=2/raw@f32"),
    ("query:b=3,f=1", "query:b=3/raw@f32"),
    ("query:b=2,f=", "query:b=2/raw@f32"),
)
WORDS = {
    "query:b=2/raw@near": "queries within 128 tokens of a frame only",
    "query:b=2/raw@far": "queries anywhere in the context only",
    "query:b=2/raw@close": "near queries within 32 tokens of a frame",
    "query:b=2/raw@ridge3": "ridge of 0.001",
    "query:b=2/raw@ridge1": "ridge of 0.1",
    "query:b=3/raw@ridge1": "ridge of 0.1",
    **dict.fromkeys(
        (
            f"{codecs}@moved"
            for codecs in (
                "query:b=2/raw",
                "query:b=3/raw",
                "query:b=2/trellis:b=2",
                "query:b=2.5/trellis:b=2",
                "query:b=3/trellis:b=3",
                "query:b=4/trellis:b=4",
            )
        ),
        "keys and queries counted by how far errors move outputs",
    ),
    **dict.fromkeys(
        ("query:b=2/raw@fifth", "query:b=3/raw@fifth"), "the same, a fifth of all keys alike"
    ),
    **dict.fromkeys(
        (
            "query:b=2,f=1/raw@moved1",
            "query:b=3,f=1/raw@moved1",
            "query:b=2,f=1/raw@f1",
            "query:b=3,f=1/raw@f1",
        ),
        "frames of 1",
    ),
    **dict.fromkeys(("query:b=2,f=128/raw@moved128", "query:b=2,f=128/raw@f128"), "frames of 128"),
    "query:b=2,f=512/raw@f512": "frames of 512",
    "query:b=2,f=2048/raw@f2048": "frames of 2048",
    "trial:/raw": "the codec in floats, nothing changed",
    "trial:band=16/raw": "bands of 16",
    "trial:band=32/raw": "bands of 32",
    "trial:gain=0/raw": "no gain",
    "trial:steps=0/raw": "exact gain",
    "trial:gain=4,steps=1/raw": "gain in steps of an octave, counted as 4 bits",
    "trial:quantiser=lloyd/raw": "Lloyd-Max in every band",
    "trial:quantiser=walk/raw": "the walk through every band",
    "trial:metric=no/raw": "principal components, no query metric",
    "trial:turn=no/raw": "components not mixed inside a band",
    "trial:shrink=0.01/raw": "covariance shrunk by 1 %",
    "trial:shrink=0.1/raw": "covariance shrunk by 10 %",
    "trial:adapt=32/raw": "spreads of bands from a sequence's first page",
    "trial:adapt=1024/raw": "spreads of bands from the whole passage",
    "trial:looked=yes/raw": "keys counted by the attention they get",
    "trial:looking=yes/raw": "queries counted by the attention they give",
    "trial:looked=yes,looking=yes/raw": "both",
    **dict.fromkeys(
        (
            "trial:looked=yes,looking=yes,even=yes/raw",
            "trial:b=3,looked=yes,looking=yes,even=yes/raw",
        ),
        "bands come back as long, along themselves, as they were",
    ),
    "raw/even:scalar:b=2": "`scalar` with such scale bytes",
    "raw/trial:shrink=1,metric=no": "values: the same bits for all, mean removed",
    "raw/trial:metric=no": "values: principal components, bits by band",
    "raw/trial:": "values: the same under the metric of the output projection",
    "raw/trial:looked=yes,metric=no": "values: components of tokens weighted by attention",
    "raw/trial:looked=yes": "values: both, output projection and attention",
    "query:b=1.5/trellis:b=3@f32": "a bit from keys to values",
    "query:b=2/trellis:b=3@f32": "a bit from keys to values",
}


def choices(data: dict[str, Any]) -> list[str]:
    """One line a choice: KL against that of its basis, same passages."""
    found, rows = by_setting(data), []
    head = [
        f"## {data['model']['name']}: choices, {data['protocol']['ctx']} tokens of "
        f"{data['text']['name']}",
        "",
        "KL of a setting over that of its basis, same passages. `trial` rows are codecs in floats "
        "that are not in the format; each changes one choice. Decided by whether the interval "
        f"leaves 1 out. Measured: {where(data)}.",
        "",
        "| changed | setting | bits | basis | n | KL over basis [95 %] | |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, units in found.items():
        words, basis = WORDS.get(name), _basis(name)
        if UNBIASED in name:
            words = "scale bytes chosen after the walk (`gain=unbiased`)"
        if words is None or basis not in found:
            continue
        both = paired(list(units.values()), list(found[basis].values()))
        ratio, low, high = ratio_of(both)
        k, v = next(iter(units.values()))["bits"]
        bits = "+".join(f"{b:.3f}" for b in (k, v) if b < 16)
        span = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        word = "" if low is None or high is None else _word(low, high)
        rows.append(
            f"| {words} | `{name}` | {bits} | `{basis}` | {len(both)} | "
            f"{ratio:.2f}{span} | {word} |"
        )
    return [*head, *rows, ""] if rows else []


def _basis(name: str) -> str | None:
    """The setting that a row is held against."""
    if UNBIASED in name:
        return name.replace(UNBIASED, "")
    pair, _, tables = name.partition("@")
    if tables in ("moved", "fifth"):
        return f"{pair}@f32"
    return next((b for start, b in BASES if name.startswith(start) and b != name), None)


def _word(low: float, high: float) -> str:
    return "better" if high < 1 else "worse" if low > 1 else "no difference seen"


def foreign(data: dict[str, Any]) -> list[str]:
    """How much of the gain over ``scalar`` tables of another domain keep."""
    found, here = by_setting(data), data["text"]["name"]
    lines = [
        f"## {data['model']['name']}: foreign calibration, measured on {here}",
        "",
        f"Keys alone, {_passages(found)} passages. *Kept* is the gain over `scalar` of the same "
        "bits (KL) of foreign tables over that of a text's own kind; the target is a half. `f32` "
        f"is English prose and reference. Measured: {where(data)}.",
        "",
        "| keys | own tables | KL | foreign tables | KL | KL, `scalar` | kept [95 %] | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for codec, (own, other) in itertools.product(("query:b=2", "query:b=3"), KINDS[here]):
        rows = [f"{codec}/raw@{own}", f"{codec}/raw@{other}"]
        rows.append(codec.replace("query", "scalar") + "/raw")
        if any(name not in found for name in rows):
            continue
        shared = sorted(set.intersection(*(set(found[name]) for name in rows)))
        kl = np.array([[_sums(found[name][p]) for name in rows] for p in shared])
        mine, theirs, scalar = kl[:, :, 0].sum(0) / kl[:, :, 1].sum(0)
        kept = _kept(kl[:, :, 0].sum(0))
        picks = np.random.default_rng(SEED).integers(0, len(kl), size=(DRAWS, len(kl)))
        tail = tail_share(len(kl))
        low, high = np.quantile(_kept(kl[picks][:, :, :, 0].sum(1)), [tail, 1 - tail])
        word = "met" if kept >= 0.5 else "missed"
        lines.append(
            f"| `{codec}` | `{own}` | {mine:.4f} | `{other}` | {theirs:.4f} | {scalar:.4f} | "
            f"{100 * kept:.0f} % [{100 * low:.0f}, {100 * high:.0f}] | {word} |"
        )
    return [*lines, ""]


def _kept(sums: np.ndarray) -> np.ndarray:
    """Of sums (..., 3) of own, foreign and scalar."""
    return (sums[..., 2] - sums[..., 1]) / (sums[..., 2] - sums[..., 0])


def _sums(unit: Unit) -> tuple[float, float]:
    total = np.array(unit["buckets"])[:, 1:3].sum(0)
    return float(total[1]), float(total[0])


def _passages(found: Found) -> str:
    counts = {len(units) for units in found.values()}
    return f"{min(counts)}" if len(counts) == 1 else f"{min(counts)} to {max(counts)}"
