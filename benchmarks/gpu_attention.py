"""Attention over packed pages on a GPU: ``python -m benchmarks.gpu_attention --out DIR``.

Against torch's attention over dense bf16 (every backend it offers; the fastest counts) and the
bf16 roofline: the bytes of K and V in bf16 over the measured bandwidth of a copy. Every shape is
judged against float64 before it is timed. Written row by row into ``gpu-attention-N.json``; a run
goes on with the newest of these files if that is of the same code on the same device, and begins
the next otherwise. Exit code 0: all shapes within their error, 1: not.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import machine, resume
from benchmarks.device import race
from benchmarks.device.conform import compile_all
from benchmarks.device.framed import Framed
from benchmarks.device.race import Packed, Shape
from benchmarks.device.run import no_gpu
from kakeya_fast.cuda import attend_plan, params
from kakeya_fast.cuda import compile as compiler
from kakeya_fast.cuda.attend_plan import Tuning
from kakeya_fast.cuda.compile import Unit
from kakeya_ref.errors import Unsupported
from kakeya_ref.layout import page_layout
from kakeya_ref.types import Basis, PageLayout

CALIBRATED = "query:b=3/trellis:b=3"
CODECS = ("scalar:b=3", "scalar:b=2", "scalar:b=4", "trellis:b=2", CALIBRATED)
CONTEXTS = (1 << 10, 4 << 10, 8 << 10, 32 << 10, 128 << 10)
RESULTS = Path(__file__).parent / "results"


TARGETS = tuple(Shape(c, b) for b in (1, 8) for c in (32 << 10, 128 << 10))
# Warps, stages, blocks of a multiprocessor, whether codes of K and of V are looked up.
VARIANTS = (
    (16, 2, 1, 1, 1),
    (16, 2, 1, 0, 1),
    (16, 3, 1, 1, 0),
    (8, 2, 2, 1, 0),
)
Plan = list[tuple[Shape, str, list[Tuning | None]]]


def targets() -> Plan:
    """The four headline shapes at 3 bits, by the default and by variants, and calibrated."""
    tuned = [Tuning(*words) for words in VARIANTS]
    uniform: Plan = [(shape, CODECS[0], [None, *tuned]) for shape in TARGETS]
    return uniform + [(shape, CALIBRATED, [None]) for shape in TARGETS]


def full() -> Plan:
    """Contexts, batches, head dims, groups, codecs and queries; the telling ones first."""
    batches = (1, 8)
    told = [(s, CODECS) for s in TARGETS]
    told += [(Shape(c, b), CODECS) for c in CONTEXTS for b in batches]
    told += [(Shape(32 << 10, b, queries=4), CODECS) for b in batches]
    told += [
        (Shape(c, b, head_dim=d), CODECS) for c in CONTEXTS[3:] for b in batches for d in (64, 256)
    ]
    few = CODECS[:1] + CODECS[3:]
    told += [(Shape(c, b, g), few) for c in CONTEXTS[3:] for b in batches for g in (1, 8)]
    told += [(Shape(c, b, head_dim=d), few) for c in (1 << 10,) for b in batches for d in (64, 256)]
    told += [(Shape(1 << 10, b, g), few) for b in batches for g in (1, 8)]
    told += [(Shape(128 << 10, b, queries=4), few) for b in batches]
    pairs = dict.fromkeys((shape, codec) for shape, codecs in told for codec in codecs)
    return [(shape, codec, [None]) for shape, codec in pairs]


def units(plan: Plan) -> list[Unit]:
    """What has to be compiled."""
    found = {}
    for shape, codec, tuned in ((s, c, t) for s, c, more in plan for t in more):
        k, v = (page_layout(x, shape.head_dim, race.TOKENS) for x in streams(codec))
        found[attending((k, v), shape.groups * shape.queries, "bfloat16", tuned)] = None
        for layout in (k, v):
            if layout.codec.id == "trellis":  # what judges it
                found[compiler.unit(layout, "float32", "decode", "coefficients")] = None
    return list(found)


def streams(codec: str) -> tuple[str, str]:
    """Codecs of keys and values: ``keys/values``, or one for both."""
    k, _, v = codec.partition("/")
    return k, v or k


def attending(
    layouts: tuple[PageLayout, PageLayout], rows: int, dtype: str, tuned: Tuning | None = None
) -> Unit:
    """The kernel of attention over such pages; keys of ``query`` have float32 queries of frames."""
    framed = layouts[0].codec.id == attend_plan.CALIBRATED
    tuned = tuned or attend_plan.tuning(layouts, rows, framed=framed)
    kind = params.KINDS["float32" if framed else dtype]
    n = attend_plan.numbers(layouts, kind, rows, tuned, bias=framed, framed=framed)
    entries = (attend_plan.ENTRY, attend_plan.TURN) if framed else (attend_plan.ENTRY,)
    return Unit("attend.cu", n.defines(tuned.resident), entries)


def measure(
    made: Packed, codec: str, copy: float, tuned: Tuning | None, decode: Any
) -> dict[str, Any]:
    """One row of the table: judged, then timed."""
    attention = made.attention(tuned)
    errors = made.judge(attention, decode)
    row = {
        "shape": str(made.shape),
        "codec": codec,
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
        f"{row['shape']:<26} {row['codec']:<21} {row['tuned'] or 'default'!s:<20} "
        f"n={row['splits']:<4} {t['median'] * 1e6:8.1f} us [{t['p20'] * 1e6:.1f}, "
        f"{t['p80'] * 1e6:.1f}] {row['rate'] / 1e9:6.0f} GB/s {row['of_copy']:4.0%} "
        f"err {row['errors']['ratio']:.2f}x"
    )
    if "over_sdpa" in row:
        said += f"  sdpa x{row['over_sdpa']:.2f} roof x{row['over_roof']:.2f}"
    return said


def begun_result(device: torch.device, out: Path) -> tuple[Path, dict[str, Any]]:
    """The result of this run, and its file: the newest one of the same code and device goes on."""
    copy = race.copy_bandwidth(device)
    result: dict[str, Any] = machine.describe() | {
        "device": torch.cuda.get_device_name(device),
        "code": machine.code(),
        "copy": copy,
        "rows": [],
        "dense": {},
    }
    path, before = resume.numbered(out, "gpu-attention", result)
    result |= before
    return path, result | {"copy": max(copy, result["copy"]), "failed": [], "left": []}


def measured(result: dict[str, Any], shape: Shape, codec: str, tuned: Tuning | None) -> bool:
    """Whether a row is there."""
    key = str(shape), codec, None if tuned is None else list(tuned)
    return any((row["shape"], row["codec"], row["tuned"]) == key for row in result["rows"])


def dense(result: dict[str, Any], shape: Shape, device: torch.device) -> float:
    """Seconds of torch's fastest attention over dense bf16, measured once for a shape; 0: none."""
    known = result["dense"]
    if not known.get(str(shape)):
        try:
            known[str(shape)] = race.dense(shape, device)
        except RuntimeError as error:
            result["failed"].append(f"dense {shape}: {error}"[:500])
            known[str(shape)] = []
        torch.cuda.empty_cache()
        for one in known[str(shape)]:
            if "median" in one:
                print(f"    {shape} {one['by']}: {one['median'] * 1e6:.1f} us", flush=True)
    return min((one["median"] for one in known[str(shape)] if "median" in one), default=0.0)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    from kakeya_fast.cuda.backend import Backend
    from kakeya_fast.cuda.launch import CupyLauncher, cuda_device
    from kakeya_fast.dispatch import get_backend

    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--out", type=Path, default=RESULTS)
    which = options.add_mutually_exclusive_group()
    which.add_argument("--targets", action="store_true", help="headline shapes, and variants")
    which.add_argument("--full", action="store_true", help="every shape (the default)")
    options.add_argument("--seconds", type=float, default=240)
    options.add_argument("--codecs", nargs="+", default=CODECS)
    options.add_argument("--no-dense", action="store_true", help="for tuning: no comparison")
    told = options.parse_args(argv)
    begun = time.monotonic()
    try:
        device = cuda_device("cuda")
        launcher = CupyLauncher(device)
    except (ImportError, Unsupported) as error:
        return no_gpu(error)
    path, result = begun_result(device, told.out)
    plan = [
        (shape, codec, left)
        for shape, codec, more in (targets() if told.targets else full())
        if codec in told.codecs
        and (left := [one for one in more if not measured(result, shape, codec, one)])
    ]
    count = compile_all(units(plan), launcher.arch, 120)
    print(f"compiled {count} in {time.monotonic() - begun:.0f} s", flush=True)
    by_torch, by_cuda = get_backend("torch", "cuda"), Backend(launcher=launcher)

    def decode(pages: Tensor, layout: PageLayout, basis: Basis, tables: Any) -> Tensor:
        """Not by the code that is judged."""
        backend = by_torch if by_torch.supports(layout).ok else by_cuda
        return backend.decode_tensor(pages, layout, basis=basis, tables=tables)

    copy = result["copy"]
    print(f"{path.name}: {result['device']}, copy {copy / 1e9:.0f} GB/s", flush=True)
    made: Packed | None = None
    for shape, codec, more in plan:
        if time.monotonic() - begun > told.seconds:
            result["left"].append(f"{shape} {codec}")
            continue
        made = None  # before the next one takes memory
        torch.cuda.empty_cache()
        sdpa = 0.0 if told.no_dense else dense(result, shape, device)
        made = (Framed if codec == CALIBRATED else Packed)(launcher, shape, streams(codec))
        for tuned in more:
            try:
                row = measure(made, codec, copy, tuned, decode)
            except Exception as error:  # the time on a GPU is short: other rows still run
                result["failed"].append(f"{shape} {codec} {tuned}: {error!r}"[:500])
                print(result["failed"][-1], flush=True)
                continue
            median = row["seconds"]["median"]
            row["over_roof"], row["over_sdpa"] = shape.dense / copy / median, sdpa / median
            result["rows"].append(row)
            print(line(row), flush=True)
            resume.save(path, result)
    result["left"].sort()
    resume.save(path, result)
    bad = [row for row in result["rows"] if not row["errors"]["ratio"] <= 2]
    print(f"{len(result['rows'])} rows, {len(bad)} beyond twice the error of plain bf16")
    print(f"{len(result['left'])} left for want of time, {len(result['failed'])} failed")
    return 1 if bad or result["failed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
