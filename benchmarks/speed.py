"""Encode and decode speed against a memory copy: ``python -m benchmarks.speed``.

Writes a result file (JSON) and the Markdown table beside it. See ``benchmarks/README.md`` for
what is measured and how bytes are counted.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch

from benchmarks import machine
from benchmarks.device.plan import HEADS
from benchmarks.device.tables import beside, of_pages
from benchmarks.speed_table import markdown, verdicts
from benchmarks.timing import CLOCKS, Spread, race
from kakeya_fast import get_backend
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.layout import page_layout
from kakeya_ref.registry import parse_codec

DEFAULT = Path(__file__).parent / "results" / "speed-cpu.json"
CODECS = (
    "raw",
    "fp8",
    "int",
    "scalar:b=2",
    "scalar",
    "scalar:b=8",
    "trellis",
    "trellis:b=4",
    "query",
    "d4",
    "e8:q=4",
    "e8",
)
TOKENS = 32
# The slow backends get fewer pages of the same shape: their speed does not depend on the number.
MEBIBYTES = {"numba": 64, "torch": 4, "ref": 2}
# So do codecs that search a path through a trellis.
SEARCHED = ("trellis", "query")
SEARCHED_MEBIBYTES = {"numba": 8, "torch": 0.25, "ref": 2}
APPEND = 30 * 3  # pages of one stream that a model of 30 layers and 3 KV heads fills at once


def shapes(backend: str, codec: str, quick: bool) -> Iterator[tuple[str, int, int]]:
    """(name, pages, head dim) of what a backend is measured on."""
    searched = parse_codec(codec).id in SEARCHED
    mebibytes = (SEARCHED_MEBIBYTES if searched else MEBIBYTES)[backend]
    mebibytes = min(mebibytes, 4) if quick else mebibytes
    dims = (64, 128, 256) if backend == "numba" else (64, 128)
    for d in (128,) if quick else dims:
        yield "large", int(mebibytes * 2**20) // (4 * TOKENS * d), d
    yield "append", APPEND, 64


def measure(
    name: str, codec: str, pages: int, d: int, clock: str, seconds: float
) -> dict[str, Any]:
    """One row of the result: a backend, a codec and a shape, judged first and then timed."""
    layout = page_layout(codec, d, TOKENS)
    backend = get_backend(name)
    rng = np.random.default_rng(d)
    x = rng.standard_normal((pages, TOKENS, d), dtype=np.float32)
    y = np.empty_like(x)
    known = of_pages(beside(layout), np.arange(pages) % HEADS)
    tables = {} if known is None else {"tables": known}
    body = backend.encode(x, layout, **tables)
    check(name, x, body, backend.decode(body, layout, **tables), layout, known)
    source, packed, target = torch.from_numpy(x), torch.from_numpy(body), torch.from_numpy(y)
    spreads = race(
        {
            "copy": lambda: np.copyto(y, x),
            "encode": lambda: backend.encode_tensor(source, layout, out=packed, **tables),
            "decode": lambda: backend.decode_tensor(packed, layout, out=target, **tables),
        },
        clock=CLOCKS[clock],
        min_seconds=seconds,
        min_samples=3 if name == "ref" else 5,
    )
    return {
        "backend": name,
        "codec": str(layout.codec),
        "d": d,
        "pages": pages,
        "tokens": TOKENS,
        "vector_bytes": x.nbytes,
        "packed_bytes": body.nbytes,
        "samples": spreads["copy"].samples,
        **{what: rates(spread, x.nbytes) for what, spread in spreads.items()},
    }


def check(
    name: str, x: np.ndarray, body: np.ndarray, y: np.ndarray, layout: Any, known: Any
) -> None:
    """Stop unless a spread of the pages is the reference's, byte for byte and bit for bit."""
    some = np.unique(np.linspace(0, len(x) - 1, 32, dtype=np.int64))
    reference = ReferenceBackend()
    tables = {} if known is None else {"tables": of_pages(known, known.of_page[some])}
    want = reference.encode(x[some], layout, **tables)
    back = reference.decode(want, layout, **tables)
    if not np.array_equal(body[some], want):
        raise SystemExit(f"{name} writes other bytes than the reference: {layout}; not timed")
    if not np.array_equal(y[some].view(np.uint32), back.view(np.uint32)):
        raise SystemExit(f"{name} reads other numbers than the reference: {layout}; not timed")


def rates(spread: Spread, nbytes: int) -> dict[str, float]:
    """GB/s (1e9 bytes of fp32 vectors per second); the slowest fifth gives p20."""
    return {
        "p20": nbytes / spread.p80 / 1e9,
        "median": nbytes / spread.median / 1e9,
        "p80": nbytes / spread.p20 / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=DEFAULT)
    parser.add_argument("--backend", action="append", choices=list(MEBIBYTES))
    parser.add_argument("--codec", action="append", help="codec string; default: a selection")
    parser.add_argument("--seconds", type=float, default=1.0, help="per row, at least")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each backend")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--quick", action="store_true", help="small shapes, one head dim")
    args = parser.parse_args()
    if args.clock == "cpu" and args.threads != 1:
        parser.error("--clock cpu adds up all threads: it needs --threads 1")
    numba.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    result = machine.describe() | {"threads": args.threads, "clock": args.clock}
    rows = result["rows"] = []
    for name in args.backend or list(MEBIBYTES):
        for codec in args.codec or CODECS:
            for shape, pages, d in shapes(name, codec, args.quick):
                row = measure(name, codec, pages, d, args.clock, args.seconds) | {"shape": shape}
                rows.append(row)
                parts = (
                    f"{what} {row[what]['median']:.3f}" for what in ("copy", "encode", "decode")
                )
                print(f"{name:6} {row['codec']:12} {shape:6} D={d:<4}", *parts, "GB/s", flush=True)
    result["machine"]["load_after"] = list(os.getloadavg())
    result["targets"] = verdicts(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(markdown(result), "utf-8")
    print("\n" + markdown(result))


if __name__ == "__main__":
    main()
