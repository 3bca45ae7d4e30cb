"""Damage of calibrated keys and trellis values: ``python -m benchmarks.damage [--part main]``.

``main``: passages of 1024 tokens of the second half of the prose, KL, ΔNLL and top-1 against the
same engine uncompressed. ``long``: one of 8192 tokens, by position. Calibration reads other text.
Every (passage, setting) is written at once to ``results/damage/``, and a second call goes on;
``python -m benchmarks.damage_report`` turns the files into pages.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.damage_forward import PAGE, SINKS, Damage, compared, install, logits
from benchmarks.damage_settings import (
    CONTEXT,
    CTX,
    LONG,
    MAIN,
    TABLES,
    TOKENS,
    Row,
    half,
    make_tables,
    table_folder,
)
from kakeya_fast.hf import load_tables
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.report import write_json
from kakeya_fast.quality.texts import passages

RESULTS = Path(__file__).parent / "results" / "damage"
WARMUP, BUCKET = 64, 1024
PARTS = {"main": (1024, 16, MAIN), "long": (8192, 2, LONG)}
TEXT = "workshop-b"


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--part", choices=list(PARTS), default="main")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passages", type=int, help="fewer of them, from the first on")
    parser.add_argument("--settings", type=int, help="fewer of them, from the first on")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = load_model(args.model, device=args.device)
    ctx, count, rows = PARTS[args.part]
    rows = rows[: args.settings]
    names = sorted({tables for _, _, tables in rows if tables})
    paths = make_tables(loaded, names, table_folder())
    _say(f"{loaded.name}: tables at {table_folder()}")
    args.out.mkdir(parents=True, exist_ok=True)
    measure(
        loaded, rows, paths, ctx, count, args.passages, args.out / f"{loaded.name}-{args.part}.json"
    )


def measure(
    loaded: Loaded,
    rows: Sequence[Row],
    paths: dict[str, Path],
    ctx: int,
    count: int,
    most: int | None,
    out: Path,
) -> None:
    """Every setting on every passage, one line of sums each."""
    text = half(TEXT)
    found = passages(loaded.tokens(text.text), loaded.prefix, ctx, count)
    data: dict[str, Any] = {"units": []}
    if out.exists():
        data = json.loads(out.read_text("utf-8"))
    tables = {name: load_tables(path) for name, path in paths.items()}
    for known in tables.values():
        known.check(loaded.model)
    data |= _about(loaded, text, ctx, count, tables)
    done = {(u["passage"], u["setting"]) for u in data["units"]}
    install(loaded.model)
    for passage in found[:most]:
        left = [r for r in rows if (passage.index, _name(r)) not in done]
        if not left:
            continue
        ids = torch.tensor([passage.ids], device=loaded.model.device)
        base = logits(loaded.model, ids, WARMUP, None).float().log_softmax(-1)
        targets = ids[0, WARMUP + 1 :]
        for row in left:
            began = time.perf_counter()
            damage = Damage(row[0], row[1], tables.get(row[2]))
            each = compared(base, logits(loaded.model, ids, WARMUP, damage), targets)
            nll = -base.gather(1, targets[:, None])[:, 0].double().cpu().numpy()
            unit = {
                "passage": passage.index, "start": passage.start, "setting": _name(row),
                "bits": [damage.bits("k"), damage.bits("v")],
                "buckets": _buckets(np.column_stack([each, nll])),
            }  # fmt: skip
            data["units"].append(unit)
            write_json(data, out)
            _say(f"{passage.index} {_name(row)} KL {each[:, 0].mean():.4f} "
                 f"dNLL {each[:, 1].mean():+.4f} {time.perf_counter() - began:.0f} s")  # fmt: skip


def _buckets(each: np.ndarray) -> list[list[float]]:
    """Sums over every 1024 positions: first position, tokens, KL, ΔNLL, agreement, NLL."""
    out, at = [], WARMUP
    while at - WARMUP < len(each):
        stop = (at // BUCKET + 1) * BUCKET
        part = each[at - WARMUP : stop - WARMUP]
        out.append([at, len(part), *(round(float(x), 6) for x in part.sum(0))])
        at = stop
    return out


def _about(loaded: Loaded, text: Any, ctx: int, count: int, tables: Any) -> dict[str, Any]:
    shown = {
        name: {"texts": TABLES[name][0], "frame": known.frame, "bytes": known.nbytes}
        | {k: v for k, v in known.made.items() if k in ("tokens", "context")}
        for name, known in tables.items()
    }
    size = sum(p.numel() for p in loaded.model.parameters())
    return {
        "format": "kakeya-damage/1",
        "model": {"name": loaded.name, "sha256": loaded.sha256, "dtype": loaded.dtype,
                  "parameters": size},
        "text": {"name": text.name, "sha256": text.sha256},
        "protocol": {"ctx": ctx, "passages": count, "warmup": WARMUP, "sinks": SINKS, "page": PAGE,
                     "layers": "all attention layers, sliding ones included"},
        "calibration": {"tokens_a_text": TOKENS, "ctx": CTX, "context": CONTEXT, "tables": shown},
    }  # fmt: skip


def _name(row: Row) -> str:
    return f"{row[0]}/{row[1]}" + (f"@{row[2]}" if row[2] else "")


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
