"""The part of the README on GPUs, from the result files of both GPU benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.device.plan import SHAPES
from benchmarks.device.table import counted
from benchmarks.gpu_attention_table import TARGETS, devices, figures, runs, torch_times
from benchmarks.gpu_generate_table import DENSE, dense_of

CODEC, GROUP, DIM = "scalar:b=3", "G=4", "D=128"


def gpu(results: Path) -> list[str]:
    """Encode and decode of the largest shape at D = 128, then attention at 3 bits."""
    lines: list[str] = []
    for path in sorted(results.glob("gpu-nvidia-*.json")):
        data = json.loads(path.read_text("utf-8"))
        rows = [r for r in data["rows"] if (r["shape"], r["d"]) == (SHAPES[-1].name, 128)]
        lines += [
            f"**{data['device']['name']}**: share of a device-to-device copy of the same bf16 "
            f"vectors, {SHAPES[-1].name}, D = 128; {counted(data['targets'])} "
            f"([all rows and targets](benchmarks/results/{path.with_suffix('.md').name})):",
            "",
            "| | " + " | ".join(f"`{r['codec']}`" for r in rows) + " |",
            "| --- |" + " ---: |" * len(rows),
            *(
                f"| {what} | " + " | ".join(f"{r[f'{what}_of_copy']:.0%}" for r in rows) + " |"
                for what in ("encode", "decode")
            ),
            "",
        ]
    return lines + attention(results) + generation(results)


def attention(results: Path) -> list[str]:
    """The fastest measured tuning at 3 bits for each context and batch, against the targets."""
    share, over, roof = TARGETS
    lines = [
        f"Decode attention over packed pages, `{CODEC}` keys and values, 8 KV heads, fastest "
        f"measured tuning. Targets from 32k on: {over:g} times torch's fastest bf16 attention, "
        f"{roof:g} times the bf16 roofline, {share:.0%} of copy bandwidth over packed bytes. One "
        "sequence is too little work to hide latency; with more, look-ups are the bound and not "
        "memory, so an H200 takes what an H100 takes "
        "([all rows](benchmarks/results/gpu-attention.md), "
        "[notes](benchmarks/GPU_ATTENTION.md)):",
        "",
        "| device, shape | us | x SDPA | x roofline | of copy |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for device, found in devices(runs(results)).items():
        lines += _attention(device, found)
    return lines


def _attention(device: str, found: dict[str, dict[str, Any]]) -> list[str]:
    copy = max(run["copy"] for run in found.values())
    dense = torch_times(found)
    best: dict[str, dict[str, Any]] = {}
    for row in (row for run in found.values() for row in run["rows"]):
        words = row["shape"].split()
        # One query token.
        plain = words[2:] == [GROUP, DIM] and row["shape"] in dense
        old = best.get(row["shape"])
        faster = not old or row["seconds"]["median"] < old["seconds"]["median"]
        long = int(words[0].removesuffix("k")) >= 32
        if row["codec"] == CODEC and plain and long and faster:
            best[row["shape"]] = row
    lines = []
    for shape, row in best.items():
        values = figures(row, copy, dense[shape][0])
        told = [
            f"{text} {'met' if value >= target else '**missed**'}"
            for value, target, text in zip(
                values,
                TARGETS,
                (f"{values[0]:.0%}", f"{values[1]:.2f}", f"{values[2]:.2f}"),
                strict=True,
            )
        ]
        micro = row["seconds"]["median"] * 1e6
        name = f"{device.removeprefix('NVIDIA ').partition(' ')[0]}, {shape}"
        lines.append(f"| {name} | {micro:.1f} | {told[1]} | {told[2]} | {told[0]} |")
    return lines


def generation(results: Path) -> list[str]:
    """Single steps of ``generate``, packed caches against ``DynamicCache``."""
    path = results / "gpu-generate.json"
    if not path.exists():
        return []
    run = json.loads(path.read_text("utf-8"))
    model = run["model"]
    lines = [
        "",
        f"End to end on {run['device']}: steps of `generate` in eager mode, a Llama of "
        f"{model['layers']} layers, hidden size {model['hidden']} and drawn weights, cache filled "
        "with drawn keys and values. All caches are bound by Python there, on a CPU that other "
        "programs used as well ([all rows](benchmarks/results/gpu-generate.md), "
        "[notes](benchmarks/GPU_ATTENTION.md)):",
        "",
        "| context | cache | tokens/s | x DynamicCache | peak memory of cache and step, GB |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    for row in run["rows"]:
        dense = dense_of(run, row)
        name = "DynamicCache" if row["codec"] == DENSE else row["codec"]
        over = dense["step"]["median"] / row["step"]["median"] if dense else float("nan")
        lines.append(
            f"| {row['case']} | `{name}` | {row['tokens_per_second']:.1f} | {over:.2f} "
            f"| {row.get('peak', 0) / 1e9:.2f} |"
        )
    return lines
