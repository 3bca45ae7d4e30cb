"""Pages of keys that know at which positions of the model their rows stand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.pages import PageStore
from kakeya_ref.errors import Unsupported
from kakeya_ref.types import PageLayout

I64 = NDArray[np.int64]
UNKNOWN = -1
# What the newest positions said, to which rows: layers of one forward ask for the same.
_newest: list[Any] = [(None, None)]


class PlacedStore(PageStore):
    """A page store whose rows have positions.

    Attributes
    ----------
    shift : (B,) int64
        Position in the model minus cache index, of every token of a row.
    """

    def __init__(
        self, batch: int, heads: int, layouts: tuple[PageLayout, PageLayout], device: torch.device
    ) -> None:
        super().__init__(batch, heads, layouts, device)
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
        rows = (starts, self.shift, self.count > 0)
        asked = (length, at.shape, at.tobytes(), *(x.tobytes() for x in rows))
        known, shift = _newest[0]
        if known == asked:
            self.shift = shift
            return
        at = np.broadcast_to(at, (len(starts), at.shape[1]))
        index = length - at.shape[1] + np.arange(at.shape[1])
        shift = np.where(starts == UNKNOWN, self.shift, at[:, -1] - index[-1])
        real = (starts[:, None] != UNKNOWN) & (index >= starts[:, None])
        moved = (self.count > 0) & (shift != self.shift)
        if (real & (at - index != shift[:, None])).any() or moved.any():
            raise Unsupported("query.frame.positions", "positions of a row must go on one by one")
        self.shift = shift
        _newest[0] = asked, shift

    def relocate(self, by: NDArray[np.integer]) -> None:
        """Let every row begin ``by`` (B,) positions later; no byte of a page changes.

        Rule: query.frame.relocate
        """
        self.shift = self.shift + by

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
