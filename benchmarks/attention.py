"""Attention over packed pages on a CPU: ``python -m benchmarks.attention``.

Against torch's attention over dense fp32 and bf16 of the same shapes (every backend it offers,
query heads of a group as heads or as queries; the fastest counts), and a model through
``generate`` against ``DynamicCache``. Every shape is judged against float64 before it is timed.
Rows are saved one by one; a run of the same code goes on where the last one stopped, and
``--generation`` measures ``generate`` alone, anew, and leaves the rows of another run. Exit code 0:
all within their error.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks import machine
from benchmarks.attention_cpu_table import markdown, verdicts
from benchmarks.attention_generate import generation
from benchmarks.timing import CLOCKS, race
from kakeya_conformance.attending import ideal, judge
from kakeya_fast import get_backend
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.layout import page_layout
from kakeya_ref.types import Paged, PageLayout

DEFAULT = Path(__file__).parent / "results" / "attention-cpu.json"
TOKENS = 32
COLD = 96 << 20  # bytes that a runner walks through before it meets the same ones again
CODECS = ("scalar:b=4", "scalar:b=3", "e8:q=10")
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
# Math backends take copies of the whole context; beyond this they are far behind and only slow.
MATH_MOST = 8 << 10


@dataclass(frozen=True)
class Shape:
    """One layer of a decode step."""

    context: int
    batch: int = 1
    groups: int = 4
    head_dim: int = 128
    heads: int = 8
    queries: int = 1


def shapes() -> list[Shape]:
    """What is timed: the targets, then the rest."""
    told = [Shape(8 << 10, 1, g, d) for d in (64, 128) for g in (1, 4, 8)]
    told += [Shape(c) for c in (1 << 10, 32 << 10)] + [Shape(128 << 10, heads=2)]
    told += [Shape(8 << 10, 8, heads=2), Shape(8 << 10, head_dim=256), Shape(8 << 10, queries=4)]
    return told


class Packed:
    """Random keys and values of a shape, packed, often enough to be cold."""

    def __init__(self, shape: Shape, codec: str, backend: Any) -> None:
        self.shape, self.backend = shape, backend
        layout = page_layout(codec, shape.head_dim, TOKENS)
        self.layouts = (layout, layout)
        b, h, n = shape.batch, shape.heads, shape.context // TOKENS
        made = torch.Generator().manual_seed(1)
        size = (b * h * n, TOKENS, shape.head_dim)
        self.pages = [
            backend.encode_tensor(torch.randn(size, generator=made), layout) for _ in "kv"
        ]
        more = max(0, -(-COLD // (2 * self.nbytes)) - 1)
        self.copies = [self.pages] + [[x.clone() for x in self.pages] for _ in range(more)]
        m = shape.groups * shape.queries
        self.q = torch.randn(b, h, 1, m, shape.head_dim, generator=made)
        first = np.tile(TOKENS * np.arange(n, dtype=np.int32), (b, 1))
        slots = np.arange(b * h * n, dtype=np.int32).reshape(b, h, n)
        length = np.full_like(first, TOKENS)
        origin = np.full(b, shape.context)
        self.paged = Paged(slots, first, length, first + TOKENS, origin, shape.queries)
        self.at = 0

    @property
    def nbytes(self) -> int:
        """Packed bytes that one call reads."""
        return sum(x.numel() for x in self.pages)

    def run(self, q: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """One call, over the next copy."""
        self.at = (self.at + 1) % len(self.copies)
        q, pages = self.q if q is None else q, self.copies[self.at]
        scaling = self.shape.head_dim**-0.5
        return self.backend.attend_tensor(q, *pages, self.layouts, self.paged, scaling)

    def check(self) -> None:
        """Judge heads of the first row, one after the other, by ``spec/attention.md``.

        With 64 query rows, so that the mean of their errors is judged, too.
        """
        size = (*self.q.shape[:3], 64 * self.shape.queries, self.shape.head_dim)
        q = torch.randn(size, generator=torch.Generator().manual_seed(2))
        out, lse = self.run(q)
        reference, n = ReferenceBackend(), self.shape.context // TOKENS
        for h in range(min(self.shape.heads, max(1, (64 << 10) // self.shape.context))):
            part = slice(h * n, (h + 1) * n)
            k, v = (_decoded(reference, x[part].numpy(), self.layouts[0]) for x in self.pages)
            seen = np.ones((q.shape[3], len(k)), bool)
            wanted = ideal(q[0, h, 0].numpy(), k, v, seen, self.shape.head_dim**-0.5)
            judge(out[0, h].numpy(), lse[0, h].numpy(), wanted)


def _decoded(reference: Any, pages: Any, layout: PageLayout) -> Any:
    return reference.decode(pages, layout, basis="coefficients").reshape(-1, layout.head_dim)


def dense(shape: Shape, dtype: torch.dtype) -> dict[str, Callable[[], Any]]:
    """Torch's ways of doing the same over dense tensors."""
    b, h, g, d = shape.batch, shape.heads, shape.groups, shape.head_dim
    size = (b, h, shape.context, d)
    nbytes = 2 * b * h * shape.context * d * dtype.itemsize
    copies = [torch.randn(2, *size).to(dtype).unbind(0) for _ in range(max(1, -(-COLD // nbytes)))]
    q = torch.randn(b, h * g, shape.queries, d).to(dtype)
    turn = [0]

    def run(backend: SDPBackend, grouped: bool) -> Any:
        turn[0] = (turn[0] + 1) % len(copies)
        k, v = copies[turn[0]]
        with sdpa_kernel(backend):
            if grouped:
                rows = q.view(b, h, g * shape.queries, d)
                return torch.nn.functional.scaled_dot_product_attention(rows, k, v)
            return torch.nn.functional.scaled_dot_product_attention(q, k, v, enable_gqa=g > 1)

    found = {}
    for name, backend in BACKENDS.items():
        if name == "math" and shape.context * b > MATH_MOST:
            continue
        for grouped in (False, True) if g > 1 else (False,):
            # Several query tokens of a group see different tokens only in the exact tail.
            what = f"{str(dtype).rpartition('.')[2]} {name}{' grouped' if grouped else ''}"
            found[what] = partial(run, backend, grouped)
    return found


def measure(shape: Shape, codecs: list[str], backend: Any, clock: str, seconds: float) -> Any:
    """Seconds of every way, in turn."""
    runners: dict[str, Callable[[], Any]] = {}
    packed = {codec: Packed(shape, codec, backend) for codec in codecs}
    for codec, made in packed.items():
        made.check()
        runners[codec] = made.run
    for dtype in (torch.float32, torch.bfloat16):
        runners |= dense(shape, dtype)
    found = race(runners, CLOCKS[clock], seconds, 4)
    return asdict(shape) | {
        "seconds": {name: asdict(spread) for name, spread in found.items()},
        "packed_bytes": {codec: made.nbytes for codec, made in packed.items()},
    }


def copy_rate(clock: str) -> float:
    """Bytes read and written a second by torch's copy of 256 MiB."""
    a, b = torch.zeros(64 << 20), torch.zeros(64 << 20)
    found = race({"copy": lambda: b.copy_(a)}, CLOCKS[clock], 0.5, 5)
    return 2 * a.nbytes / found["copy"].median


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--seconds", type=float, default=2.0, help="per shape, at least")
    parser.add_argument("--codec", action="append", help="default: a selection")
    parser.add_argument("--quick", action="store_true", help="one shape, no model")
    parser.add_argument("--generation", action="store_true", help="a model alone; rows stay")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--context", type=int, default=8192, help="of the model")
    parser.add_argument("--new", type=int, default=32, help="tokens that are generated")
    args = parser.parse_args()
    if args.clock == "cpu" and args.threads != 1:
        parser.error("--clock cpu adds up all threads: it needs --threads 1")
    numba.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    backend = get_backend("numba", "cpu")
    codecs = list(args.codec or CODECS)
    if args.generation:
        result = json.loads(args.out.read_text("utf-8"))
        result["generation"] = generated(args)
        save(result, args.out, rows=False)
        print(markdown(result))
        return 0
    result = begun(args.out, args.threads, args.clock, codecs)
    if "copy_rate" not in result:
        result["copy_rate"] = copy_rate(args.clock)
    with torch.inference_mode():
        for shape in shapes()[: 1 if args.quick else None]:
            if any(row | asdict(shape) == row for row in result["rows"]):
                continue
            result["rows"].append(measure(shape, codecs, backend, args.clock, args.seconds))
            print(shape, _best(result["rows"][-1]), flush=True)
            save(result, args.out)
    if not args.quick and "generation" not in result:
        result["generation"] = generated(args)
    save(result, args.out)
    print("\n" + markdown(result))
    return 0


def generated(args: argparse.Namespace) -> dict[str, Any]:
    """A model through ``generate``, and where and with which code that was measured."""
    about = machine.describe() | {"code": machine.code(), "threads": args.threads}
    found = generation(args.model, args.context, args.new, args.clock)
    about["machine"]["load_after"] = list(os.getloadavg())
    return found | {"about": about}


def begun(path: Path, threads: int, clock: str, codecs: list[str]) -> dict[str, Any]:
    """What a file of the same code, machine and options holds, to go on with; or a new result."""
    new = machine.describe() | {"code": machine.code(), "rows": []}
    new |= {"threads": threads, "clock": clock, "codecs": codecs}
    if path.exists():
        old = json.loads(path.read_text("utf-8"))
        alike = all(old.get(k) == new[k] for k in ("code", "threads", "clock", "codecs"))
        if alike and old["machine"]["cpu"] == new["machine"]["cpu"]:
            return old
    return new


def save(result: dict[str, Any], path: Path, rows: bool = True) -> None:
    """Write what there is so far."""
    if rows:
        result["machine"]["load_after"] = list(os.getloadavg())
    result["targets"] = verdicts(result)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    path.with_suffix(".md").write_text(markdown(result), "utf-8")


def _best(row: Any) -> str:
    return "  ".join(f"{k} {1e3 * v['median']:.2f} ms" for k, v in row["seconds"].items())


if __name__ == "__main__":
    raise SystemExit(main())
