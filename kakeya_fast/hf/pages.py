"""Storage of packed pages: bodies on the device, the page table on the host."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_ref.types import Basis, PageLayout

# Pages per encoder call: bounds the gathered copy of a long prefill.
ENCODE = 32


class PageStore:
    """Packed pages of one layer.

    A body holds the K body and then the V body of one page and one KV head. The table says, for
    every row of the batch and every slot, where the page stands: its first cache index and how
    many of its tokens still count. Bytes are written once; only table entries ever change.

    Rule: cache.page.never-reencoded, page.table.position

    Attributes
    ----------
    bodies : (B, slots, H, k.nbytes + v.nbytes) uint8
    first, length : (B, slots) int32
        Zero in slots that hold no page.
    count : (B,) int32
        Pages of each row.
    """

    def __init__(
        self, batch: int, heads: int, layouts: tuple[PageLayout, PageLayout], device: torch.device
    ) -> None:
        self.layouts = layouts
        self.spans = (
            slice(0, layouts[0].nbytes),
            slice(layouts[0].nbytes, layouts[0].nbytes + layouts[1].nbytes),
        )
        self.bodies = _bytes((batch, 0, heads, self.spans[1].stop), device)
        self.first = np.zeros((batch, 0), np.int32)
        self.length = np.zeros((batch, 0), np.int32)
        self.count = np.zeros(batch, np.int32)

    @property
    def used(self) -> int:
        """Slots that some row uses."""
        return int(self.count.max(initial=0))

    def ends(self, otherwise: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cache index after the last packed token of each row; ``otherwise`` where none is."""
        if not self.used:
            return otherwise.copy()
        rows, last = np.arange(len(self.count)), np.maximum(self.count - 1, 0)
        end = self.first[rows, last].astype(np.int64) + self.length[rows, last]
        return np.where(self.count > 0, end, otherwise)

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
                for x, layout, span in zip(exact, self.layouts, self.spans, strict=True):
                    part = x[rows, :, at : at + m * size].unflatten(2, (m, size)).transpose(1, 2)
                    body = backend.encode_tensor(part.flatten(0, 2), layout)
                    bodies[rows, slot + done : slot + done + m, :, span] = body.view(
                        *part.shape[:3], -1
                    )
        # From here on nothing can fail.
        self._widen(bodies)
        for row, n in enumerate(pages):
            new = slice(self.count[row], self.count[row] + n)
            self.first[row, new] = first[row] + size * np.arange(n)
            self.length[row, new] = size
        self.count = (self.count + pages).astype(np.int32)

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

    def crop(self, length: int, exact_from: int) -> None:
        """Forget tokens from cache index ``length`` on.

        A page that is cut in two leaves the table when its tokens are still at hand exactly
        (those from ``exact_from`` on); otherwise it stays, shorter, its bytes untouched.

        Rule: cache.crop.short-page, cache.crop.recorded
        """
        slots = np.arange(self.first.shape[1])
        live = slots < self.count[:, None]
        end = self.first + self.length
        gone = live & (end > length) & ((self.first >= length) | (self.first >= exact_from))
        cut = live & (end > length) & ~gone
        self.length[cut] = length - self.first[cut]
        self.first[gone] = 0
        self.length[gone] = 0
        self.count = (self.count - gone.sum(1)).astype(np.int32)
        self._narrow()

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, in this order."""
        host = rows.cpu().numpy()
        self.bodies = self.bodies[rows.to(self.bodies.device)]
        self.first, self.length, self.count = self.first[host], self.length[host], self.count[host]
        self._narrow()

    def to(self, device: torch.device | str) -> None:
        """Move the bodies."""
        self.bodies = self.bodies.to(device, non_blocking=True)

    def table(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """The table as it is now, for :meth:`restore`; later pages do not change it."""
        return self.first, self.length, self.count

    def restore(self, table: tuple[NDArray[np.int32], ...]) -> None:
        """Forget the pages that came after :meth:`table`; what came before still has its bytes."""
        self.first, self.length, self.count = table
        self._narrow()

    def _narrow(self) -> None:
        # Slots free in every row are given back, so that memory is really freed.
        keep = self.used
        if keep < self.bodies.shape[1]:
            self.bodies = self.bodies[:, :keep].clone()
            self.first, self.length = self.first[:, :keep].copy(), self.length[:, :keep].copy()

    def _room(self, slots: int) -> Tensor:
        batch, have, heads, nbytes = self.bodies.shape
        # Bytes selected under inference mode could not be written to outside of it.
        if slots <= have and not self.bodies.is_inference():
            return self.bodies
        # To the byte: a copy every P tokens costs little beside reading all pages every token.
        bodies = _bytes((batch, max(slots, have), heads, nbytes), self.bodies.device)
        bodies[:, :have] = self.bodies
        return bodies

    def _widen(self, bodies: Tensor) -> None:
        grown = bodies.shape[1] - self.first.shape[1]
        self.bodies = bodies
        # New arrays: the old ones may be remembered for a rollback.
        self.first = np.pad(self.first, ((0, 0), (0, grown)))
        self.length = np.pad(self.length, ((0, 0), (0, grown)))


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
