"""Pages of keys in frame coordinates, and attention to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.keytables import LayerTables
from kakeya_fast.hf.placed import PlacedStore
from kakeya_ref.errors import ShapeError
from kakeya_ref.types import Basis, Paged, PageLayout

I64 = NDArray[np.int64]
COLUMNS = ("slots", "first", "length", "since")
# Attention that reads pages in place turns queries for some frames at once: as many as make that
# many numbers, but no fewer than these.
NUMBERS, FRAMES = 1 << 20, 128
# Up to that many they are turned one by one; of more, all by one product.
FEW = 32


class FramedStore(PlacedStore):
    """Packed pages whose keys are coded in frames.

    A frame is a run of pages that begins at the position of its first token; with frames of one
    token, every token is its own. Only the page table knows positions: bytes are those of keys
    that were turned back to position 0 by the start of their frame.

    Rule: query.frame.start, page.table.position

    Attributes
    ----------
    tables : LayerTables
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        layouts: tuple[PageLayout, PageLayout],
        device: torch.device,
        tables: LayerTables,
    ) -> None:
        super().__init__(batch, heads, layouts, device)
        want = (heads, layouts[0].head_dim, layouts[0].head_dim)
        if tables.known.analysis.shape != want:
            raise ShapeError(
                "query.tables.match", f"tables are {tables.known.analysis.shape}, keys want {want}"
            )
        self.tables = tables
        self.together = self.per_frame

    @property
    def per_frame(self) -> int:
        """Pages of a frame, counted from the first page of a row: whole frames leave a window."""
        return max(1, self.tables.frame // self.layouts[0].tokens)

    def frames(self, a: int, b: int, first: NDArray[Any] | None = None) -> I64:
        """Position where the frame of each page begins: (B, b - a), for slots ``a..b``."""
        slots = np.arange(a, b)
        slots -= slots % self.per_frame
        first = self.first if first is None else first
        return first[:, slots].astype(np.int64) + self.shift[:, None]

    def decode(self, a: int, b: int, stream: int, backend: Any, basis: Basis = "vectors") -> Tensor:
        """As of :class:`PageStore`; vectors are keys as the model made them."""
        if stream == 1:
            return super().decode(a, b, stream, backend, basis)
        layout, part = self.layouts[0], self.bodies[:, a:b, :, self.spans[0]]
        known = self.tables.of_pages(part.shape[0] * part.shape[1])
        y = backend.decode_tensor(
            part.reshape(-1, layout.nbytes), layout, basis="coefficients", tables=known
        )
        y = y.view(*part.shape[:3], layout.tokens, -1).transpose(1, 2).flatten(2, 3)
        return y if basis == "coefficients" else self.framed(y, a, b).formed()

    def framed(self, y: Tensor, a: int, b: int) -> FramedKeys:
        """Coefficients (B, H, T, D) of slots ``a..b`` with their frames."""
        frames = torch.from_numpy(self.frames(a, b)).to(y.device)
        return FramedKeys(y, self.tables, frames, self.layouts[0].tokens)

    def runs(self, q: Tensor, paged: Paged) -> Iterator[tuple[Tensor, Paged, Any]]:
        """Calls of attention over some frames each: queries, page table, and options.

        Queries by frame are as large as the keys of a frame that holds as many tokens, so there
        are never those of all frames at once.

        Rule: query.attend.frame, attend.memory.bounded

        Parameters
        ----------
        q : (B, H, M, D) or (B, H, 1, M, D)
            As the model makes them.
        paged : Paged
            Of all pages.
        """
        q = q.reshape(*q.shape[:2], -1, q.shape[-1]).float()
        step = self.per_frame * max(FRAMES, NUMBERS // q.numel())
        for a in range(0, self.used, step):
            b = min(a + step, self.used)
            starts, waves = _run(self, a, b, q)
            if waves is not None:
                turned, bias = self.tables.queries_of_many(q, waves)
            else:
                turned, bias = self.tables.queries(q, torch.from_numpy(starts).to(q.device))
            there = paged.slots.device if isinstance(paged.slots, Tensor) else None
            # Where positions do not turn keys, all frames are one.
            frame = None
            if turned.shape[2] > 1:
                frame = _numbers(len(q), b - a, self.per_frame, there)
            columns = {n: getattr(paged, n) for n in COLUMNS}
            if (a, b) != (0, paged.slots.shape[-1]):
                columns = {n: x[..., a:b] for n, x in columns.items()}
            if there is not None:
                columns = {n: x.contiguous() for n, x in columns.items()}
            known = self.tables.of_heads, None
            yield turned, replace(paged, frame=frame, **columns), {"bias": bias, "known": known}

    def _encode(
        self, stream: int, x: Tensor, backend: Any, rows: Any, first: Any, slot: int
    ) -> Tensor:
        if stream == 1:
            return super()._encode(stream, x, backend, rows, first, slot)
        frames = self.frames(slot, slot + x.shape[1], self._grown(first, slot + x.shape[1]))[rows]
        starts = torch.from_numpy(frames).to(x.device)[:, :, None, None]
        places = starts + _inside(self.tables.frame, x.shape[3], x.device)
        framed = self.tables.framed(x, places).flatten(0, 2)
        known = self.tables.of_pages(x.shape[0] * x.shape[1])
        return backend.encode_tensor(framed, self.layouts[0], tables=known)

    def _grown(self, first: I64, slots: int) -> NDArray[Any]:
        """First cache indices of all pages, as they will be once pages from ``first`` on are in."""
        size, have = self.layouts[0].tokens, self.first.shape[1]
        known = np.pad(self.first, ((0, 0), (0, max(0, slots - have))))
        at = np.arange(known.shape[1]) - self.count[:, None]
        return np.where(at < 0, known, first[:, None] + size * at)


@lru_cache(maxsize=16)
def _numbers(rows: int, pages: int, group: int, device: torch.device | None) -> Any:
    """Frames of the pages of a run: (B, N) int32, an array, or a tensor of a device."""
    frame = np.tile(np.arange(pages, dtype=np.int32) // group, (rows, 1))
    with torch.inference_mode(False):
        return frame if device is None else torch.from_numpy(frame).to(device)


# Starts of frames and their waves, of the newest runs: layers of a step turn queries alike.
_newest: OrderedDict[Any, tuple[I64, Tensor | None]] = OrderedDict()
KEPT = 16


def _run(store: FramedStore, a: int, b: int, q: Tensor) -> tuple[I64, Tensor | None]:
    """Where frames of slots ``a..b`` begin, and their waves: (B, F) and (B, F, W).

    No waves where queries are turned one by one.
    """
    rope, group, size = store.tables.rope, store.per_frame, q.shape[-1]
    shift = store.shift.tobytes()
    key = rope, group, size, q.device, a, b, store.first[:, a:b].tobytes(), shift
    if key not in _newest:
        starts = store.frames(a, b)[:, ::group]
        waves = None
        if starts.shape[1] > FEW and rope.frequencies:
            with torch.inference_mode(False):
                back = torch.from_numpy(-starts).to(q.device)
                waves = rope.rows(back, size, torch.float32)
        _newest[key] = starts, waves
    _newest.move_to_end(key)
    while len(_newest) > KEPT:
        _newest.popitem(last=False)
    return _newest[key]


@dataclass(frozen=True)
class FramedKeys:
    """Coefficients of some pages, and where the frames of these pages begin.

    Attributes
    ----------
    y : (B, H, T, D)
    tables : LayerTables
    frames : (B, N)
        Position where the frame of each page begins.
    size : int
        Tokens of a page.
    """

    y: Tensor
    tables: LayerTables
    frames: Tensor
    size: int

    def scores(self, q: Tensor) -> Tensor:
        """``q · k`` of queries (B, H, M, D) with every token: (B, H, M, T).

        Few queries are turned and transformed once a frame, and keys are never formed. Where
        queries outnumber the tokens of a frame, forming its keys is less work; so it is where
        every token has a frame of its own.

        Rule: query.attend.frame
        """
        pages, per_frame = self.frames.shape[1], max(1, self.tables.frame // self.size)
        if self.tables.frame == 1 or q.shape[2] >= self.size * min(per_frame, pages):
            return q @ self.formed().transpose(2, 3)
        # Whole frames together; pages of frames that a tile cuts, one by one.
        group = min(per_frame, pages)
        if pages % group or not _whole(self.frames, group):
            group = 1
        turned, bias = self.tables.queries(q, self.frames[:, ::group])
        y = self.y.unflatten(2, (-1, group * self.size))
        score = turned @ y.transpose(3, 4) + bias[..., None]
        return score.transpose(2, 3).flatten(3, 4)

    def formed(self) -> Tensor:
        """Keys (B, H, T, D) as the model made them."""
        inside = _inside(self.tables.frame, self.size, self.y.device)
        places = (self.frames[:, :, None] + inside).flatten(1)
        return self.tables.keys(self.y, places)


def _whole(frames: Tensor, group: int) -> bool:
    """Whether every ``group`` pages have one frame."""
    return bool((frames == frames[:, ::group].repeat_interleave(group, 1)).all())


def _inside(frame: int, size: int, device: torch.device) -> Tensor:
    """What the tokens of a page add to the start of its frame: they are their own frames, or 0."""
    return torch.arange(size, device=device) if frame == 1 else torch.zeros(size, device=device)
