"""Storage of packed pages of one size: bodies on the device, the page table on the host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.blocktable import BlockTable, places
from kakeya_fast.hf.table import PageTable
from kakeya_ref.types import Basis, PageLayout

# Pages per encoder call: bounds the gathered copy of a long prefill.
ENCODE = 32


class PageStore(PageTable):
    """Packed pages of one layer, in codecs whose pages all have one size.

    A body holds the K body and then the V body of one page and one KV head. Bytes are written
    once; only table entries ever change.

    Rule: cache.page.never-reencoded, page.stream.order

    """

    _pools: tuple[Tensor, Tensor] | None
    # Pages that leave a window at once.
    together = 1

    def __init__(
        self, batch: int, heads: int, layouts: tuple[PageLayout, PageLayout], device: torch.device
    ) -> None:
        super().__init__(batch)
        self.layouts = layouts
        self.spans = (
            slice(0, layouts[0].nbytes),
            slice(layouts[0].nbytes, layouts[0].nbytes + layouts[1].nbytes),
        )
        self.bodies = _bytes((batch, 0, heads, self.spans[1].stop), device)
        self._table: BlockTable | None = None

    def append(
        self,
        first: NDArray[np.int64],
        pages: NDArray[np.int64],
        exact: tuple[Tensor, Tensor],
        offset: int,
        backend: Any,
    ) -> None:
        """Encode whole pages and enter them in the table; all of them, or none on an error.

        Parameters
        ----------
        first : (B,) int
            Cache index of the first new token of each row.
        pages : (B,) int
            How many new pages each row gets.
        exact : two tensors (B, H, W, D)
            K and V of cache indices ``offset .. offset + W``.

        Raises
        ------
        RangeError
            A value that the codec cannot carry; nothing has changed.
        """
        if not pages.any():
            return
        bodies, size = self._room(int((self.count + pages).max())), self.layouts[0].tokens
        for rows, start, slot, n in _alike(first - offset, self.count, pages):
            for done in range(0, n, ENCODE):
                m = min(ENCODE, n - done)
                at = start + done * size
                for stream, x in enumerate(exact):
                    part = x[rows, :, at : at + m * size].unflatten(2, (m, size)).transpose(1, 2)
                    body = self._encode(stream, part, backend, rows, first, slot + done)
                    bodies[rows, slot + done : slot + done + m, :, self.spans[stream]] = body.view(
                        *part.shape[:3], -1
                    )
        # From here on nothing can fail.
        self.bodies = bodies
        self._enter(first, pages, size)

    def decode(self, a: int, b: int, stream: int, backend: Any, basis: Basis = "vectors") -> Tensor:
        """Numbers of slots ``a..b`` of every row; zeros where a row has no page.

        Returns
        -------
        (B, H, (b - a) * P, D) float32
        """
        layout = self.layouts[stream]
        part = self.bodies[:, a:b, :, self.spans[stream]].transpose(1, 2)
        out = backend.decode_tensor(part.reshape(-1, layout.nbytes), layout, basis=basis)
        return out.view(part.shape[0], part.shape[1], -1, layout.head_dim)

    def _encode(
        self, stream: int, x: Tensor, backend: Any, rows: Any, first: Any, slot: int
    ) -> Tensor:
        """Bodies of pages (R, m, H, P, D) of some rows, from slot ``slot`` on."""
        return backend.encode_tensor(x.flatten(0, 2), self.layouts[stream])

    def slide(self, limit: int) -> int:
        """Let go of the whole pages before cache index ``limit``, but for the last one of a row.

        Only as many as leave :attr:`together`.

        Rule: cache.window.leave

        Returns
        -------
        int
            Cache index after the last token that left; 0 if none did.
        """
        slots = np.arange(self.first.shape[1])
        ends = self.first + self.length
        drop = ((slots < self.count[:, None] - 1) & (ends <= limit)).sum(1)
        drop -= drop % self.together
        if not drop.any():
            return 0
        gone = int(ends[slots < drop[:, None]].max())
        count = (self.count - drop).astype(np.int32)
        order = np.minimum(np.arange(count.max()) + drop[:, None], len(slots) - 1)
        rows = np.arange(len(order))[:, None]
        there = np.arange(count.max()) < count[:, None]
        with torch.inference_mode(False):
            index = torch.from_numpy(order).to(self.bodies.device)
            self.bodies = self.bodies[torch.from_numpy(rows).to(index.device), index]
        self.first = np.where(there, self.first[rows, order], 0)
        self.length = np.where(there, self.length[rows, order], 0)
        self.count = count
        return gone

    def block_table(self) -> BlockTable:
        """Where the pages lie in :meth:`pools`; made anew only after the pages have changed."""
        known, room = self._table, self.bodies.shape[1]
        same = known is not None and known.room == room
        if not (same and known.first is self.first and known.length is self.length):
            heads = self.bodies.shape[2]
            self._table = BlockTable(self.first, self.length, room, places(self, room, heads))
        return self._table

    @property
    def bodies(self) -> Tensor:
        """Bytes of all pages: (B, slots, H, k.nbytes + v.nbytes)."""
        return self._bodies

    @bodies.setter
    def bodies(self, bodies: Tensor) -> None:
        self._bodies, self._pools = bodies, None

    def pools(self) -> tuple[Tensor, Tensor]:
        """All K bodies and all V bodies, (S, nbytes), rows strided; views."""
        if self._pools is None:
            flat = self.bodies.view(-1, self.bodies.shape[3])
            self._pools = flat[:, self.spans[0]], flat[:, self.spans[1]]
        return self._pools

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, in this order."""
        host = rows.cpu().numpy()
        self.bodies = self.bodies[rows.to(self.bodies.device)]
        self._take(host)
        self._narrow()

    def to(self, device: torch.device | str) -> None:
        """Move the bodies."""
        self.bodies = self.bodies.to(device, non_blocking=True)

    def held(self, stream: int) -> Counter[PageLayout]:
        """How many page bodies of which layout are in use."""
        return Counter({self.layouts[stream]: int(self.count.sum()) * self.bodies.shape[2]})

    @property
    def table_nbytes(self) -> int:
        """Bytes of the page table, and of the places that attention has asked for."""
        return super().table_nbytes + (0 if self._table is None else self._table.nbytes)

    @property
    def skeletons_nbytes(self) -> int:
        """These codecs have no tables."""
        return 0

    @property
    def spare_nbytes(self) -> int:
        """Bytes of slots of rows that have fewer pages than the longest one."""
        used = int(self.count.sum()) * self.bodies.shape[2] * self.bodies.shape[3]
        return self.bodies.untyped_storage().nbytes() - used

    def _narrow(self) -> None:
        # Slots free in every row are given back, so that memory is really freed.
        super()._narrow()
        if self.used < self.bodies.shape[1]:
            self.bodies = self.bodies[:, : self.used].clone()

    def _room(self, slots: int) -> Tensor:
        batch, have, heads, nbytes = self.bodies.shape
        # Bytes selected under inference mode could not be written to outside of it.
        if slots <= have and not self.bodies.is_inference():
            return self.bodies
        # To the byte: a copy every P tokens costs little beside reading all pages every token.
        bodies = _bytes((batch, max(slots, have), heads, nbytes), self.bodies.device)
        bodies[:, :have] = self.bodies
        return bodies


def _bytes(shape: tuple[int, ...], device: torch.device) -> Tensor:
    # Written in place later, perhaps outside the inference mode that happens to be on now.
    # Zeros, because the bytes of an unused slot must decode to something in every codec.
    with torch.inference_mode(False):
        return torch.zeros(shape, dtype=torch.uint8, device=device)


def _alike(
    start: NDArray[Any], slot: NDArray[Any], pages: NDArray[Any]
) -> Iterator[tuple[Any, int, int, int]]:
    """Rows with the same work, together: (rows, start, slot, pages)."""
    work = np.stack([start, slot, pages], 1).astype(np.int64)
    kinds, group = np.unique(work, axis=0, return_inverse=True)
    for number, (at, to, n) in enumerate(kinds.tolist()):
        if n:
            rows = slice(None) if len(kinds) == 1 else np.flatnonzero(group.ravel() == number)
            yield rows, at, to, n
