"""What a decode step pays for the length of a frame: ``python -m benchmarks.frames``.

One step of a model at a long context with calibrated keys, by frames of several lengths: the
shorter, the more queries are turned and the fewer tokens share them. What each of them loses is in
``results/damage``. Writes ``results/frames.json`` and a page beside it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numba
import torch

from benchmarks import machine
from benchmarks.attention_generate import packed, prefilled
from benchmarks.damage.settings import make_tables, table_folder
from benchmarks.timing import CLOCKS, race
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.texts import load_text

DEFAULT = Path(__file__).parent / "results" / "frames.json"
FRAMES = (1, 32, 128, 512, 2048)
KEYS, VALUES, TEXT = "query:b=3,f={}", "trellis:b=3", "books"


def main() -> None:
    """Measure all frame lengths in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--context", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=DEFAULT)
    args = parser.parse_args()
    if args.clock == "cpu" and args.threads != 1:
        parser.error("--clock cpu adds up all threads: it needs --threads 1")
    numba.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    result = machine.describe() | {"threads": args.threads, "clock": args.clock}
    result |= measure(load_model(args.model), args.context, args.clock, args.rounds)
    result["machine"]["load_after"] = list(os.getloadavg())
    args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(page(result), "utf-8")
    print(page(result))


@torch.no_grad()
def measure(loaded: Loaded, context: int, clock: str, rounds: int) -> dict[str, Any]:
    """Seconds of a step behind ``context`` tokens, by frame length, and of ``DynamicCache``."""
    ids = torch.tensor([loaded.tokens(load_text(TEXT).text)[: context + 1]])
    filled = prefilled(loaded.model, ids[:, :context])
    tables = make_tables(loaded, [f"f{f}" for f in FRAMES], table_folder())
    caches: dict[str, Any] = {}
    for f in FRAMES:
        codecs = (KEYS.format(f), VALUES)
        caches[str(f)] = packed(loaded.model, filled, codecs, tables[f"f{f}"])
    caches["exact"] = filled
    steps: dict[str, Callable[[], Any]] = {
        name: partial(_step, loaded.model, past, ids[:, context:]) for name, past in caches.items()
    }
    found = race(steps, CLOCKS[clock], 0.0, rounds)
    return {
        "model": loaded.name, "context": context, "text": TEXT, "codecs": [KEYS, VALUES],
        "seconds": {name: asdict(spread) for name, spread in found.items()},
        "held": {name: past.report().total for name, past in caches.items() if name != "exact"},
    }  # fmt: skip


def _step(model: Any, past: Any, token: torch.Tensor) -> Any:
    logits = model(token, past_key_values=past).logits
    past.crop(-1)
    return logits


def page(result: dict[str, Any]) -> str:
    """One line a frame length."""
    about = result["machine"]
    lines = [
        f"# Frames: a decode step of {result['model']} behind {result['context']} tokens",
        "",
        f"`{result['codecs'][0].format('F')}` keys, `{result['codecs'][1]}` values, text "
        f"{result['text']}; {result['threads']} threads of {about['cpu']}, {result['clock']} "
        f"clock, commit {result['commit']}, load {about['load_before'][0]:.1f} before and "
        f"{about['load_after'][0]:.1f} after; medians of steps that take turns, 20th and 80th "
        "percentile in brackets. Frames of 1 have no kernel: their pages are decoded.",
        "",
        "| frame | ms a step | over frames of 32 | cache holds, MB |",
        "|---|---|---|---|",
    ]
    base = result["seconds"]["32"]["median"]
    for name, s in result["seconds"].items():
        told = "`DynamicCache`" if name == "exact" else name
        held = f"{result['held'][name] / 1e6:.1f}" if name in result["held"] else ""
        lines.append(
            f"| {told} | {1e3 * s['median']:.0f} [{1e3 * s['p20']:.0f}, {1e3 * s['p80']:.0f}] | "
            f"{s['median'] / base:.2f} | {held} |"
        )
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
