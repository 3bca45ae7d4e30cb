"""The two pictures of the lineage page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.story.facts import versus

KINDS = {
    "scalar": ("o-", "#1f6f8b"),
    "e8": ("s", "#7a9e3a"),
    "turbo": ("^", "#d1495b"),
    "skeleton": ("v", "#8d6a9f"),
}


def draw_rates(codecs: dict[str, dict[str, Any]], path: Path) -> None:
    """KL against true bits, a panel a model; hollow where some layers or tokens are exact."""
    figure, axes = _figure(max(1, len(codecs)))
    for ax, (model, data) in zip(axes, codecs.items(), strict=False):
        points: dict[tuple[str, bool], list[tuple[float, float]]] = {}
        for setting, v in sorted(versus(data).items(), key=lambda item: item[1].bits):
            partly = "exact=" in setting or "residual=" in setting
            kind = setting.partition(":")[0].partition("@")[0].partition("/")[0]
            points.setdefault((kind, partly), []).append((v.bits, v.kl["mean"]))
        for (kind, partly), found in points.items():
            style, colour = KINDS[kind]
            label = f"{kind}, layers or recent tokens exact" if partly else kind
            face = "none" if partly else colour
            line = style.removesuffix("-") if partly else style
            ax.plot(*zip(*found, strict=True), line, color=colour, mfc=face, ms=6, label=label)
        ax.set_yscale("log")
        ax.set_xlabel("true bits of an element, tables included")
        ax.set_ylabel("KL to the uncompressed model, nats a token")
        ax.set_title(model, fontsize=10)
        ax.grid(True, which="both", alpha=0.25)
    # Beside the panels: inside, there is no place that is free in all of them.
    drawn = {}
    for ax in axes:
        lines, names = ax.get_legend_handles_labels()
        drawn |= dict(zip(names, lines, strict=True))
    figure.legend(drawn.values(), drawn, fontsize=7, ncols=4, loc="outside lower center")
    figure.savefig(path, dpi=80)


def draw_sweeps(
    depth: dict[str, dict[str, Any]], layers: dict[str, dict[str, Any]], path: Path
) -> None:
    """KL against the number of coded layers, then of single layers, a row of panels a model."""
    models = [m for m in depth if m in layers]
    figure, axes = _figure(max(1, 2 * len(models)))
    for i, model in enumerate(models):
        left, right = axes[2 * i : 2 * i + 2]
        groups: dict[tuple[str, str], list[tuple[int, float]]] = {}
        for row in depth[model]["summary"]:
            groups.setdefault((row["label"], row["protocol"]), []).append(
                (row["coded"], row["kl"]["mean"])
            )
        for number, ((label, how), found) in enumerate(groups.items()):
            style = "o-" if how == "inforward" else "s--"
            name = f"{label.partition(' ')[0]}, {how}"
            left.plot(*zip(*found, strict=True), style, color=f"C{number // 2}", ms=4, label=name)
        n = [x for x, _ in next(iter(groups.values()))]
        single = [r for r in layers[model]["summary"] if r["kind"] == "single"]
        single = [r for r in single if r["protocol"] == "inforward"]
        alone = np.cumsum([r["kl"]["mean"] for r in single])
        label = f"{single[0]['label'].partition(' ')[0]}, sum of single layers"
        left.plot(n, [alone[x - 1] for x in n], "x:", color="#5b5b5b", label=label)
        left.set_xscale("log")
        left.set_yscale("log")
        left.set_xticks(n, [str(x) for x in n])
        left.set_xlabel("coded layers, from the first")
        left.set_ylabel("KL")
        left.legend(fontsize=7)
        places = range(len(single))
        right.bar(places, [r["kl"]["mean"] for r in single], color="#1f6f8b")
        right.set_xticks(places, [str(r["coded"][0]) for r in single], fontsize=6)
        right.set_xlabel("the only coded layer")
        right.set_ylabel("KL")
        for ax in (left, right):
            ax.set_title(model, fontsize=10)
            ax.grid(True, which="both", alpha=0.25)
    figure.savefig(path, dpi=80)


def _figure(panels: int) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = -(-panels // 2)
    figure = Figure(figsize=(10, 4.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(rows, 2 if panels > 1 else 1, squeeze=False).flat)
