"""Attention over packed pages on a GPU, against torch's over dense bf16: one shape at a time.

Calls are captured in a graph that goes through several sets of pages, together larger than the L2
cache, so that each call reads device memory as a decode step does. Bytes of codes are drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.device.timing import spread
from benchmarks.timing import Spread
from kakeya_fast.cuda.attend import Attention
from kakeya_fast.cuda.attend_plan import Tuning
from kakeya_ref.layout import page_layout
from kakeya_ref.types import Paged, PageLayout

TOKENS = 32
COLD = 400 << 20  # bytes that a graph goes through, at least: several times any L2 cache
MOST_SETS = 200
KINDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)


@dataclass(frozen=True)
class Shape:
    """One decode step of one layer."""

    context: int
    batch: int = 1
    groups: int = 4
    head_dim: int = 128
    heads: int = 8
    queries: int = 1

    def __str__(self) -> str:
        said = f"{self.context >> 10}k B={self.batch} G={self.groups} D={self.head_dim}"
        return said if self.queries == 1 else f"{said} Q={self.queries}"

    @property
    def dense(self) -> int:
        """Bytes of K and V in bf16."""
        return 4 * self.batch * self.heads * self.context * self.head_dim

    def packed(self, layouts: tuple[PageLayout, PageLayout]) -> int:
        """Bytes of the pages."""
        pages = self.batch * self.heads * self.context // TOKENS
        return pages * (layouts[0].nbytes + layouts[1].nbytes)


class Packed:
    """Pools of pages for a shape, as many sets as make the cache cold, and the calls on them."""

    def __init__(self, launcher: Any, shape: Shape, codecs: tuple[str, str], seed: int = 0) -> None:
        self.launcher, self.shape = launcher, shape
        k, v = (page_layout(c, shape.head_dim, TOKENS) for c in codecs)
        self.layouts = (k, v)
        device = launcher.device
        self.bytes = shape.packed(self.layouts)
        self.sets = min(MOST_SETS, -(-COLD // self.bytes))
        self.pages = shape.context // TOKENS
        count = shape.batch * shape.heads * self.pages
        generator = torch.Generator(device).manual_seed(seed)
        self.pools = []
        for layout in self.layouts:
            pool = torch.empty(self.sets * count, layout.nbytes, dtype=torch.uint8, device=device)
            pool.random_(0, 256, generator=generator)
            scales = torch.randn(len(pool), TOKENS, device=device, generator=generator)
            pool[:, :TOKENS] = (124 + 4 * scales).to(torch.uint8)
            self.pools.append(pool)
        order = torch.randperm(self.sets * count, device=device, generator=generator)
        table = order.int().view(self.sets, shape.batch, shape.heads, self.pages)
        first = torch.arange(self.pages, dtype=torch.int32, device=device) * TOKENS
        first = first.expand(shape.batch, -1).contiguous()
        full = torch.full_like(first, TOKENS)
        origin = torch.full((shape.batch,), shape.context + 8, device=device)
        self.paged = [
            Paged(slots, first, full, first + TOKENS, origin, shape.queries) for slots in table
        ]
        rows = shape.groups * shape.queries
        self.q = torch.randn(
            (shape.batch, shape.heads, rows, shape.head_dim), device=device, generator=generator
        ).bfloat16()
        self.scaling = shape.head_dim**-0.5

    def attention(self, tuned: Tuning | None = None, splits: int | None = None) -> Attention:
        """The object that carries out the calls."""
        s = self.shape
        return Attention(
            self.launcher,
            self.layouts,
            batch=s.batch,
            heads=s.heads,
            rows=s.groups * s.queries,
            tuned=tuned,
            splits=splits,
            **self.kind(),
        )

    def kind(self) -> dict[str, Any]:
        """What else the object is made for."""
        return {"pages": self.pages, "dtype": torch.bfloat16}

    def calls(self, attention: Attention) -> list[Callable[[], object]]:
        """One for each set of pages."""
        out, lse = attention(self.q, *self.pools, self.paged[0], self.scaling)

        def call(paged: Paged) -> object:
            return attention(self.q, *self.pools, paged, self.scaling, out=out, lse=lse)

        return [lambda paged=paged: call(paged) for paged in self.paged]

    def judge(self, attention: Attention, decode: Callable[..., Tensor]) -> dict[str, float]:
        """Errors of the first and the last KV head against float64, over those of plain bf16."""
        out, ours, plain = self.output(attention), [], []
        for b, h in ((0, 0), (self.shape.batch - 1, self.shape.heads - 1)):
            at = self.paged[-1].slots[b, h].long()
            k, v = (
                decode(pool[at], layout, "coefficients", tables).flatten(0, 1).double()
                for pool, layout, tables in zip(
                    self.pools, self.layouts, (self.beside(h), None), strict=True
                )
            )
            q, bias = self.queries(b, h)
            ideal = torch.softmax(self.scaling * _scores(q, bias, k), -1) @ v
            q, k, v = (x.bfloat16().double() for x in (q, k, v))
            weight = torch.softmax(self.scaling * _scores(q, bias, k), -1)
            top = weight.amax(-1, keepdim=True)
            rounded = ((weight / top).bfloat16().double() @ v * top).bfloat16().double()
            ours.append(out[b, h].double() - ideal)
            plain.append(rounded - ideal)
        error, yard = (float(torch.cat(x).norm()) for x in (ours, plain))
        return {"error": error, "plain": yard, "ratio": error / yard}

    def output(self, attention: Attention) -> Tensor:
        """Of the last set of pages."""
        return attention(self.q, *self.pools, self.paged[-1], self.scaling)[0]

    def queries(self, b: int, h: int) -> tuple[Tensor, Tensor]:
        """Queries (F, M, D) and biases (F, M) of a head for each frame, float64."""
        q = self.q[b, h].double()[None]
        return q, torch.zeros_like(q[..., 0])

    def beside(self, h: int) -> Any:
        """The table that the keys of a head are read with, if any."""
        return None


def _scores(q: Tensor, bias: Tensor, k: Tensor) -> Tensor:
    """Products (M, T) of keys (T, D) and the queries of their frames."""
    framed = k.unflatten(0, (len(q), -1)).transpose(1, 2)
    return (q @ framed + bias[..., None]).transpose(0, 1).flatten(1)


def dense(shape: Shape, device: torch.device) -> list[dict[str, Any]]:
    """Torch's attention over dense bf16, by every backend and in both forms of grouped heads."""
    sets = min(MOST_SETS, -(-COLD // shape.dense))
    keys = torch.randn(
        (2, sets, shape.batch, shape.heads, shape.context, shape.head_dim),
        dtype=torch.bfloat16,
        device=device,
    )
    rows = shape.groups * shape.queries
    q = torch.randn(
        (shape.batch, shape.heads, rows, shape.head_dim), dtype=torch.bfloat16, device=device
    )
    heads = q.view(shape.batch, shape.heads * shape.groups, shape.queries, shape.head_dim)
    found: list[dict[str, Any]] = []
    for kind in KINDS:
        for form, given, options in (("tokens", q, {}), ("gqa", heads, {"enable_gqa": True})):
            # Spelt out, attention takes tens of times as long; once will do.
            if kind == SDPBackend.MATH and (form == "gqa" or shape.dense > 1 << 26):
                continue

            def call(i: int, given=given, options=options) -> object:
                return scaled_dot_product_attention(given, keys[0, i], keys[1, i], **options)

            try:
                with sdpa_kernel([kind]):
                    taken = timed([lambda i=i: call(i) for i in range(sets)])
            except RuntimeError as error:
                found.append({"by": f"{kind.name} {form}", "refused": str(error)[:80]})
            else:
                found.append({"by": f"{kind.name} {form}", **seconds(taken)})
    return found


def timed(calls: Sequence[Callable[[], object]], samples: int = 13) -> Spread:
    """Seconds of a call, from replays of a graph of all of them."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        calls[0]()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    graph.replay()
    torch.cuda.synchronize()
    taken = []
    for _ in range(samples):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(start.elapsed_time(end) / 1e3 / len(calls))
    return spread(taken)


def seconds(taken: Spread) -> dict[str, float]:
    """A spread as it is saved."""
    return {"median": taken.median, "p20": taken.p20, "p80": taken.p80}


def copy_bandwidth(device: torch.device, nbytes: int = 2 << 30) -> float:
    """Bytes a second of a device-to-device copy, read and written: the best way torch has."""
    a, b = (torch.empty(nbytes // 2, dtype=torch.int16, device=device) for _ in range(2))
    a.random_()
    ways = (lambda: b.copy_(a), lambda: torch.bitwise_not(a, out=b))
    for way in ways:
        way()
    best = 0.0
    for way in ways:
        for _ in range(10):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            way()
            end.record()
            end.synchronize()
            best = max(best, 2 * nbytes / (start.elapsed_time(end) / 1e3))
    return best
