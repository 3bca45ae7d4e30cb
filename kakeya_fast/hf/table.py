"""The page table of a layer: which pages a row has and where they stand, on the host."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PageTable:
    """Where the pages of every row stand; a store of page bodies builds on it.

    Rule: page.table.position

    Attributes
    ----------
    first, length : (B, slots) int32
        First cache index of a page and how many of its tokens still count; zero in slots that
        hold no page.
    count : (B,) int32
        Pages of each row.
    """

    def __init__(self, batch: int) -> None:
        self.first = np.zeros((batch, 0), np.int32)
        self.length = np.zeros((batch, 0), np.int32)
        self.count = np.zeros(batch, np.int32)

    @property
    def used(self) -> int:
        """Slots that some row uses."""
        return int(self.count.max(initial=0))

    @property
    def table_nbytes(self) -> int:
        """Bytes of the table itself."""
        return self.first.nbytes + self.length.nbytes + self.count.nbytes

    def ends(self, otherwise: NDArray[np.int64]) -> NDArray[np.int64]:
        """Cache index after the last packed token of each row; ``otherwise`` where none is."""
        if not self.used:
            return otherwise.copy()
        rows, last = np.arange(len(self.count)), np.maximum(self.count - 1, 0)
        end = self.first[rows, last].astype(np.int64) + self.length[rows, last]
        return np.where(self.count > 0, end, otherwise)

    def crop(self, length: int, exact_from: int, residual: int = 0) -> None:
        """Forget tokens from cache index ``length`` on.

        A page that would not be packed yet at ``length`` leaves the table when its tokens are
        still at hand exactly (those from ``exact_from`` on). Otherwise a page that is cut in two
        stays, shorter, its bytes untouched.

        Rule: cache.crop.short-page, cache.crop.recorded
        """
        slots = np.arange(self.first.shape[1])
        live = slots < self.count[:, None]
        end = self.first + self.length
        exact = self.first >= exact_from
        gone = live & ((self.first >= length) | (exact & (end > length - residual)))
        cut = live & (end > length) & ~gone
        # New arrays: the old ones may be remembered for a rollback.
        self.length = np.where(gone, 0, np.where(cut, length - self.first, self.length))
        self.first = np.where(gone, 0, self.first)
        self.count = (self.count - gone.sum(1)).astype(np.int32)
        self._narrow()

    def table(self) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """The table as it is now, for :meth:`restore`; later pages do not change it."""
        return self.first, self.length, self.count

    def restore(self, table: tuple[NDArray[np.int32], ...]) -> None:
        """Forget the pages that came after :meth:`table`; what came before still has its bytes."""
        self.first, self.length, self.count = table
        self._narrow()

    def _enter(self, first: NDArray[np.int64], pages: NDArray[np.int64], size: int) -> None:
        """Enter that many new whole pages of each row, from cache index ``first`` on."""
        grown = max(0, int((self.count + pages).max()) - self.first.shape[1])
        self.first = np.pad(self.first, ((0, 0), (0, grown)))
        self.length = np.pad(self.length, ((0, 0), (0, grown)))
        for row, n in enumerate(pages):
            new = slice(self.count[row], self.count[row] + n)
            self.first[row, new] = first[row] + size * np.arange(n)
            self.length[row, new] = size
        self.count = (self.count + pages).astype(np.int32)

    def _take(self, rows: NDArray[np.int64]) -> None:
        """Take these rows, in this order."""
        self.first, self.length, self.count = self.first[rows], self.length[rows], self.count[rows]

    def _narrow(self) -> None:
        """Give back the slots that are free in every row."""
        keep = self.used
        if keep < self.first.shape[1]:
            self.first, self.length = self.first[:, :keep].copy(), self.length[:, :keep].copy()
