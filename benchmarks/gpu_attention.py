"""Attention over packed pages on a GPU: ``python -m benchmarks.gpu_attention --out DIR``.

Against torch's attention over dense bf16 (every backend it offers; the fastest counts) and the
bf16 roofline: the bytes of K and V in bf16 over the measured bandwidth of a copy. Every shape is
judged against float64 before it is timed. Exit code 0: all shapes within their error, 1: not.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import gpu_attention_race as race
from benchmarks import machine
from benchmarks.gpu_attention_race import Packed, Shape
from benchmarks.gpu_conform import compile_all
from kakeya_fast.cuda import attend_plan, params
from kakeya_fast.cuda.attend_plan import Tuning
from kakeya_fast.cuda.compile import Unit
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.layout import page_layout
from kakeya_ref.types import Basis, PageLayout

CODECS = ("scalar:b=3", "scalar:b=2", "scalar:b=4", "trellis:b=2")
CONTEXTS = (1 << 10, 4 << 10, 8 << 10, 32 << 10, 128 << 10)
RESULTS = Path(__file__).parent / "results"


def shapes(full: bool) -> list[Shape]:
    """What is timed, the most telling first."""
    told = [Shape(32 << 10, b, g) for b in (1, 8) for g in (4, 8)]
    told += [Shape(128 << 10, b, g) for b in (1, 8) for g in (4, 8)]
    if full:
        told += [Shape(c, b) for c in CONTEXTS for b in (1, 8)]
        told += [Shape(32 << 10, b, 1) for b in (1, 8)]
        told += [Shape(c, b, head_dim=d) for d in (64, 256) for c in CONTEXTS[3:] for b in (1, 8)]
        told += [Shape(32 << 10, b, 4, queries=4) for b in (1, 8)]
    return list(dict.fromkeys(told))


def tunings(shape: Shape, codec: str) -> list[tuple[Tuning | None, int | None]]:
    """Variants that are timed beside the default, on the shapes of 32k tokens."""
    told = shape.context == 32 << 10 and shape.head_dim == 128 and shape.groups == 4
    if not told or codec not in ("scalar:b=2", "scalar:b=3"):
        return []
    found: list[tuple[Tuning | None, int | None]] = [(Tuning(*words), None) for words in VARIANTS]
    if codec == "scalar:b=3":
        found += [(None, n) for n in ((8, 32) if shape.batch == 1 else (4,))]
    return found


# Warps, stages, blocks of a multiprocessor, whether codes of K and of V are looked up.
VARIANTS = (
    (16, 2, 1, 0, 0),
    (16, 2, 1, 1, 0),
    (16, 2, 1, 0, 1),
    (8, 2, 2, 1, 1),
)


def units(rows: list[tuple[Shape, str, Tuning | None]]) -> list[Unit]:
    """What has to be compiled."""
    found = {}
    for shape, codec, tuned in rows:
        layout = page_layout(codec, shape.head_dim, race.TOKENS)
        m = shape.groups * shape.queries
        tuned = tuned or attend_plan.tuning((layout, layout), m)
        n = attend_plan.numbers((layout, layout), params.KINDS["bfloat16"], m, tuned)
        found[Unit("attend.cu", n.defines(tuned.resident), (attend_plan.ENTRY,))] = None
    return list(found)


def measure(
    made: Packed, copy: float, tuned: Tuning | None, splits: int | None, decode: Any
) -> dict[str, Any]:
    """One row of the table: judged, then timed."""
    attention = made.attention(tuned, splits)
    errors = made.judge(attention, decode)
    row = {
        "shape": str(made.shape) + (f" Q={made.shape.queries}" if made.shape.queries > 1 else ""),
        "codec": str(made.layouts[0].codec),
        "tuned": None if tuned is None else list(tuned),
        "splits": attention.splits,
        "bytes": made.bytes,
        "errors": errors,
    }
    taken = race.timed(made.calls(attention))
    rate = made.bytes / taken.median
    return row | {"seconds": race.seconds(taken), "rate": rate, "of_copy": rate / copy}


def line(row: dict[str, Any]) -> str:
    """A row in words."""
    t = row["seconds"]
    said = (
        f"{row['shape']:<26} {row['codec']:<11} {row['tuned'] or 'default'!s:<12} "
        f"n={row['splits']:<4} {t['median'] * 1e6:8.1f} us [{t['p20'] * 1e6:.1f}, "
        f"{t['p80'] * 1e6:.1f}] {row['rate'] / 1e9:6.0f} GB/s {row['of_copy']:4.0%} "
        f"err {row['errors']['ratio']:.2f}x"
    )
    if "over_sdpa" in row:
        said += f"  sdpa x{row['over_sdpa']:.2f} roof x{row['over_roof']:.2f}"
    return said


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    from kakeya_fast.cuda.launch import CupyLauncher, cuda_device
    from kakeya_fast.dispatch import get_backend

    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=RESULTS)
    options.add_argument("--full", action="store_true", help="all shapes, not the telling ones")
    options.add_argument("--seconds", type=float, default=240)
    options.add_argument("--codecs", nargs="+", default=CODECS)
    options.add_argument("--no-variants", action="store_true")
    options.add_argument("--no-dense", action="store_true", help="for tuning: no comparison")
    options.add_argument("--most", type=int, default=1000, help="shapes, at most")
    told = options.parse_args(argv)
    begun, device = time.monotonic(), cuda_device("cuda")
    launcher = CupyLauncher(device)
    plan = [
        (shape, codec, [] if told.no_variants else tunings(shape, codec))
        for shape in shapes(told.full)[: told.most]
        for codec in told.codecs
    ]
    every = [(s, c, t) for s, c, more in plan for t, _ in [(None, None), *more]]
    count = compile_all(units(every), launcher.arch, 120)
    print(f"compiled {count} in {time.monotonic() - begun:.0f} s", flush=True)
    torch_backend, reference = get_backend("torch", "cuda"), ReferenceBackend()

    def decode(pages: Tensor, layout: PageLayout, basis: Basis) -> Tensor:
        """Not by the code that is judged."""
        if torch_backend.supports(layout).ok:
            return torch_backend.decode_tensor(pages, layout, basis=basis)
        numbers = reference.decode(pages.cpu().numpy(), layout, basis=basis)
        return torch.from_numpy(numbers).to(pages.device)

    copy = race.copy_bandwidth(device)
    result: dict[str, Any] = machine.describe() | {
        "device": torch.cuda.get_device_name(device),
        "copy": copy,
        "rows": [],
        "dense": {},
        "failed": [],
    }
    print(f"{result['device']}, copy {copy / 1e9:.0f} GB/s", flush=True)
    told.out.mkdir(parents=True, exist_ok=True)
    for shape, codec, more in plan:
        if time.monotonic() - begun > told.seconds:
            result["failed"].append(f"{shape} {codec}: no time left")
            continue
        torch.cuda.empty_cache()
        if told.no_dense:
            result["dense"][str(shape)] = []
        if str(shape) not in result["dense"]:
            try:
                result["dense"][str(shape)] = race.dense(shape, device)
            except RuntimeError as error:
                result["failed"].append(f"dense {shape}: {error}")
                result["dense"][str(shape)] = []
            torch.cuda.empty_cache()
            for one in result["dense"][str(shape)]:
                took = f"{one['median'] * 1e6:.1f} us" if "median" in one else one["refused"]
                print(f"    {shape} {one['by']}: {took}", flush=True)
        took = [one["median"] for one in result["dense"][str(shape)] if "median" in one]
        made = Packed(launcher, shape, (codec, codec))
        for tuned, splits in [(None, None), *more]:
            try:
                row = measure(made, copy, tuned, splits, decode)
            except Exception as error:  # the time on a GPU is short: other rows still run
                result["failed"].append(f"{shape} {codec} {tuned}: {error!r}"[:500])
                print(result["failed"][-1], flush=True)
                continue
            median = row["seconds"]["median"]
            row["over_roof"] = shape.dense / copy / median
            row["over_sdpa"] = min(took, default=0.0) / median
            result["rows"].append(row)
            print(line(row), flush=True)
        (told.out / "gpu-attention.json").write_text(json.dumps(result, indent=1) + "\n")
    bad = [row for row in result["rows"] if not row["errors"]["ratio"] <= 2]
    print(f"{len(result['rows'])} rows, {len(bad)} beyond twice the error of plain bf16")
    return 1 if bad or any("no time" not in f for f in result["failed"]) else 0


if __name__ == "__main__":
    raise SystemExit(main())
