"""Sections of the lineage page on layers: do errors compound, and which layers to keep exact."""

from __future__ import annotations

from typing import Any

from benchmarks.standard_markdown import table
from benchmarks.story_facts import VERSUS, cells, every, slope, span, tally, versus
from kakeya_fast.quality.table import interval

Results = dict[str, dict[str, Any]]


def compounding(layers: Results, depth: Results) -> list[str]:
    """Sum of single layers against all together, and growth with the number of coded layers."""
    sums, growth, ratios, slopes = [], [], [], {"inforward": [], "snapshot": []}
    for model, data in layers.items():
        for row in data["sums"]:
            ratios.append(row["ratio"])
            parts = (interval(row[x]["kl"], "{:.3g}") for x in ("singles", "together"))
            head = [model, row["label"], row["protocol"]]
            sums.append([*head, *parts, f"{row['ratio']:.2f}"])
    for model, data in depth.items():
        for codec, how in dict.fromkeys((r["codec"], r["protocol"]) for r in data["summary"]):
            rows = [r for r in data["summary"] if (r["codec"], r["protocol"]) == (codec, how)]
            slopes[how].append(slope(rows))
            steps = "; ".join(f"{r['coded']}: {r['kl']['mean']:.2g}" for r in rows)
            growth.append([model, rows[0]["label"], how, steps, f"{slope(rows):.2f}"])
    if not sums or not growth:
        return []
    live, clean = slopes["inforward"], slopes["snapshot"]
    return [
        "## Do errors compound from layer to layer?",
        "",
        f"**{_compounds(ratios, live)}** All layers together do {min(ratios):.2f} to "
        f"{max(ratios):.2f} times the sum of the KLs of single layers, and KL grows with the "
        "number "
        f"of coded layers to the power {min(live):.2f} to {max(live):.2f} in-forward, "
        f"{min(clean):.2f} to {max(clean):.2f} under snapshot, where no stored number is "
        "damaged "
        "twice. The predecessor read exponential growth from a table made with the second of "
        "the "
        "errors above.",
        "",
        *table(["model", "codec", "protocol", "sum of singles", "together", "ratio"], sums),
        "",
        *table(["model", "codec", "protocol", "KL by coded layers", "power"], growth),
        "",
        "In-forward: every coded layer packs what the damaged forward made. Snapshot: it",
        "packs the",
        "keys and values of a clean forward of the same tokens; queries are live in both.",
        "Per layer:",
        *(f"[{m}](layers-{m}.md), [by depth](depth-{m}.md);" for m in layers),
        "",
        "![depth and single layers](LINEAGE-layers.png)",
        "",
    ]


def boundary(codecs: Results, layers: Results) -> list[str]:
    """Exact layers at their true cost, and which to choose."""
    rows, choices, ends = [], [], []
    for model, data in codecs.items():
        for setting, v in versus(data).items():
            if "exact=" in setting:
                ends.append(v)
                rows.append([model, *cells(v)])
    for model, data in layers.items():
        together = {r["protocol"]: r for r in data["summary"] if r["kind"] == "all"}
        for row in (r for r in data["summary"] if r["kind"] == "choice"):
            share = row["kl"]["mean"] / together[row["protocol"]]["kl"]["mean"]
            name = row["name"].removeprefix("all but ")
            choices.append([model, row["label"], row["protocol"], name, f"{share:.2f}"])
    if not ends:
        return []
    fate = "Falls" if every(ends, "worse") else "Stands" if every(ends, "better") else "Depends"
    return [
        "## Boundary layers kept exact",
        "",
        f"**{fate}.** With their true cost, first and last layers exact are {tally(ends)} "
        "than plain "
        f"scalar codes of the same mean size ({span(ends)} times their KL).",
        "",
        *table(VERSUS, rows),
        "",
        "Which layers to keep, KL as a share of that with all coded:",
        "",
        *table(["model", "codec", "protocol", "exact layers", "share of KL"], choices),
        "",
    ]


def _compounds(ratios: list[float], powers: list[float]) -> str:
    if max(ratios) < 1.5 and max(powers) < 1.3:
        return "Falls: they add up."
    return "Stands in part: more than a sum, far from exponential."
