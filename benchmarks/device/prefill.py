"""Encoding beside prefill: one decoder layer of an 8B model in bf16, and its keys and values.

Weights are random; the arithmetic is that of the model, in torch's own operations, attention by
``scaled_dot_product_attention``. Embedding, last norm and output head are left out.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.device import tables as gpu_tables
from benchmarks.device.plan import HEADS, LAYER, PREFILL, STEP, TOKENS, flops
from benchmarks.device.timing import Flush, race
from kakeya_ref.layout import page_layout


class Layer:
    """One decoder layer with random weights; a call gives its output, keys and values."""

    def __init__(self, device: torch.device, tokens: int) -> None:
        def weight(rows: int, columns: int) -> Tensor:
            made = torch.randn(rows, columns, device=device, dtype=torch.bfloat16)
            return made.mul_(rows**-0.5)

        hidden, wide, queries = LAYER["hidden"], LAYER["wide"], LAYER["query_heads"]
        dim = self.dim = STEP["head_dim"]
        self.sizes = [n * dim for n in (queries, HEADS, HEADS)]
        self.qkv, self.out = weight(hidden, sum(self.sizes)), weight(queries * dim, hidden)
        self.up, self.down = weight(hidden, 2 * wide), weight(wide, hidden)
        frequencies = 500000.0 ** (-torch.arange(0, dim, 2, device=device) / dim)
        angles = torch.arange(tokens, device=device)[:, None] * frequencies
        both = torch.cat([angles, angles], 1)
        self.cos, self.sin = both.cos().bfloat16(), both.sin().bfloat16()

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        width = (x.shape[1],)
        parts = (F.rms_norm(x, width) @ self.qkv).split(self.sizes, 1)
        q, k, v = (part.unflatten(1, (-1, self.dim)).transpose(0, 1) for part in parts)
        q, k = self._turned(q), self._turned(k)
        y = F.scaled_dot_product_attention(
            q[None], k[None], v[None], is_causal=True, enable_gqa=True
        )
        x = x + y[0].transpose(0, 1).flatten(1) @ self.out
        gate, up = (F.rms_norm(x, width) @ self.up).chunk(2, 1)
        return x + (F.silu(gate) * up) @ self.down, k, v

    def _turned(self, x: Tensor) -> Tensor:
        low, high = x.chunk(2, 2)
        return x * self.cos + torch.cat([-high, low], 2) * self.sin


@torch.no_grad()
def measure(backend: Any, tokens: int, flush: Flush, seconds: float) -> dict[str, Any]:
    """A layer's forward, and for each pair of codecs the append of its keys and values.

    Returns
    -------
    dict
        Device seconds of ``layer`` and of each pair ``K/V``; two launches a pair.
    """
    device = backend.device
    layer = Layer(device, tokens)
    x = torch.randn(tokens, LAYER["hidden"], device=device, dtype=torch.bfloat16)
    _, *streams = layer(x)
    pages = HEADS * tokens // TOKENS
    slots, status = torch.randperm(pages, device=device), backend.new_status()
    per_head = torch.arange(pages).numpy() // (tokens // TOKENS)

    def appender(names: tuple[str, str]) -> Any:
        calls = []
        for name, stream in zip(names, streams, strict=True):
            layout = page_layout(name, STEP["head_dim"], TOKENS)
            known = gpu_tables.of_pages(gpu_tables.beside(layout), per_head.copy())
            backend.prepare(layout, torch.bfloat16, directions=("encode",), tables=known)
            paged = stream.unflatten(1, (-1, TOKENS)).flatten(0, 1)
            pool = torch.zeros(pages, layout.nbytes, dtype=torch.uint8, device=device)
            calls.append((paged, layout, pool, known))

        def append() -> None:
            for paged, layout, pool, known in calls:
                backend.append(paged, layout, pool, slots, status=status, tables=known)

        return append

    runners = {"layer": lambda: layer(x)}
    runners |= {"/".join(names): appender(names) for names in PREFILL["codecs"]}
    times = race(runners, flush, min_seconds=seconds, min_samples=5, max_samples=50)
    backend.raise_if_bad(status, page_layout("scalar", STEP["head_dim"], TOKENS), "encode")
    found = {name: asdict(spread) for name, spread in times.items()}
    return {
        "tokens": tokens,
        "layers": STEP["layers"],
        "flops": flops(tokens),
        "layer": found.pop("layer"),
        "encode": found,
    }
