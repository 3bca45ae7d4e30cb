"""The GPU result as Markdown, and its targets as verdicts."""

from __future__ import annotations

import re
from typing import Any

from benchmarks.gpu_plan import DTYPE, SHAPES, STEP, TOKENS, WALKS

TARGETS = {"encode": 0.25, "decode": 0.5}
DEFINITION = (
    f"Vectors are {DTYPE}, pages have {TOKENS} tokens, 8 KV heads. GB/s are 1e9 bytes of these "
    "vectors per second, for copy, encode and decode alike: a share of the copy is a ratio of "
    "times. Medians of CUDA events with the 20th and 80th percentile in brackets; the L2 cache is "
    "overwritten before each sample; copy, encode and decode take turns. "
    "Encode is `append` into scattered slots of a pool, decode is `read` from it, neither waiting "
    "for the device. Targets are for codecs that neither walk a trellis nor multiply by a table. "
    "Each row was compared with the reference before it was timed."
)
STEP_TEXT = (
    f"All sequences of a batch of {STEP['batch']} fill a page in the same step: K and V of "
    f"{STEP['layers']} layers and {STEP['heads']} KV heads, head dim {STEP['head_dim']}, "
    "{pages} pages. This happens once in {tokens} tokens. *Together*: one launch at the end of "
    "the step, which is early enough, since no query reads its own page from bytes; *gathered*: "
    "the vectors of each layer lie in a tensor of their own, and a copy puts them together first; "
    "*by layer*: {launches} launches, one after another; *aside*: the same on {sides} streams side "
    "by side. All four are device times of replaying a CUDA graph; † marks the launch of as many "
    "such pages in the table above, without a graph. `query` is for keys alone: half of launches "
    "and pages. *Eager* is the wall time of the {launches} launches without a graph."
)
STEP_TARGET = 100e-6


def verdicts(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Targets against the largest shape."""
    return [
        {
            "codec": row["codec"],
            "d": row["d"],
            "what": what,
            "target": target,
            "measured": row[f"{what}_of_copy"],
            "met": row[f"{what}_of_copy"] >= target,
        }
        for row in rows
        if row["shape"] == SHAPES[-1].name and row["codec"].partition(":")[0] not in WALKS
        for what, target in TARGETS.items()
    ]


def markdown(result: dict[str, Any]) -> str:
    """The whole result as a document."""
    device = result["device"]
    lines = [
        f"# Speed on {device['name']}",
        "",
        f"{device['processors']} multiprocessors, {device['memory'] / 2**30:.0f} GiB, L2 "
        f"{device['l2'] / 2**20:.0f} MiB, driver {device['driver']}; {result['date']}, commit "
        f"{result['commit']}; "
        + ", ".join(f"{name} {version}" for name, version in result["versions"].items())
        + f". {result['seconds']:.0f} s in all.",
        "",
        DEFINITION,
        "",
    ]
    if result.get("rows"):
        lines += [*_table(HEADER, [_cells(row) for row in result["rows"]]), ""]
        lines += ["## Targets at the largest shape", ""]
        lines += [*_table(("codec", "", "D", "of copy", "target", ""), _targets(result)), ""]
    if result.get("step"):
        first = result["step"][0]
        text = STEP_TEXT.format(
            launches=first["launches"],
            pages=first["pages"],
            tokens=TOKENS,
            sides=first.get("sides", "several"),
        )
        lines += ["## One decode step", "", text, ""]
        lines += [*_table(STEPS, _steps(result)), ""]
    if result.get("prefill"):
        lines += ["## Encoding beside prefill", "", PREFILL_TEXT, ""]
        lines += [*_table(PREFILLS, _prefills(result)), ""]
    if result["checks"]:
        lines += ["## Checks", "", *(f"* {text}" for text in result["checks"]), ""]
    if result["not_run"]:
        lines += ["## Not run", "", *(f"* {text}" for text in _left(result["not_run"])), ""]
    return "\n".join(lines)


def _left(texts: list[str]) -> list[str]:
    """What did not happen; rows of the same fate in one line."""
    rows = [text for text in texts if re.fullmatch(r".+ D=\d+ .+: no time left", text)]
    kept = [text for text in texts if text not in rows]
    return kept + ([f"{len(rows)} rows of rates, the first {rows[0]}"] if rows else [])


STEPS = (
    "codec",
    "target 100 us",
    "together, us",
    "gathered, us",
    "aside, us",
    "by layer, us",
    "eager, us",
)
PREFILLS = ("tokens", "K / V", "a layer, ms", "its K and V, ms", "share", "target")
PREFILL_TARGET = 0.03
PREFILL_TEXT = (
    "The forward of one decoder layer of an 8B model over a prompt, in bf16 with random weights "
    "and torch's own operations, and the append of the keys and values of that layer, one launch "
    f"each. All {STEP['layers']} layers are alike, so the share is that of the model but for "
    f"embedding and output head. Target for `trellis`: {PREFILL_TARGET:.0%}."
)
HEADER = ("codec", "shape", "D", "copy GB/s", "encode GB/s", "of copy", "decode GB/s", "of copy")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    def rate(name: str, which: str) -> str:
        return f"{row['vector_bytes'] / row[name][which] / 1e9:.3g}"

    cells = [f"`{row['codec']}`", row["shape"], str(row["d"]), rate("copy", "median")]
    for name in ("encode", "decode"):
        cells.append(f"{rate(name, 'median')} [{rate(name, 'p80')}, {rate(name, 'p20')}]")
        cells.append(f"{row[f'{name}_of_copy']:.0%}")
    return tuple(cells)


def _targets(result: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            f"`{v['codec']}`",
            v["what"],
            str(v["d"]),
            f"{v['measured']:.0%}",
            f"{v['target']:.0%}",
            "met" if v["met"] else "**missed**",
        )
        for v in result["targets"]
    ]


def _steps(result: dict[str, Any]) -> list[tuple[str, ...]]:
    def spread(s: dict[str, float]) -> str:
        return f"{s['median'] * 1e6:.0f} [{s['p20'] * 1e6:.0f}, {s['p80'] * 1e6:.0f}]"

    rows = []
    for step in result["step"]:
        together, mark = step.get("together"), ""
        if together is None:
            together, mark = _same_launch(result, step), "†"
        cells = ["not measured", ""]
        if together:
            met = together["median"] < STEP_TARGET
            cells = ["met" if met else "**missed**", spread(together) + mark]
        names = ("gathered", "aside", "by_layer", "eager")
        others = [spread(step[name]) if name in step else "not measured" for name in names]
        rows.append((f"`{step['codec']}`", *cells, *others))
    return rows


def _prefills(result: dict[str, Any]) -> list[tuple[str, ...]]:
    def spread(s: dict[str, float]) -> str:
        return f"{s['median'] * 1e3:.3g} [{s['p20'] * 1e3:.3g}, {s['p80'] * 1e3:.3g}]"

    rows = []
    for found in result["prefill"]:
        for pair, times in found["encode"].items():
            share = times["median"] / found["layer"]["median"]
            met = "met" if share <= PREFILL_TARGET else "**missed**"
            rows.append(
                (
                    str(found["tokens"]),
                    f"`{pair}`",
                    spread(found["layer"]),
                    spread(times),
                    f"{share:.1%}",
                    met if pair == "trellis/trellis" else "",
                )
            )
    return rows


def _same_launch(result: dict[str, Any], step: dict[str, Any]) -> dict[str, float] | None:
    """Encode times of the row that is one launch of the step's pages, where it was timed."""
    same = (step["codec"], STEP["head_dim"], step["pages"])
    found = (
        row for row in result.get("rows", []) if (row["codec"], row["d"], row["pages"]) == same
    )
    return next((row["encode"] for row in found), None)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> list[str]:
    rule = ("---",) * 2 + ("---:",) * (len(header) - 2)
    return ["| " + " | ".join(line) + " |" for line in (header, rule, *rows)]
