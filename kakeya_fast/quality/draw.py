"""Plots of the three diagnoses: stages, depth and layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# KL below this is rounding of the forward itself.
FLOOR = 1e-6
COLOURS = ("#1f6f8b", "#d1495b", "#7a9e3a", "#8d6a9f", "#c98a2b", "#5b5b5b")


def draw_stages(staged: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """SNR in dB after each stage, a panel per item; an injected error stands beside."""
    figure, axes = _figure(len(staged), 4.2)
    for ax, item in zip(axes, staged, strict=True):
        names = [s["name"] for s in item["stages"]]
        wrong = {s["name"]: s for s in item["injected"]}
        width = 0.4 if wrong else 0.7
        for i, stage in enumerate(item["stages"]):
            at = i - width / 2 if wrong else i
            _bar(ax, at, width, stage, COLOURS[0])
            if stage["name"] in wrong:
                _bar(ax, i + width / 2, width, wrong[stage["name"]], COLOURS[1])
        ax.set_xticks(range(len(names)), names, rotation=25, ha="right", fontsize=8)
        ax.set_title(item.get("title", item["codec"]), fontsize=9)
        ax.set_ylabel("SNR, dB (on the bars: correlation)")
        ax.margins(y=0.2)
        ax.grid(True, axis="y", alpha=0.25)
        if wrong:
            handles = [ax.bar(0, 0, color=c) for c in COLOURS[:2]]
            names = ["as specified", f"with error {item['inject']!r}"]
            ax.legend(handles, names, fontsize=8, loc="upper right", ncols=2)
    _save(figure, title, path)


def draw_bits(staged: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """SNR after the quantiser against its bits, without and with each injected error."""
    figure, (ax,) = _figure(1, 4.2, wide=6.5)
    for item, colour in zip(staged, cycle(COLOURS[1:])):
        x = [int(b) for b in item["by_bits"]]
        if item is staged[0]:
            ax.plot(x, list(item["by_bits"].values()), "o-", color=COLOURS[0], label="as specified")
        label = f"with error {item['inject']!r}"
        ax.plot(x, list(item["injected_by_bits"].values()), "s--", color=colour, label=label)
    ax.set_yscale("log")
    ax.set_xticks(x)
    ax.set_xlabel("bits of a residual number")
    ax.set_ylabel("SNR after the quantiser (power)")
    ax.grid(True, which="both", alpha=0.25)
    ax.legend(fontsize=8)
    _save(figure, title, path)


def draw_depth(data: dict[str, Any], title: str, path: Path) -> None:
    """KL and ΔPPL against the number of coded layers, a line per codec and protocol."""
    figure, (left, right) = _figure(2, 4.4)
    rows = data["summary"]
    codecs = list(dict.fromkeys(r["codec"] for r in rows))
    for codec, how in dict.fromkeys((r["codec"], r["protocol"]) for r in rows):
        mine = [r for r in rows if (r["codec"], r["protocol"]) == (codec, how)]
        x = [r["coded"] for r in mine]
        style = {
            "color": COLOURS[codecs.index(codec) % len(COLOURS)],
            "ls": "-" if how == "inforward" else "--",
            "marker": "o" if how == "inforward" else "s",
            "ms": 4,
            "lw": 1.2,
            "capsize": 2,
            "label": f"{mine[0]['label']}, {how}",
        }
        _line(left, x, [r["kl"] for r in mine], style, FLOOR)
        _line(right, x, [r["dppl_percent"] for r in mine], style, None)
    left.set_yscale("log")
    left.set_ylabel("KL to the uncompressed cache, nats per token")
    right.set_yscale("symlog", linthresh=1)
    right.set_ylabel("ΔPPL, %")
    for ax in (left, right):
        ax.set_xscale("log", base=2)
        ticks = sorted({r["coded"] for r in rows})
        ax.set_xticks(ticks, [str(t) for t in ticks])
        ax.set_xlabel("coded layers, from the first on")
        ax.grid(True, which="major", alpha=0.25)
    left.legend(fontsize=7)
    _save(figure, title, path)


def draw_layers(data: dict[str, Any], title: str, path: Path) -> None:
    """KL of every layer alone, and of the choices; sum and all together as lines."""
    groups = data["sums"]
    figure, axes = _figure(2 * len(groups), 4.0, columns=2)
    for number, group in enumerate(groups):
        left, right = axes[2 * number], axes[2 * number + 1]
        key = (group["codec"], group["protocol"])
        mine = [r for r in data["summary"] if (r["codec"], r["protocol"]) == key]
        single = [r for r in mine if r["kind"] == "single"]
        _bars(left, [str(r["coded"][0]) for r in single], [r["kl"] for r in single])
        for what, colour in (("singles", COLOURS[2]), ("together", COLOURS[1])):
            label = "sum of singles" if what == "singles" else "all together"
            left.axhline(max(group[what]["kl"]["mean"], FLOOR), color=colour, lw=1.2, label=label)
        left.set_xlabel("the layer that is coded")
        left.legend(fontsize=8)
        others = [r for r in mine if r["kind"] != "single"]
        _bars(right, [r["name"] for r in others], [r["kl"] for r in others])
        right.tick_params(axis="x", labelrotation=20)
        for ax in (left, right):
            ax.set_title(f"{group['label']}, {group['protocol']}", fontsize=9)
            ax.set_ylabel("KL, nats per token")
    _save(figure, title, path)


def _figure(
    panels: int, height: float, *, columns: int = 3, wide: float = 5.5
) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(panels, columns)
    rows = -(-panels // columns)
    figure = Figure(figsize=(wide * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax in grid.ravel()[panels:]:
        ax.set_axis_off()
    return figure, list(grid.ravel()[:panels])


def _save(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def _bar(ax: Axes, at: float, width: float, stage: dict[str, Any], colour: str) -> None:
    decibels = 10 * math.log10(stage["snr"])
    ax.bar(at, decibels, width, color=colour)
    ax.annotate(
        f"{stage['corr']:.3f}",
        (at, decibels),
        ha="center",
        va="bottom" if decibels >= 0 else "top",
        fontsize=6,
    )


def _bars(ax: Axes, names: Sequence[str], found: Sequence[dict[str, float]]) -> None:
    y, spread = _spread(found, FLOOR)
    ax.bar(range(len(y)), y, color=COLOURS[0], yerr=spread, capsize=2, error_kw={"lw": 0.8})
    size = 8 if len(names) < 12 else 6
    ax.set_xticks(range(len(names)), names, fontsize=size)
    ax.set_yscale("log")
    ax.grid(True, axis="y", alpha=0.25)


def _line(
    ax: Axes,
    x: Sequence[int],
    found: Sequence[dict[str, float]],
    style: dict[str, Any],
    floor: float | None,
) -> None:
    y, spread = _spread(found, floor)
    ax.errorbar(x, y, yerr=spread, **style)


def _spread(
    found: Sequence[dict[str, Any]], floor: float | None
) -> tuple[list[float], list[list[float]]]:
    """Means, and distances to the ends of their intervals; on a logarithmic axis not below it."""

    def cut(value: float) -> float:
        return value if floor is None else max(value, floor)

    y = [cut(e["mean"]) for e in found]
    low = [0.0 if e["low"] is None else v - cut(e["low"]) for e, v in zip(found, y, strict=True)]
    high = [0.0 if e["high"] is None else e["high"] - v for e, v in zip(found, y, strict=True)]
    return y, [[max(0.0, v) for v in low], [max(0.0, v) for v in high]]


def draw_rates(rows: Sequence[dict[str, Any]], title: str, path: Path) -> None:
    """KL against ``layer_bits``, a line per family, every point named by its ``label``.

    Rows without a page, and above half of bf16, are left to the table.
    """
    figure, (ax,) = _figure(1, 5.5, wide=9)
    rows = [r for r in rows if r["layer_bits"] is not None and r["layer_bits"] <= 8]
    families = list(dict.fromkeys(r["label"].partition(":")[0] for r in rows))
    # What all have in common is no name.
    common = {" " + word for word in rows[0]["label"].split()[1:]}
    common = {word for word in common if all(word in r["label"] for r in rows)}
    for family, colour in zip(families, cycle(COLOURS)):
        mine = [r for r in rows if r["label"].partition(":")[0] == family]
        # A line joins the rates of a codec; with options of their own, settings stand beside it.
        line = [r for r in mine if r["label"].count("=") <= 1 + len(common)]
        line.sort(key=lambda r: r["layer_bits"])
        ax.plot(
            [r["layer_bits"] for r in line],
            [max(r["kl"]["mean"], FLOOR) for r in line],
            color=colour,
            lw=1.2,
        )
        y, spread = _spread([r["kl"] for r in mine], FLOOR)
        x = [r["layer_bits"] for r in mine]
        ax.errorbar(x, y, yerr=spread, fmt="o", ms=5, capsize=2, color=colour, label=family)
        for row, height in zip(mine, y, strict=True):
            label = row["label"].removeprefix(f"{family}:")
            for word in common:
                label = label.replace(word, "")
            # Above and to the right of rates in a line, to the left of the others.
            place = {"xytext": (5, 3)} if row in line else {"xytext": (-5, -2), "ha": "right"}
            at = (row["layer_bits"], height)
            ax.annotate(label, at, textcoords="offset points", fontsize=6, **place)
    ax.set_yscale("log")
    ax.set_xlabel("true bits per element of full pages, mean over packed layers, tables included")
    ax.set_ylabel("KL to the uncompressed cache, nats per token")
    ax.grid(True, which="both", alpha=0.25)
    ax.legend(fontsize=8)
    _save(figure, title, path)
