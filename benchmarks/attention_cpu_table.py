"""The result of ``benchmarks.attention`` as Markdown, and its targets as verdicts."""

from __future__ import annotations

from statistics import median
from typing import Any

TARGET, DIMS = "scalar:b=4", (64, 128)


def fastest(row: dict[str, Any]) -> tuple[str, float]:
    """The fastest of torch's ways, and its seconds."""
    ways = {k: v["median"] for k, v in row["seconds"].items() if k not in row["packed_bytes"]}
    name = min(ways, key=ways.__getitem__)
    return name, ways[name]


def verdicts(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Each target with what was measured; empty where the rows do not cover it."""
    found = []
    for row in result["rows"]:
        if row["context"] >= 8 << 10 and row["head_dim"] in DIMS and TARGET in row["packed_bytes"]:
            got = fastest(row)[1] / row["seconds"][TARGET]["median"]
            shape = "context {context}, batch {batch}, G {groups}, D {head_dim}".format(**row)
            found.append({"what": f"{TARGET} against SDPA, {shape}", "want": 1.0, "got": got})
    if "generation" in result:
        made = result["generation"]
        own = median(made["dynamic"]["tokens_per_second"])
        for kind in (kind for kind in made["codecs"] if kind in made):
            what = f"{'/'.join(made['codecs'][kind])}, tokens a second against DynamicCache"
            got = median(made[kind]["tokens_per_second"]) / own
            found.append({"what": what, "want": 1.0, "got": got})
    return [v | {"met": v["got"] >= v["want"]} for v in found]


def markdown(result: dict[str, Any]) -> str:
    """The whole table as a document."""
    m = result["machine"]
    codecs = list(result["rows"][0]["packed_bytes"])
    lines = [
        "# Attention over packed pages, on a CPU",
        "",
        f"By `python -m benchmarks.attention`, commit {result['commit']}, {result['date']}. "
        f"{m['cpu']}, {result['threads']} threads, {result['clock']} clock; load "
        f"{m['load_before'][0]:.1f} before, {m['load_after'][0]:.1f} after. Copy: "
        f"{result['copy_rate'] / 1e9:.1f} GB/s read and written.",
        "",
        "Milliseconds of one layer of a decode step, medians; every way walks through cold memory. "
        "SDPA is the fastest of torch's ways over dense fp32 and bf16; bf16 floor is the time "
        "that the bytes of K and V in bf16 take at the rate of the copy. In brackets: times faster "
        "than SDPA, and GB/s of packed bytes.",
        "",
        "| context | B | H | G | Q | D | SDPA | way | bf16 floor | "
        + " | ".join(f"`{c}`" for c in codecs)
        + " |",
        "|" + " ---: |" * (9 + len(codecs)),
    ]
    lines += [_row(row, codecs, result["copy_rate"]) for row in result["rows"]]
    if "generation" in result:
        lines += _generation(result["generation"])
    met = [v for v in result["targets"] if v["met"]]
    lines += ["", f"Targets: {len(met)} of {len(result['targets'])} met.", ""]
    lines += [
        f"- {'met' if v['met'] else 'missed'}: {v['what']}: {v['got']:.2f} times"
        for v in result["targets"]
    ]
    return "\n".join(lines) + "\n"


def _row(row: dict[str, Any], codecs: list[str], rate: float) -> str:
    name, best = fastest(row)
    elements = 2 * row["batch"] * row["heads"] * row["context"] * row["head_dim"]
    cells = [str(row[k]) for k in ("context", "batch", "heads", "groups", "queries", "head_dim")]
    cells += [f"{1e3 * best:.2f}", name, f"{2e3 * elements / rate:.2f}"]
    for codec in codecs:
        took = row["seconds"][codec]["median"]
        speed = row["packed_bytes"][codec] / took / 1e9
        cells.append(f"{1e3 * took:.2f} ({best / took:.1f}x, {speed:.1f})")
    return "| " + " | ".join(cells) + " |"


def _generation(made: dict[str, Any]) -> list[str]:
    about, where = made.get("about"), []
    if about:
        before, after = (about["machine"][k][0] for k in ("load_before", "load_after"))
        where = [
            f"Commit {about['commit']}, {about['date']}; {about['threads']} threads; load "
            f"{before:.1f} before, {after:.1f} after.",
            "",
        ]
    lines = [
        "",
        f"`{made['model']}` at {made['context']} tokens through `generate`, {made['new']} new, "
        f"all caches filled from one prefill; median of {len(made['packed']['peak'])} turns each. "
        "Peak is memory of the process above that before the cache was made; same is how many of "
        "the first new tokens are those of `DynamicCache`.",
        "",
        *where,
        "| cache | tokens a second | cache holds, MB | peak, MB | same |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for kind in (kind for kind in ("dynamic", *made["codecs"]) if kind in made):
        one, codecs = made[kind], made["codecs"].get(kind)
        rate, peak = median(one["tokens_per_second"]), median(one["peak"])
        cells = f"{rate:.2f} | {one['held'] / 1e6:.0f} | {peak / 1e6:.0f}"
        name = f"`{'/'.join(codecs)}`" if codecs else "`DynamicCache`"
        lines.append(f"| {name} | {cells} | {one['same_first_tokens']} |")
    return lines
