"""Pages of keys in frame coordinates, and attention to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.keytables import LayerTables
from kakeya_fast.hf.pages import PageStore
from kakeya_ref.errors import ShapeError, Unsupported
from kakeya_ref.types import Basis, PageLayout

I64 = NDArray[np.int64]
UNKNOWN = -1


class FramedStore(PageStore):
    """Packed pages whose keys are coded in frames.

    A frame is a run of pages that begins at the position of its first token; with frames of one
    token, every token is its own. Only the page table knows positions: bytes are those of keys
    that were turned back to position 0 by the start of their frame.

    Rule: query.frame.start, page.table.position

    Attributes
    ----------
    tables : LayerTables
    shift : (B,) int64
        Position in the model minus cache index, of every token of a row.
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
        self.shift = np.zeros(batch, np.int64)

    @property
    def table_nbytes(self) -> int:
        """Bytes of the page table, with the positions of the rows."""
        return super().table_nbytes + self.shift.nbytes

    def place(self, starts: I64, places: Tensor | None, length: int) -> None:
        """Take the model's positions of the newest tokens.

        Rule: query.frame.positions

        Parameters
        ----------
        starts : (B,)
            Cache index of the first real token of each row, ``-1`` where there is none yet.
        places : (B or 1, Q)
        length : int
            Tokens of the cache, with these.

        Raises
        ------
        Unsupported
            No positions, or such that do not go on one by one.
        """
        if places is None:
            raise Unsupported(
                "query.frame.positions", "this model does not tell its positions to attention"
            )
        if places.dim() != 2 or places.shape[0] not in (1, len(starts)):
            raise Unsupported(
                "query.frame.positions", f"positions of several axes: {tuple(places.shape)}"
            )
        at = places.cpu().numpy().astype(np.int64)
        at = np.broadcast_to(at, (len(starts), at.shape[1]))
        index = length - at.shape[1] + np.arange(at.shape[1])
        shift = np.where(starts == UNKNOWN, self.shift, at[:, -1] - index[-1])
        real = (starts[:, None] != UNKNOWN) & (index >= starts[:, None])
        moved = (self.count > 0) & (shift != self.shift)
        if (real & (at - index != shift[:, None])).any() or moved.any():
            raise Unsupported("query.frame.positions", "positions of a row must go on one by one")
        self.shift = shift

    def relocate(self, by: NDArray[np.integer]) -> None:
        """Let every row begin ``by`` (B,) positions later; no byte of a page changes.

        Rule: query.frame.relocate
        """
        self.shift = self.shift + by

    def frames(self, a: int, b: int, first: NDArray[Any] | None = None) -> I64:
        """Position where the frame of each page begins: (B, b - a), for slots ``a..b``."""
        slots = np.arange(a, b)
        slots -= slots % max(1, self.tables.frame // self.layouts[0].tokens)
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

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, in this order."""
        super().select(rows)
        self.shift = self.shift[rows.cpu().numpy()]

    def table(self) -> Any:
        """The table with the positions of the rows."""
        return *super().table(), self.shift

    def restore(self, table: Any) -> None:
        """Forget the pages and positions that came after :meth:`table`."""
        self.shift = table[3]
        super().restore(table[:3])

    def _encode(
        self, x: Tensor, layout: PageLayout, backend: Any, rows: Any, first: Any, slot: int
    ) -> Tensor:
        if layout is not self.layouts[0]:
            return super()._encode(x, layout, backend, rows, first, slot)
        frames = self.frames(slot, slot + x.shape[1], self._grown(first, slot + x.shape[1]))[rows]
        starts = torch.from_numpy(frames).to(x.device)[:, :, None, None]
        places = starts + _inside(self.tables.frame, x.shape[3], x.device)
        framed = self.tables.framed(x, places).flatten(0, 2)
        known = self.tables.of_pages(x.shape[0] * x.shape[1])
        return backend.encode_tensor(framed, layout, tables=known)

    def _grown(self, first: I64, slots: int) -> NDArray[Any]:
        """First cache indices of all pages, as they will be once pages from ``first`` on are in."""
        size, have = self.layouts[0].tokens, self.first.shape[1]
        known = np.pad(self.first, ((0, 0), (0, max(0, slots - have))))
        at = np.arange(known.shape[1]) - self.count[:, None]
        return np.where(at < 0, known, first[:, None] + size * at)


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
