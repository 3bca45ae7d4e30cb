"""Where pages lie, as attention that reads them in place is told: made when pages change."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

if TYPE_CHECKING:
    from kakeya_fast.hf.table import PageTable

KEPT = 8
_there: OrderedDict[Any, Tensor] = OrderedDict()


@dataclass(eq=False)
class BlockTable:
    """Where the pages of every row and head lie, and which queries read them.

    Attributes
    ----------
    first, length : (B, N) int32
        Those of the page table, which are replaced and never changed in place.
    room : int
        Slots of a row when this was made.
    slots : (B, H, N) int32
        Row of the pools; -1 where a row has no page.
    """

    first: NDArray[np.int32]
    length: NDArray[np.int32]
    room: int
    slots: NDArray[np.int32]
    _moved: dict[Any, tuple[Tensor, ...]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Bytes of what was worked out here; layers may share what lies on a device."""
        moved = (x.nbytes for there in self._moved.values() for x in there)
        return self.slots.nbytes + sum(moved)

    def since(self, residual: int, step_from: NDArray[np.int64]) -> NDArray[np.int64]:
        """First query that reads each page from bytes: (B, N).

        What was packed before ``step_from`` (B,) has no exact copy left, whatever was cropped.
        """
        end = self.first + self.length
        if not residual:
            return end
        return end + np.where(self.first >= step_from[:, None], residual, 0)

    def on(
        self, device: torch.device, residual: int, step_from: NDArray[np.int64]
    ) -> tuple[Tensor, ...]:
        """Slots, first, length and since on a device, as int32; moved once.

        Layers whose pages stand alike share them.
        """
        key = device, residual, step_from.tobytes() if residual else b""
        if key not in self._moved:
            arrays = self.slots, self.first, self.length, self.since(residual, step_from)
            self._moved = {key: tuple(_shared(x.astype(np.int32), device) for x in arrays)}
        return self._moved[key]


def places(table: PageTable, room: int, heads: int) -> NDArray[np.int32]:
    """Rows of the pools in which the pages of a table lie: (B, H, N), -1 where there is none."""
    row, head, page = np.ogrid[: len(table.count), :heads, : table.first.shape[1]]
    place = (row * room + page) * heads + head
    return np.where(page < table.count[:, None, None], place, -1).astype(np.int32)


def _shared(x: NDArray[np.int32], device: torch.device) -> Tensor:
    """A tensor that holds the numbers of an array; the same one for the same numbers."""
    key = device, x.shape, x.tobytes()
    if key not in _there:
        with torch.inference_mode(False):
            _there[key] = torch.from_numpy(np.ascontiguousarray(x)).to(device)
    _there.move_to_end(key)
    while len(_there) > KEPT:
        _there.popitem(last=False)
    return _there[key]
