"""Calls of attention to judge: pages of the reference, a page table with every irregularity."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kakeya_conformance.attending import Ideal, ideal
from kakeya_conformance.model import NotApplicable
from kakeya_conformance.oracle import Oracle
from kakeya_ref.errors import KakeyaError
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import Paged, PageLayout

F64 = NDArray[np.float64]
DIFFERENT = 8


@dataclass(frozen=True)
class Shape:
    """What a call looks like; ``sharp`` is the spread of its logits."""

    rows: int = 2
    heads: int = 2
    groups: int = 2
    queries: int = 1
    pages: int = 4
    frames: int = 1
    sharp: float = 1.0
    softcap: float | None = None
    window: int | None = None
    biased: bool = False
    ragged: bool = True


@dataclass(frozen=True)
class Call:
    """Operands of one call, and the numbers that its pages decode to."""

    q: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    k_pages: NDArray[np.uint8]
    v_pages: NDArray[np.uint8]
    layouts: tuple[PageLayout, PageLayout]
    paged: Paged
    shape: Shape
    keys: F64  # (S, P, D), or (H, S, P, D) where tables say what the pages of a head hold
    values: F64  # (S, P, E)
    known: tuple[Skeleton, ...] = ()

    @property
    def scaling(self) -> float:
        """One over the root of the head dim."""
        return float(self.layouts[0].head_dim ** -0.5)

    def run(self, backend: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The partial of a backend."""
        operands = self.q, self.k_pages, self.v_pages, self.layouts, self.paged, self.scaling
        options: dict[str, Any] = {
            "softcap": self.shape.softcap,
            "window": self.shape.window,
            "bias": self.bias,
        }
        if self.known:
            options["known"] = (self.known, None)
        out, lse = backend.attend(*operands, **options)
        return out, lse

    def ideal(self) -> Ideal:
        """What it should be."""
        p = self.paged
        tokens, m = self.layouts[0].tokens, self.q.shape[3]
        place = (p.first[:, :, None] + np.arange(tokens)).reshape(len(p.first), 1, -1)
        counts = (np.arange(tokens) < p.length[:, :, None]).reshape(place.shape)
        since = np.repeat(p.since, tokens, 1)[:, None, :]
        index = (p.origin[:, None] + np.arange(m) % p.queries)[:, :, None]
        seen = counts & (place <= index) & (index >= since)
        if self.shape.window is not None:
            seen &= place > index - self.shape.window
        there = np.repeat(p.slots >= 0, tokens, 2)[:, :, None, :]
        rows = np.arange(len(p.first))[:, None]
        frame = np.zeros_like(p.first) if p.frame is None else p.frame
        q: NDArray[Any] = self.q[:, :, 0]
        bias: Any = 0.0
        if self.q.shape[2] > 1:
            q = np.repeat(self.q[rows, :, frame].transpose(0, 2, 3, 1, 4), tokens, 3)
        if self.bias is not None:
            bias = np.repeat(self.bias[rows, :, frame].transpose(0, 2, 3, 1), tokens, 3)
        b, h, n = p.slots.shape
        every = np.broadcast_to(self.keys, (h, *self.keys.shape[-3:]))
        k = every[np.arange(h)[:, None], p.slots].reshape(b, h, n * tokens, -1)
        v = self.values[p.slots].reshape(b, h, n * tokens, -1)
        given = q, k, v, seen[:, None] & there, self.scaling, self.shape.softcap, bias
        return ideal(*given)

    def half(self, first: bool) -> Call:
        """The same call over the first or the other half of the pages."""
        cut = self.paged.slots.shape[2] // 2
        part = slice(0, cut) if first else slice(cut, None)
        p = self.paged
        frame = None if p.frame is None else p.frame[:, part]
        columns = {n: getattr(p, n)[:, part] for n in ("first", "length", "since")}
        return replace(self, paged=replace(p, slots=p.slots[:, :, part], frame=frame, **columns))


def call(
    oracle: Oracle,
    rng: Any,
    layouts: tuple[PageLayout, PageLayout],
    shape: Shape,
    known: tuple[Skeleton, ...] = (),
) -> Call:
    """A call with random pages, of rows that differ in length, with short and unseen pages.

    With tables ``known`` of the heads, keys are those that each head's table makes of a page.
    """
    tokens, n, b, h = layouts[0].tokens, shape.pages, shape.rows, shape.heads
    # The reference may take long to search for codes, and a wrong page shows among eight.
    which = np.arange(b * h * n + 3)
    which[DIFFERENT:] = rng.integers(0, DIFFERENT, len(which[DIFFERENT:]))
    pools, numbers = [], []
    for layout, tables in zip(layouts, (known, ()), strict=True):
        x = rng.standard_normal((min(len(which), DIFFERENT), tokens, layout.head_dim))
        x *= np.exp2(rng.integers(-2, 2, (*x.shape[:2], 1)))
        pages = oracle.encode(x.astype(np.float32), layout, tables[0] if tables else None)
        read = [] if isinstance(pages, KakeyaError) else [
            oracle.decode(pages, layout, "coefficients", table) for table in tables or (None,)
        ]  # fmt: skip
        decoded = [x.astype(np.float64)[which] for x in read if not isinstance(x, KakeyaError)]
        if isinstance(pages, KakeyaError) or len(decoded) < max(1, len(tables)):
            raise NotApplicable(f"{layout} does not take random vectors")
        pools.append(np.array(pages)[which])
        numbers.append(np.stack(decoded) if tables else decoded[0])
    slots = rng.permutation(b * h * n + 2)[: b * h * n].reshape(b, h, n).astype(np.int32)
    length = np.full((b, n), tokens)
    start, late = np.zeros(b, np.int64), np.zeros((b, n), np.int64)
    if shape.ragged:
        short = rng.random((b, n)) < 0.3
        length = np.where(short, rng.integers(1, tokens + 1, (b, n)), length)
        start = rng.integers(0, 70, b)
        late = rng.integers(0, 3, (b, n)) * rng.integers(0, 2 * tokens, (b, n))
    end = np.cumsum(length, 1) + start[:, None]
    first = end - length
    counted = np.where(rng.random((b, n)) < 0.5, end + late, 0)
    origin = end[:, -1] + rng.integers(0, 5, b)
    if shape.ragged:
        slots[1:, :, n - n // 3 :] = -1
        origin -= rng.integers(0, 2, b) * rng.integers(0, 2 * tokens, b)
        origin = np.maximum(origin, 0)
    m = shape.groups * shape.queries
    q = shape.sharp * rng.standard_normal((b, h, shape.frames, m, layouts[0].head_dim))
    bias = shape.sharp * rng.standard_normal(q.shape[:4]) * layouts[0].head_dim ** 0.5
    frame = rng.integers(0, shape.frames, (b, n)).astype(np.int32) if shape.frames > 1 else None
    first, length, counted = (x.astype(np.int32) for x in (first, length, counted))
    paged = Paged(slots, first, length, counted, origin, shape.queries, frame)
    wide = bias.astype(np.float32) if shape.biased else None
    (k, v), (keys, values) = pools, numbers
    return Call(q.astype(np.float32), wide, k, v, layouts, paged, shape, keys, values, known)


def shapes() -> st.SearchStrategy[Shape]:
    """Shapes of small calls."""
    return st.builds(
        Shape,
        rows=st.integers(1, 3),
        heads=st.integers(1, 3),
        groups=st.sampled_from([1, 2, 3, 8]),
        queries=st.integers(1, 8),
        pages=st.integers(1, 7),
        frames=st.integers(1, 3),
        sharp=st.sampled_from([0.01, 1.0, 10.0, 100.0]),
        softcap=st.sampled_from([None, None, 0.5, 20.0]),
        window=st.sampled_from([None, None, 1, 5, 40, 300]),
        biased=st.booleans(),
        ragged=st.booleans(),
    )
