"""Ratio against context: what was measured, how it goes on, and what repetition pretends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.standard.bytes import baseline, contexts_of, historic, measured
from benchmarks.standard.extrapolate import TARGETS, project


def plot(prose: dict[str, Any], again: dict[str, Any] | None, path: Path) -> None:
    """PNG: whole cache, ratio to bf16; dots are measured, shades are bands of the pages seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for number, name in enumerate(prose["runs"]):
        colour = f"C{number}"
        known = contexts_of(prose, name)
        targets = sorted({*known, *(t for t in TARGETS if t > known[-1])})
        points = [project(prose, name, t) for t in targets]
        bases = [baseline(prose, t).total for t in targets]
        ratios = [b / p.mean for b, p in zip(bases, points, strict=True)]
        axes.plot(targets, ratios, color=colour, lw=1.3, label=name)
        axes.plot(known, ratios[: len(known)], "o", color=colour, ms=4)
        if any(not p.exact for p in points):
            low = [b / p.high for b, p in zip(bases, points, strict=True)]
            high = [b / p.low for b, p in zip(bases, points, strict=True)]
            axes.fill_between(targets, low, high, color=colour, alpha=0.15, lw=0)
        if again and name in again["runs"] and any(not p.exact for p in points):
            known = contexts_of(again, name)
            true = [baseline(again, t).total / measured(again, name, t).total for t in known]
            axes.plot(known, true, "x--", color=colour, lw=1, label=f"{name}, paragraph repeated")
    for data, mark, label in ((prose, "k:", "prose"), (again, "k--", "paragraph repeated")):
        if data and "skeleton" in data["runs"]:
            known = contexts_of(data, "skeleton")
            said = [baseline(data, t).total / historic(data, t).projected for t in known]
            axes.plot(known, said, mark, lw=1, label=f"skeleton as once projected, {label}")
    axes.set_xscale("log", base=2)
    axes.set_xticks(TARGETS, [f"{t // 1024}k" for t in TARGETS])
    axes.set_xlabel("tokens")
    axes.set_ylabel("bf16 bytes over bytes kept, whole cache")
    axes.set_title(prose["model"]["name"], fontsize=10)
    axes.grid(True, alpha=0.25)
    axes.legend(fontsize=7)
    figure.savefig(path, dpi=100)
