"""Writes ``results/gpu-generate.md``: ``python -m benchmarks.gpu_generate_table``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DENSE = "dynamic"
HEAD = (
    "| context | cache | tokens/s | step, ms [p20, p80] | x DynamicCache | cache, GB | peak, GB "
    "| x less memory | cosine |\n|---|---|---:|---:|---:|---:|---:|---:|---:|\n"
)


def markdown(run: dict[str, Any]) -> str:
    """The whole page."""
    model = run["model"]
    text = [
        f"# Decode through `generate` on {run['device']}\n",
        f"A Llama of {model['parameters'] / 1e9:.1f} B drawn weights in bf16: {model['layers']} "
        f"layers, hidden size {model['hidden']}, {model['heads']} heads, {model['kv_heads']} KV "
        f"heads of {model['head_dim']}, intermediate size {model['intermediate']}, and "
        f"a vocabulary of {model['vocabulary']}, smaller than that of a real model. The "
        "context is not prefilled: keys and values are drawn, the same for every cache, and put "
        "into it. Times are medians of single steps of greedy `generate`, in eager mode, each "
        "until the device is done; a packed cache packs a page every 32 steps, which the mean "
        "in the file has and the median has not. `peak` is the most that was allocated during "
        "decode above the weights. `cosine` compares the first logits with those of "
        "`DynamicCache`; drawn layers amplify every difference, and codes of 3 and 4 bits make "
        "some. What else ran meanwhile, and what follows: "
        f"[GPU_ATTENTION.md](../GPU_ATTENTION.md).\n\n{run['new']} tokens a row, commit "
        f"{run['commit']}, {run['date'][:16]}; from [gpu-generate.json](gpu-generate.json).\n",
    ]
    lines = [line(row, dense_of(run, row)) for row in run["rows"]]
    text.append(HEAD + "\n".join(lines) + "\n")
    text += [f"* not measured: {failed}" for failed in run["failed"]]
    return "\n".join(text).rstrip() + "\n"


def dense_of(run: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
    """The row of ``DynamicCache`` with the same context."""
    same = [x for x in run["rows"] if (x["case"], x["codec"]) == (row["case"], DENSE)]
    return same[0] if same else None


def line(row: dict[str, Any], dense: dict[str, Any] | None) -> str:
    """A row of the table."""
    step = {name: seconds * 1e3 for name, seconds in row["step"].items()}
    over = f"{dense['step']['median'] / row['step']['median']:.2f}" if dense else ""
    less = f"{dense['peak'] / row['peak']:.2f}" if dense and row.get("peak") else ""
    cache = "`DynamicCache`" if row["codec"] == DENSE else f"`{row['codec']}`"
    return (
        f"| {row['case']} | {cache} | {row['tokens_per_second']:.1f} "
        f"| {step['median']:.2f} [{step['p20']:.2f}, {step['p80']:.2f}] | {over} "
        f"| {row['bytes'] / 1e9:.2f} | {row.get('peak', 0) / 1e9:.2f} | {less} "
        f"| {row.get('cosine', float('nan')):.4f} |"
    )


def main() -> int:
    """Write the page."""
    run = json.loads((RESULTS / "gpu-generate.json").read_text("utf-8"))
    (RESULTS / "gpu-generate.md").write_text(markdown(run), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
