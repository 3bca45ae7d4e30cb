"""Damage of calibrated keys and trellis values: ``python -m benchmarks.damage [--part P]``.

Four parts a model, each resumable: ``main`` (passages of 1024 tokens of the second half of the
prose), ``foreign`` (the same of the reference manual), ``long`` (8192 tokens, by position), and
``greedy`` (agreement of generation). Calibration reads the first halves only. Results go to
``results/damage/``; ``python -m benchmarks.damage_report`` turns them into pages.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.damage_long import agreement, by_chunk, spread_out
from benchmarks.damage_settings import (
    CONTEXT,
    CTX,
    TABLES,
    TOKENS,
    foreign_settings,
    greedy_settings,
    half,
    long_settings,
    main_settings,
    make_tables,
    table_folder,
)
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.protocol import Options
from kakeya_fast.quality.report import write_json
from kakeya_fast.quality.run import run, steps
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.texts import passages

RESULTS = Path(__file__).parent / "results" / "damage"
PASSAGES, LONG, PROMPTS, PROMPT, GREEDY = 16, 5, 56, 256, 96
PARTS = ("main", "long", "foreign", "greedy")


def main() -> None:
    """Measure what is asked for, in order of importance."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--part", action="append", choices=PARTS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--passages", type=int, default=PASSAGES)
    parser.add_argument("--few", type=int, help="only the first settings of each part")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    if args.device == "cpu":
        torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    loaded = load_model(args.model, device=args.device)
    began = time.perf_counter()
    paths = make_tables(loaded, table_folder(), list(TABLES))
    _say(f"{loaded.name}: tables", began)
    for part in args.part or PARTS:
        began = time.perf_counter()
        PART[part](loaded, paths, args)
        _say(f"{loaded.name}: {part}", began)


def _say(what: str, began: float) -> None:
    print(f"{what}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)


def _passages(loaded: Loaded, paths: Any, args: Any, name: str, settings: list[str]) -> None:
    """In-forward damage on passages of the second half of a text."""
    text, options = half(f"{name}-b"), Options()
    chosen = [Setting.parse(s) for s in settings[: args.few]]
    out = args.out / f"{loaded.name}-{name}.json"
    total, done = steps(1024, args.passages, len(chosen), options), [0]

    def step() -> None:
        done[0] += 1
        if done[0] % 50 == 0:
            print(f"{out.stem}: {done[0]} of {total} forwards", file=sys.stderr, flush=True)

    report = run(
        loaded, text, chosen, ctx=1024, count=args.passages, options=options, out=out,
        any_commit=True, workers=args.workers, step=step,
    )  # fmt: skip
    data = report.as_dict()
    data["calibration"] = _calibration()
    # Where tables lie on the measuring machine means nothing to a reader.
    text_data = json.dumps(data).replace(f"{table_folder()}/{loaded.name}-", "")
    write_json(json.loads(text_data), out.with_name(f"{out.stem}-report.json"))


def _calibration() -> dict[str, Any]:
    tables = {name: {"texts": texts, **how} for name, (texts, how) in TABLES.items()}
    return {"tokens": TOKENS, "ctx": CTX, "context": CONTEXT, "tables": tables}


def _main(loaded: Loaded, paths: Any, args: Any) -> None:
    _passages(loaded, paths, args, "workshop", main_settings(paths))


def _foreign(loaded: Loaded, paths: Any, args: Any) -> None:
    _passages(loaded, paths, args, "manual", foreign_settings(paths))


def _units(
    loaded: Loaded, args: Any, name: str, work: Callable[..., Any], jobs: list[Any], about: Any
) -> None:
    """Results of jobs, written after each; those that are there are kept."""
    out = args.out / f"{loaded.name}-{name}.json"
    held = json.loads(out.read_text("utf-8")) if out.exists() else {"units": []}
    key = "prompt" if name == "greedy" else "passage"
    left = [job for job in jobs if job[0] not in {unit[key] for unit in held["units"]}]
    for unit in spread_out(loaded, work, left, args.workers):
        text = json.dumps(unit).replace(f"{table_folder()}/{loaded.name}-", "")
        held["units"].append(json.loads(text))
        write_json({**about, "calibration": _calibration(), "units": held["units"]}, out)


def _long(loaded: Loaded, paths: Any, args: Any) -> None:
    text, settings = half("workshop-b"), long_settings(paths)[: args.few]
    found = passages(loaded.tokens(text.text), loaded.prefix, 8192, LONG)
    # A setting at a time: work for every process, and less held at once.
    jobs = [(f"{p.index}.{i}", p.ids, (s,)) for i, s in enumerate(settings) for p in found]
    about = {"model": loaded.name, "text": text.name, "ctx": 8192, "passages": LONG}
    _units(loaded, args, "long", by_chunk, jobs, about)


def _greedy(loaded: Loaded, paths: Any, args: Any) -> None:
    text, settings = half("workshop-b"), greedy_settings(paths)[: args.few]
    found = passages(loaded.tokens(text.text), loaded.prefix, PROMPT, PROMPTS)
    jobs = [(p.index, p.ids, GREEDY, settings) for p in found]
    about = {
        "model": loaded.name, "text": text.name, "prompts": PROMPTS, "prompt": PROMPT,
        "tokens": GREEDY,
    }  # fmt: skip
    _units(loaded, args, "greedy", agreement, jobs, about)


PART: dict[str, Callable[..., None]] = {
    "main": _main, "foreign": _foreign, "long": _long, "greedy": _greedy
}  # fmt: skip

if __name__ == "__main__":
    main()
