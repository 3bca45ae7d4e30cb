"""The append of one decode step of an 8B-shaped model, inside a CUDA graph."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.device import tables as gpu_tables
from benchmarks.device.bandwidth import Differs
from benchmarks.device.plan import STEP, TOKENS
from benchmarks.device.timing import Flush, race, spread
from kakeya_ref.layout import page_layout
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import PageLayout


def measure(backend: Any, codec: str, flush: Flush, seconds: float) -> dict[str, Any]:
    """The step in which every sequence fills a page: K and V of all layers, into one pool; keys
    alone where the codec is one for keys.

    No query reads a page from its bytes before the page after it begins, so packing may wait for
    the end of the step and take all layers at once. Packing each stream of each layer as soon as
    it is there stands beside it: it costs one launch after another.

    Returns
    -------
    dict
        Device seconds of replaying a graph: ``together`` of 1 launch; ``gathered`` of a copy that
        puts the tensors of all layers together, and 1 launch; ``by_layer`` of a launch for each
        layer and stream, one after another; ``aside`` of these on ``sides`` streams. ``eager``:
        wall seconds of ``by_layer`` without a graph, until the device is done.
    """
    device, layout = backend.device, page_layout(codec, STEP["head_dim"], TOKENS)
    keys_only = layout.codec.id == "query"
    streams, pages = (1 if keys_only else 2) * STEP["layers"], STEP["batch"] * STEP["heads"]
    shape = (streams, pages, TOKENS, STEP["head_dim"])
    x = torch.randn(shape, device=device).to(torch.bfloat16)
    pool = torch.zeros(streams * pages, layout.nbytes, dtype=torch.uint8, device=device)
    slots = torch.randperm(len(pool), device=device).view(streams, pages)
    status = backend.new_status()
    heads, of = STEP["heads"], np.arange(streams * pages)
    known = gpu_tables.beside(layout, streams * heads)
    every = gpu_tables.of_pages(known, of // pages * heads + of % heads)
    single = [
        gpu_tables.of_pages(
            gpu_tables.some(known, slice(i * heads, (i + 1) * heads)), of[:pages] % heads
        )
        for i in range(streams)
    ]
    for beside in (every, *single):
        backend.prepare(layout, torch.bfloat16, directions=("encode",), tables=beside)
    apart = [row.clone() for row in x]
    sides = [torch.cuda.Stream(device) for _ in range(STEP["sides"])]

    def together() -> None:
        flat = slots.flatten()
        backend.append(x.flatten(0, 1), layout, pool, flat, status=status, tables=every)

    def gathered() -> None:
        backend.append(apart, layout, pool, slots.flatten(), status=status, tables=every)

    def by_layer() -> None:
        for vectors, where, beside in zip(x, slots, single, strict=True):
            backend.append(vectors, layout, pool, where, status=status, tables=beside)

    def aside() -> None:
        main = torch.cuda.current_stream(device)
        for side in sides:
            side.wait_stream(main)
        for i, (vectors, where, beside) in enumerate(zip(x, slots, single, strict=True)):
            with torch.cuda.stream(sides[i % STEP["sides"]]):
                backend.append(vectors, layout, pool, where, status=status, tables=beside)
        for side in sides:
            main.wait_stream(side)

    graphs = {}
    steps = {"together": together, "gathered": gathered, "by_layer": by_layer, "aside": aside}
    for name, step in steps.items():
        graphs[name] = capture(step)
        pool.fill_(0xA5)
        graphs[name].replay()
        torch.cuda.synchronize(device)
        judge(backend, x, layout, pool, slots, single)
    runners = {name: graph.replay for name, graph in graphs.items()}
    times = race(runners, flush, min_seconds=seconds, min_samples=10)
    eager = spread([_wall(by_layer) for _ in range(20)])
    backend.raise_if_bad(status, layout, "encode")
    return {
        "codec": str(layout.codec),
        "launches": streams,
        "sides": STEP["sides"],
        "pages": streams * pages,
        "vector_bytes": x.nbytes,
        "packed_bytes": pool.nbytes,
        **{name: asdict(found) for name, found in times.items()},
        "eager": asdict(eager),
    }


def capture(step: Callable[[], None]) -> Any:
    """A graph of what ``step`` launches."""
    graph = torch.cuda.CUDAGraph()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    with torch.cuda.graph(graph):
        step()
    return graph


def judge(
    backend: Any,
    x: Tensor,
    layout: PageLayout,
    pool: Tensor,
    slots: Tensor,
    tables: list[Skeleton | None],
) -> None:
    """Stop unless the pool holds what a checked call gives.

    Raises
    ------
    Differs
    """
    for vectors, where, beside in zip(x, slots, tables, strict=True):
        if not torch.equal(pool[where], backend.encode_tensor(vectors, layout, tables=beside)):
            raise Differs(f"{layout}: a graph writes other bytes than a checked call")


def _wall(step: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - begun
