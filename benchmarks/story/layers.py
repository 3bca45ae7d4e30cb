"""Sections of the lineage page on layers: do errors compound, and which layers to keep exact."""

from __future__ import annotations

from benchmarks.standard.markdown import table
from benchmarks.story.facts import (
    VERSUS,
    Results,
    Section,
    against_singles,
    cells,
    fate,
    prose,
    span,
    tally,
    versus,
)
from kakeya_fast.quality.table import interval


def compounding(layers: Results, depth: Results) -> Section:
    """Sum of single layers against all together, and against the first of them."""
    sums, growth = [], []
    ratios: dict[str, list[float]] = {"inforward": [], "snapshot": []}
    for model, data in layers.items():
        for row in data["sums"]:
            ratios[row["protocol"]].append(row["ratio"])
            parts = (interval(row[x]["kl"], "{:.3g}") for x in ("singles", "together"))
            sums.append([model, row["label"], row["protocol"], *parts, f"{row['ratio']:.2f}"])
    for model, data in depth.items():
        over = against_singles(data, layers[model])
        for codec, how in dict.fromkeys((r["codec"], r["protocol"]) for r in data["summary"]):
            rows = [r for r in data["summary"] if (r["codec"], r["protocol"]) == (codec, how)]
            steps = "; ".join(f"{r['coded']}: {r['kl']['mean']:.2g}" for r in rows)
            each = over.get((codec, how), {})
            ratios[how] += each.values()
            shares = "; ".join(f"{n}: {x:.2f}" for n, x in each.items())
            growth.append([model, rows[0]["label"], how, steps, shares])
    live, clean = ratios.values()
    links = "; ".join(f"{m}: [by layer](layers-{m}.md), [by depth](depth-{m}.md)" for m in layers)
    return Section(
        "Do errors compound from layer to layer?",
        "Errors compound exponentially over the layers",
        verdict(live),
        prose(
            f"""Over the sum of the KLs of the same layers coded alone, several layers together do
            {min(live):.2f} to {max(live):.2f} in-forward, and {min(clean):.2f} to
            {max(clean):.2f} under snapshot, where no stored number is damaged twice. The
            predecessor read exponential growth from a table made with the second of the errors
            above."""
        ),
        [
            *table(["model", "codec", "protocol", "sum of singles", "together", "ratio"], sums),
            "",
            *table(
                ["model", "codec", "protocol", "KL of the first layers", "over their sum"], growth
            ),
            "",
            prose(
                f"""In-forward: every coded layer packs what the damaged forward made. Snapshot:
                it packs the keys and values of a clean forward of the same tokens, after the
                rotary embedding; queries are live in both. {links}."""
            ),
            "",
            "![depth and single layers](LINEAGE-layers.png)",
        ],
    )


def boundary(codecs: Results, layers: Results) -> Section:
    """Exact layers at their true cost, and which to choose."""
    rows, choices, ends, told = [], [], [], []
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
            why = name.partition("(")[2].rstrip(")")
            if row["protocol"] == "inforward" and why in ("advised", "both ends"):
                told.append(f"{share:.2f} ({model}, {why})")
    return Section(
        "Boundary layers kept exact",
        "Keeping the first and last layers exact is worth it",
        fate(ends),
        prose(
            f"""With sixteen bits an exact number, they are {tally(ends)}, at {span(ends)} times
            the KL of plain scalar codes of the same mean size or, where a star says so, of the
            finest scalar code measured, which is smaller. Which layers matters more: of the KL
            with all coded, these choices leave {", ".join(told)}."""
        ),
        [
            *table(VERSUS, rows),
            "",
            "Which layers to keep, KL as a share of that with all coded:",
            "",
            *table(["model", "codec", "protocol", "exact layers", "share of KL"], choices),
        ],
    )


def verdict(ratios: list[float]) -> str:
    """What becomes of exponential growth, by how far a sum of single layers is exceeded."""
    if max(ratios) < 1.5:
        return "falls: they add up"
    return "stands in part: more than a sum" if max(ratios) < 10 else "stands"
