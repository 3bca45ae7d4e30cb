"""Writes ``results/gpu-attention.md``: ``python -m benchmarks.gpu_attention_table``.

From all ``gpu-attention-N.json``. For a device the copy is the fastest of all runs, and torch's
time the fastest of all runs for that shape, so a version that was timed alone has both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# Share of a copy, times of torch's attention, times of the bf16 roofline; from 32k and 3 bits on.
TARGETS = (0.6, 3.0, 2.5)
HEAD = (
    "| shape | codec | tuning | blocks | us [p20, p80] | GB/s | of copy | SDPA us | x SDPA "
    "| x roofline | error |\n|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
)


def runs(folder: Path = RESULTS) -> dict[str, dict[str, Any]]:
    """Result files by name."""
    paths = sorted(folder.glob("gpu-attention-[0-9]*.json"))
    return {path.name: json.loads(path.read_text("utf-8")) for path in paths}


def torch_times(found: dict[str, dict[str, Any]]) -> dict[str, tuple[float, str]]:
    """Seconds of torch's fastest attention for a shape, and which it was."""
    best: dict[str, tuple[float, str]] = {}
    for run in found.values():
        for shape, ways in run["dense"].items():
            for way in ways:
                if "median" in way:
                    best[shape] = min(
                        best.get(shape, (float("inf"), "")), (way["median"], way["by"])
                    )
    return best


def dense_bytes(shape: str) -> int:
    """Bytes of K and V in bf16 of a shape as it is written, with 8 KV heads."""
    context, *words = shape.split()
    n = {word.partition("=")[0]: int(word.partition("=")[2]) for word in words}
    return 4 * n["B"] * 8 * (int(context.removesuffix("k")) << 10) * n["D"]


def figures(row: dict[str, Any], copy: float, sdpa: float) -> tuple[float, float, float]:
    """Share of the copy, times of torch's attention, times of the roofline."""
    seconds = row["seconds"]["median"]
    return (
        row["bytes"] / seconds / copy,
        sdpa / seconds,
        dense_bytes(row["shape"]) / copy / seconds,
    )


def line(row: dict[str, Any], copy: float, sdpa: float) -> str:
    """A row of the table."""
    share, over, roof = figures(row, copy, sdpa)
    t = {name: seconds * 1e6 for name, seconds in row["seconds"].items()}
    tuned = "default" if row["tuned"] is None else " ".join(map(str, row["tuned"]))
    rate = row["bytes"] / row["seconds"]["median"] / 1e9
    return (
        f"| {row['shape']} | `{row['codec']}` | {tuned} | {row['splits']} "
        f"| {t['median']:.1f} [{t['p20']:.1f}, {t['p80']:.1f}] | {rate:.0f} | {share:.0%} "
        f"| {sdpa * 1e6:.1f} | {over:.2f} | {roof:.2f} | {row['errors']['ratio']:.2f} |"
    )


def devices(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Runs by device; only those on one device are compared."""
    sorted_out: dict[str, dict[str, dict[str, Any]]] = {}
    for name, run in found.items():
        sorted_out.setdefault(run["device"], {})[name] = run
    return sorted_out


def markdown(found: dict[str, dict[str, Any]]) -> str:
    """The whole page."""
    text = [
        "# Attention over packed pages on GPUs\n",
        "One query token (or `Q`) of one layer with 8 KV heads over pages of 32 tokens. Medians of "
        "replays of a graph that goes through several sets of pages, in all 400 MB or more. "
        "`x SDPA`: time of torch's fastest attention over dense bf16 over ours. `x roofline`: time "
        "of reading K and V in bf16 at the speed of a copy (read and written) over ours. Error: "
        "that of plain bf16 attention is 1. Tuning: warps of a block, stages, blocks of "
        "a multiprocessor, then whether codes of K and V are looked up, then whether the end was "
        "early (GPU_ATTENTION.md, version 4); `default` is that of the commit. The bytes of codes "
        "are drawn. Keys of `query` have frames of a page, and turning queries for all of them is "
        "part of the time. A device's copy is the fastest of its runs, and so is torch's time.\n",
    ]
    for device, some in devices(found).items():
        text += _device(device, some)
    return "\n".join(text) + "\n"


def _device(device: str, found: dict[str, dict[str, Any]]) -> list[str]:
    copy = max(run["copy"] for run in found.values())
    sdpa = torch_times(found)
    text = [f"## {device}: a copy at {copy / 1e9:.0f} GB/s\n"]
    for name, run in found.items():
        text.append(f"### [{name}]({name}): commit {run['commit']}, {run['date'][:16]}\n")
        rows = [line(row, copy, sdpa.get(row["shape"], (0.0, ""))[0]) for row in run["rows"]]
        text.append(HEAD + "\n".join(rows) + "\n")
        if run.get("left"):
            text.append(f"{len(run['left'])} not measured, for want of time.\n")
    text.append(f"### Targets on {device}: about 3 bits, 32k tokens and more\n")
    wanted = "at least 60 % of a copy, 3 times SDPA, 2.5 times the roofline"
    text.append(f"Of all tunings of `scalar:b=3` the fastest; {wanted}.\n")
    for shape, (seconds, by) in sdpa.items():
        rows = [r for run in found.values() for r in run["rows"] if r["shape"] == shape]
        three = [r for r in rows if r["codec"] == "scalar:b=3"]
        if not three or int(shape.partition("k")[0]) < 32:
            continue
        best = min(three, key=lambda row: row["seconds"]["median"])
        got = figures(best, copy, seconds)
        met = ["met" if x >= y else "**missed**" for x, y in zip(got, TARGETS, strict=True)]
        text.append(
            f"* {shape}: {got[0]:.0%} of a copy, {met[0]}; {got[1]:.2f} times SDPA "
            f"({by.lower().replace('_attention', '')}), {met[1]}; "
            f"{got[2]:.2f} times the roofline, {met[2]}"
        )
    return [*text, ""]


def main() -> int:
    """Write the page."""
    (RESULTS / "gpu-attention.md").write_text(markdown(runs()), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
