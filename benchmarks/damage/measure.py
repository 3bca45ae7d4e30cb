"""Damage of calibrated keys and trellis values: ``python -m benchmarks.damage [--part main]``.

Passages of a text that no table has seen, or that only some have (``code``, ``prose``): KL, ΔNLL
and top-1 against the same engine uncompressed, summed by position. Every (passage, setting) is
written at once to ``results/damage/``, and a second call goes on;
``python -m benchmarks.damage.report`` turns the files into pages.
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

from benchmarks.damage.forward import PAGE, SINKS, Damage, compared, enter_run, install, logits
from benchmarks.damage.settings import (
    CONTEXT,
    CTX,
    PARTS,
    TABLES,
    TOKENS,
    Row,
    half,
    make_tables,
    make_trials,
    name_of,
    table_folder,
)
from benchmarks.damage.trials import Evened, Trials
from benchmarks.pool import spread
from kakeya_fast.hf import load_tables
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.report import write_json
from kakeya_fast.quality.texts import Passage, passages

RESULTS = Path(__file__).parents[1] / "results" / "damage"
WARMUP, BUCKET = 64, 1024
# Settings that share an uncompressed pass.
AT_ONCE = 12

_mine: dict[str, Any] = {}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--part", choices=list(PARTS), action="append", help="default: all")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--passages", type=int, help="fewer of them, from the first on")
    parser.add_argument("--setting", action="append", help="only this one: keys/values@tables")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    parts = args.part or list(PARTS)
    known = {name_of(row) for part in parts for row in PARTS[part][3]}
    if unknown := set(args.setting or ()) - known:
        parser.error(f"no such setting: {', '.join(sorted(unknown))}; there are {sorted(known)}")
    loaded = load_model(args.model, device=args.device)
    measure(loaded, parts, args.out, args.passages, args.setting, args.workers)


def measure(
    loaded: Loaded,
    parts: Sequence[str],
    folder: Path,
    most: int | None = None,
    settings: Sequence[str] | None = None,
    workers: int = 1,
) -> None:
    """Every setting of some parts on every passage, one line of sums each."""
    rows = {
        part: [row for row in PARTS[part][3] if settings is None or name_of(row) in settings]
        for part in parts
    }
    every = [row for some in rows.values() for row in some]
    paths = make_tables(loaded, sorted({t for _, _, t in every if t}), table_folder())
    trials = any("trial" in k + v for k, v, _ in every)
    if trials:
        make_trials(loaded, table_folder())
    kept, jobs = {}, []
    for part in parts:
        kept[part], left = _left(loaded, part, folder / f"{loaded.name}-{part}.json", paths, most,
                                 rows[part])  # fmt: skip
        jobs += left
    given = (loaded.name, str(loaded.model.device), paths, trials)
    mine = given if workers > 1 else (*given, loaded)
    began = time.perf_counter()
    for n, (part, units) in enumerate(spread(jobs, _job, _ready, mine, workers)):
        kept[part]["units"] += [unit | {"run": len(kept[part]["runs"]) - 1} for unit in units]
        write_json(kept[part], folder / f"{loaded.name}-{part}.json")
        kl = units[0]["buckets"][0][2] / units[0]["buckets"][0][1]
        _say(f"{loaded.name} {part} {n + 1}/{len(jobs)} {units[0]['setting']} KL {kl:.4f} "
             f"{time.perf_counter() - began:.0f} s")  # fmt: skip


Job = tuple[str, Passage, list[Row]]


def _left(
    loaded: Loaded,
    part: str,
    out: Path,
    paths: dict[str, Path],
    most: int | None,
    rows: Sequence[Row],
) -> tuple[dict[str, Any], list[Job]]:
    """What the file of a part says, and what it lacks."""
    ctx, count, name, _ = PARTS[part]
    text = half(name)
    found = passages(loaded.tokens(text.text), loaded.prefix, ctx, count)
    data: dict[str, Any] = {"units": []}
    if out.exists():
        data = json.loads(out.read_text("utf-8"))
    tables = {name: load_tables(paths[name]) for name in sorted({t for _, _, t in rows if t})}
    for known in tables.values():
        known.check(loaded.model)
    before = data.get("calibration", {}).get("tables", {})
    data |= _about(loaded, text, ctx, count, tables)
    data["calibration"]["tables"] = before | data["calibration"]["tables"]
    enter_run(data, loaded.model)
    done = {(u["passage"], u["setting"]) for u in data["units"]}
    jobs: list[Job] = []
    for passage in found[:most]:
        left = [r for r in rows if (passage.index, name_of(r)) not in done]
        jobs += [(part, passage, left[at : at + AT_ONCE]) for at in range(0, len(left), AT_ONCE)]
    return data, jobs


def _ready(
    model: str, device: str, paths: dict[str, Path], trials: bool, loaded: Loaded | None = None
) -> None:
    if loaded is None:
        torch.set_num_threads(1)
        loaded = load_model(model, device=device)
    install(loaded.model)
    _mine["model"] = loaded.model
    _mine["tables"] = {name: load_tables(path) for name, path in paths.items()}
    _mine["trials"] = make_trials(loaded, table_folder()) if trials else None


def _job(job: Job) -> tuple[str, list[dict[str, Any]]]:
    part, passage, rows = job
    model, units = _mine["model"], []
    ids = torch.tensor([passage.ids], device=model.device)
    base = logits(model, ids, WARMUP, None).float().log_softmax(-1)
    targets = ids[0, WARMUP + 1 :]
    nll = -base.gather(1, targets[:, None])[:, 0].double().cpu().numpy()
    for row in rows:
        damage = _damage(row)
        each = compared(base, logits(model, ids, WARMUP, damage), targets)
        units.append({
            "passage": passage.index, "start": passage.start, "setting": name_of(row),
            "bits": [damage.bits("k"), damage.bits("v")],
            "buckets": _buckets(np.column_stack([each, nll])),
        })  # fmt: skip
    return part, units


def _damage(row: Row) -> Damage:
    tables = _mine["tables"].get(row[2])
    if "even:" in row[0] + row[1]:
        return Evened(row[0], row[1], tables)
    if "trial" in row[0] + row[1]:
        return Trials(row[0], row[1], tables, _mine["trials"])
    return Damage(row[0], row[1], tables)


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


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)
