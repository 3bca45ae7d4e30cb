"""The part of the README on GPUs, from the result files of both GPU benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.gpu_attention_table import TARGETS, figures, runs, torch_times
from benchmarks.gpu_generate_table import DENSE, dense_of
from benchmarks.gpu_plan import SHAPES, WALKS

# Their target is a share of the prefill.
ASIDE = f"; none is set here for {' and '.join(f'`{name}`' for name in WALKS)}"
CODEC, GROUP, DIM = "scalar:b=3", "G=4", "D=128"


def gpu(results: Path) -> list[str]:
    """Encode and decode of the largest shape at D = 128, then attention at 3 bits."""
    lines: list[str] = []
    for path in sorted(results.glob("gpu-nvidia-*.json")):
        data = json.loads(path.read_text("utf-8"))
        rows = [r for r in data["rows"] if (r["shape"], r["d"]) == (SHAPES[-1].name, 128)]
        met = sum(t["met"] for t in data["targets"])
        lines += [
            f"**{data['device']['name']}**: share of a device-to-device copy of the same bf16 "
            f"vectors, {SHAPES[-1].name}, D = 128; {met} of {len(data['targets'])} targets met"
            f"{ASIDE if any(r['codec'].partition(':')[0] in WALKS for r in rows) else ''} "
            f"([all rows](benchmarks/results/{path.with_suffix('.md').name})):",
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
    found = runs(results)
    copy = max(run["copy"] for run in found.values())
    dense = torch_times(found)
    best: dict[str, dict[str, Any]] = {}
    for run in found.values():
        for row in run["rows"]:
            words = row["shape"].split()
            plain = len(words) == 4 and words[2:] == [GROUP, DIM]  # one query token
            if row["codec"] == CODEC and plain and row["shape"] in dense:
                old = best.get(row["shape"])
                if not old or row["seconds"]["median"] < old["seconds"]["median"]:
                    best[row["shape"]] = row
    share, over, roof = TARGETS
    lines = [
        f"Decode attention over packed pages, `{CODEC}` keys and values, 8 KV heads, fastest "
        f"measured tuning. Targets from 32k on: {over:g} times torch's fastest bf16 attention, "
        f"{roof:g} times the bf16 roofline, {share:.0%} of copy bandwidth over packed bytes. One "
        "sequence is too little work to hide latency "
        "([all rows](benchmarks/results/gpu-attention.md), "
        "[notes](benchmarks/GPU_ATTENTION.md)):",
        "",
        "| shape | us | x SDPA | x roofline | of copy |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for shape, row in best.items():
        values = figures(row, copy, dense[shape][0])
        judged = int(shape.partition("k")[0]) >= 32
        told = [
            f"{text} {'met' if value >= target else '**missed**'}" if judged else text
            for value, target, text in zip(
                values,
                TARGETS,
                (f"{values[0]:.0%}", f"{values[1]:.2f}", f"{values[2]:.2f}"),
                strict=True,
            )
        ]
        micro = row["seconds"]["median"] * 1e6
        lines.append(f"| {shape} | {micro:.1f} | {told[1]} | {told[2]} | {told[0]} |")
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
        f"End to end: steps of `generate` in eager mode, a Llama of {model['layers']} layers, "
        f"hidden size {model['hidden']} and drawn weights, cache filled with drawn keys and values "
        "([all rows](benchmarks/results/gpu-generate.md)):",
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
