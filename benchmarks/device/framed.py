"""Attention over keys of ``query`` on a GPU: queries are turned for every frame, as by a cache.

What is timed is all that a layer of a decode step does about its pages: the waves of the frames,
which layers share, times factors of the query, some frames at once, and attention to their pages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.device import tables as gpu_tables
from benchmarks.device.race import TOKENS, Packed, Shape
from kakeya_fast.cuda import attend_values
from kakeya_fast.cuda.attend import Attention
from kakeya_fast.hf import framed
from kakeya_fast.hf.keytables import LayerTables
from kakeya_fast.hf.rope import Rope
from kakeya_ref.types import Paged

BASE = 500000.0  # of the frequencies of an 8B model


class Framed(Packed):
    """A shape whose keys are coded in frames of a page, beside a table for each KV head."""

    def __init__(self, launcher: Any, shape: Shape, codecs: tuple[str, str], seed: int = 0) -> None:
        super().__init__(launcher, shape, codecs, seed)
        self.q, half = self.q.float(), shape.head_dim // 2
        known = gpu_tables.beside(self.layouts[0], shape.heads)
        assert known is not None
        self.tables = LayerTables(known, Rope(tuple(BASE ** (-np.arange(half) / half))), TOKENS)
        words = attend_values.bands(self.tables.of_heads, self.layouts[0]).view(np.int32)
        self.bands = torch.from_numpy(words).to(self.q.device)
        self.step = min(self.pages, max(framed.FRAMES, framed.NUMBERS // self.q.numel()))
        self.bounds = [(a, min(a + self.step, self.pages)) for a in range(0, self.pages, self.step)]
        back = -torch.arange(self.pages, device=self.q.device) * TOKENS
        back = back.expand(shape.batch, -1)
        self.waves = self.tables.rope.rows(back, shape.head_dim, torch.float32)

    def kind(self) -> dict[str, Any]:
        """Each call is for some of the frames."""
        return {"pages": self.step, "frames": self.step, "dtype": torch.float32, "bias": True}

    def calls(self, attention: Attention) -> list[Callable[[], object]]:
        """One for each set of pages."""
        sets = [self._parts(paged) for paged in self.paged]
        return [lambda parts=parts: self._run(attention, parts) for parts in sets]

    def _parts(self, paged: Paged) -> list[Paged]:
        found = []
        for a, b in self.bounds:
            columns = {n: getattr(paged, n)[..., a:b].contiguous() for n in framed.COLUMNS}
            frame = torch.arange(b - a, dtype=torch.int32, device=self.q.device)
            frame = frame.expand(self.shape.batch, -1).contiguous()
            found.append(replace(paged, frame=frame, **columns))
        return found

    def _run(self, attention: Attention, parts: list[Paged]) -> tuple[Tensor, Tensor]:
        done: Any = None
        for (a, b), paged in zip(self.bounds, parts, strict=True):
            turned, bias = self.tables.queries_of_many(self.q, self.waves[:, a:b])
            done = attention(
                *(turned, *self.pools, paged, self.scaling),
                bias=bias,
                bands=self.bands,
                other=done,
            )
        return done

    def output(self, attention: Attention) -> Tensor:
        """Of the last set of pages."""
        return self._run(attention, self._parts(self.paged[-1]))[0]

    def queries(self, b: int, h: int) -> tuple[Tensor, Tensor]:
        """Queries and biases of a head for each frame."""
        turned, bias = self.tables.queries_of_many(self.q[b : b + 1], self.waves[b : b + 1])
        return turned[0, h].double(), bias[0, h].double()

    def beside(self, h: int) -> Any:
        """The table that the keys of a head are read with."""
        return self.tables.of_heads[h]
