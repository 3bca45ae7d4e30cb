"""Damage against bytes: KL on a logarithmic axis, one line per codec family."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

FLOOR = 1e-6
# Uncompressed formats have nothing to show here and would stretch both axes.
MOST_BITS = 16


def plot(summary: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """PNG of mean KL with its interval against true page bits per element, one line per codec."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    families: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in summary:
        if row["page_bits"] is not None and row["page_bits"] < MOST_BITS:
            families[family(row)].append(row)
    for (name, rows), marker in zip(families.items(), cycle("osD^vP*X")):
        rows.sort(key=lambda r: r["page_bits"])
        x = [r["page_bits"] for r in rows]
        y = [max(r["kl"]["mean"], FLOOR) for r in rows]
        low = [v - max(_or(r["kl"]["low"], v), FLOOR) for r, v in zip(rows, y, strict=True)]
        high = [max(_or(r["kl"]["high"], v) - v, 0) for r, v in zip(rows, y, strict=True)]
        bars = [[max(0.0, a) for a in low], high]
        axes.errorbar(x, y, yerr=bars, marker=marker, ms=5, lw=1.2, capsize=2, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("true bits per element of a page (scales and padding included)")
    axes.set_ylabel("KL to the uncompressed cache, nats per token")
    axes.set_title(title, fontsize=10)
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def family(row: dict[str, Any]) -> str:
    """Codec ids of keys and values, once if equal, and the axis where it is not the token."""
    k, v = (_family(row[stream]) for stream in ("k", "v"))
    return k if k == v else f"{k} keys, {v} values"


def _family(text: str) -> str:
    return text.partition(":")[0] + (" by channel" if "axis=channel" in text else "")


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
