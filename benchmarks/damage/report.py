"""The damage page from its result files: ``python -m benchmarks.damage.report``.

Reads ``results/damage/*.json``; ``DAMAGE.md`` and plots go beside them.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.damage.choices import choices, foreign
from benchmarks.damage.far import far
from benchmarks.damage.settings import TABLES
from benchmarks.damage.targets import ahead, by_setting, targets, where
from kakeya_fast.quality.stats import Estimate, pooled

RESULTS = Path(__file__).parents[1] / "results" / "damage"
# Columns of a bucket: first position, tokens, and sums of these.
KL, DNLL, AGREE = 2, 3, 4
Unit = dict[str, Any]


def main() -> None:
    """Write the page."""
    (RESULTS / "DAMAGE.md").write_text(text(), "utf-8")


def text() -> str:
    """The page; its plots are drawn on the way."""
    lines = ["# Damage of calibrated keys and trellis values", ""]
    for path in sorted(RESULTS.glob("*-main.json")):
        lines += page(json.loads(path.read_text("utf-8")), path)
    parts = (
        ("short", learned_briefly),
        ("long", far),
        ("books", far),
        ("prose", foreign),
        ("code", foreign),
        ("portuguese", foreign),
        ("russian", foreign),
    )
    for part, render in (*parts, *((p, choices) for p in ("main", "open", "learned", "books"))):
        for path in sorted(RESULTS.glob(f"*-{part}.json")):
            lines += render(json.loads(path.read_text("utf-8")))
    notes = RESULTS / "NOTES.md"
    if notes.exists():
        lines += [notes.read_text("utf-8").strip(), ""]
    return "\n".join(lines)


def mean(units: list[Unit], column: int) -> Estimate:
    """Mean per token over the passages of a setting, with its interval."""
    rows = [np.array(unit["buckets"])[:, 1:].sum(0) for unit in units]
    return pooled([r[column - 1] for r in rows], [int(r[0]) for r in rows])


def bits(unit: Unit) -> tuple[float, float, float]:
    """True bits per number of keys, of values, and of what is coded of them."""
    k, v = unit["bits"]
    coded = [b for b in (k, v) if b < 16]
    return k, v, sum(coded) / len(coded)


def page(data: dict[str, Any], path: Path) -> list[str]:
    """Table, targets and plot of one model."""
    model, protocol, found = data["model"], data["protocol"], by_setting(data)
    rows, drawn = [], []
    for name, units in found.items():
        some = list(units.values())
        kl, dnll, top = (mean(some, c) for c in (KL, DNLL, AGREE))
        k, v, both = bits(some[0])
        rows.append(
            f"| `{name}` | {_bits(k)} | {_bits(v)} | {both:.3f} | {len(some)} | {_span(kl, 4)} | "
            f"{_percent(dnll)} | {100 * top.mean:.1f} % |"
        )
        drawn.append((name, both, kl))
    plot(drawn, model["name"], path.with_suffix(".png"))
    tables = data["calibration"]["tables"]
    share = {n: f"{t['bytes'] / 1e6:.1f} MB" for n, t in tables.items()}
    sources = {n: "+".join(t["texts"]) for n, t in tables.items()}
    told = "; ".join(
        f"`{n}`: {sources[n]}, frames of {t['frame']}, {share[n]}" + _counted(n)
        for n, t in tables.items()
    )
    return [
        f"## {model['name']}: {protocol['ctx']} tokens, {data['text']['name']}",
        "",
        "In-forward: one pass over each passage. Every layer "
        f"({protocol['layers']}) reads the sinks ({protocol['sinks']}), its own page and the "
        "unfilled page exactly, and all other pages decoded from their bytes; pages of "
        f"{protocol['page']} tokens; positions from {protocol['warmup']} on; model and arithmetic "
        f"{model['dtype']}, on {where(data)}. "
        f"Passages are disjoint, of a text that no table has seen. True bits: "
        "bytes of the pages, scales included, over their numbers. Intervals: 95 %, bootstrap "
        "over passages.",
        "",
        f"Tables ({data['calibration']['tokens_a_text']} tokens of each text): {told}.",
        "",
        "| keys/values@tables | K bits | V bits | coded bits | n | KL, nats | ΔPPL | top-1 |",
        "|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"![KL against bits]({path.with_suffix('.png').name})",
        "",
        *targets({n: list(u.values()) for n, u in found.items()}, model["name"]),
        *ahead(found),
    ]


def learned_briefly(data: dict[str, Any]) -> list[str]:
    """Tables that take two cores minutes: the table, and its targets against ``scalar`` above."""
    name, found = data["model"]["name"], by_setting(data)
    text, options = TABLES["short"]
    lines = [
        f"## {name}: tables of {options['tokens']} tokens",
        "",
        f"Same passages and protocol as above, with tables of {options['tokens']} tokens of "
        f"{text[0]}, on {where(data)}. Ratios are to the rows of `scalar` above. *More*: KL of the "
        "same codec above, with tables `f32`.",
        "",
        "| keys/values | coded bits | n | KL, nats | more | ΔPPL | top-1 |",
        "|---|---|---|---|---|---|---|",
    ]
    main = by_setting(json.loads((RESULTS / f"{name}-main.json").read_text("utf-8")))
    codecs = {}
    for setting, units in found.items():
        some = list(units.values())
        kl, dnll, top = (mean(some, c) for c in (KL, DNLL, AGREE))
        pair = setting.partition("@")[0]
        codecs[f"{pair}@moved"] = some
        more = main.get(f"{pair}@f32")
        told = f"{mean(list(more.values()), KL).mean:.4f}" if more else "–"
        lines.append(
            f"| `{pair}` | {bits(some[0])[2]:.3f} | {len(some)} | {_span(kl, 4)} | {told} | "
            f"{_percent(dnll)} | {100 * top.mean:.1f} % |"
        )
    scalar = {s: list(u.values()) for s, u in main.items() if "scalar" in s}
    rows = [row for row in targets(scalar | codecs, name) if "not measured" not in row]
    return [*lines, "", *(row.replace("@moved", "") for row in rows)]


def _counted(table: str) -> str:
    alike = TABLES[table][1].get("alike")
    return "" if alike is None else ", all keys alike" if alike == 1 else f", alike {alike}"


def _bits(b: float) -> str:
    return "–" if b >= 16 else f"{b:.3f}"


def _span(e: Estimate, digits: int) -> str:
    tail = "" if e.low is None else f" [{e.low:.{digits}f}, {e.high:.{digits}f}]"
    return f"{e.mean:.{digits}f}{tail}"


def _percent(e: Estimate) -> str:
    tail = (
        ""
        if e.low is None
        else f" [{100 * math.expm1(e.low):+.1f}, {100 * math.expm1(e.high):+.1f}]"
    )
    return f"{100 * math.expm1(e.mean):+.1f} %{tail}"


def plot(rows: list[tuple[str, float, Estimate]], title: str, path: Path) -> None:
    """PNG of KL against coded bits, keys alone and both streams."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    lines: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for name, coded, kl in rows:
        codecs, _, tables = name.partition("@")
        k, _, v = codecs.partition("/")
        label = f"{k.partition(':')[0]} keys, {v.partition(':')[0]} values"
        lines[label + (f" ({tables})" if tables else "")].append((coded, kl.mean))
    for label, points in lines.items():
        points.sort()
        axes.plot(*zip(*points, strict=True), marker="o", ms=4, lw=1.2, label=label)
    axes.set_yscale("log")
    axes.set_xlabel("true bits per coded number")
    axes.set_ylabel("KL to the uncompressed model, nats per token")
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=90)


if __name__ == "__main__":
    main()
