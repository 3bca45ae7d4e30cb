"""Pages of keys that are coded less a mean of their row."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.basis import rotation
from kakeya_fast.hf.placed import I64, PlacedStore
from kakeya_fast.hf.rope import Rope
from kakeya_ref.types import Basis, PageLayout


class CenteredStore(PlacedStore):
    """Packed pages whose keys are coded less the mean of the first page of their row.

    The mean is one of unrotated keys, in f16; it is turned to the position of every token.

    Rule: cache.center.first-page

    Attributes
    ----------
    rope : Rope
    mean : (B, H, D) float16
    """

    def __init__(
        self,
        batch: int,
        heads: int,
        layouts: tuple[PageLayout, PageLayout],
        device: torch.device,
        rope: Rope,
    ) -> None:
        super().__init__(batch, heads, layouts, device)
        self.rope = rope
        with torch.inference_mode(False):
            size = (batch, heads, layouts[0].head_dim)
            self.mean = torch.zeros(size, dtype=torch.float16, device=device)

    @property
    def skeletons_nbytes(self) -> int:
        """Bytes of the means."""
        return self.mean.nbytes

    def append(
        self,
        first: I64,
        pages: NDArray[np.int64],
        exact: tuple[Tensor, Tensor],
        offset: int,
        backend: Any,
    ) -> None:
        """As of :class:`PageStore`; rows that begin take their mean from their first page."""
        before, size = self.mean, self.layouts[0].tokens
        self.mean = self.mean.clone()
        for row in np.flatnonzero((self.count == 0) & (pages > 0)):
            at = int(first[row]) - offset
            places = int(first[row] + self.shift[row]) + torch.arange(size, device=before.device)
            keys = exact[0][row, :, at : at + size].float()
            self.mean[row] = self.rope.turned(keys, -places).mean(1).to(torch.float16)
        try:
            super().append(first, pages, exact, offset, backend)
        except Exception:
            self.mean = before
            raise

    def decode(self, a: int, b: int, stream: int, backend: Any, basis: Basis = "vectors") -> Tensor:
        """As of :class:`PageStore`, the mean put back."""
        y = super().decode(a, b, stream, backend, basis)
        if stream == 1:
            return y
        first = torch.from_numpy(self.first[:, a:b] + self.shift[:, None]).to(y.device)
        places = first[:, :, None] + torch.arange(self.layouts[0].tokens, device=y.device)
        mean = self.rope.turned(self.mean[:, :, None].to(y.dtype), places.flatten(1)[:, None])
        if basis == "coefficients":
            turn = rotation(self.layouts[0], y.dtype, y.device)
            mean = mean if turn is None else mean @ turn.T
        return y + mean

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, in this order."""
        super().select(rows)
        self.mean = self.mean[rows.to(self.mean.device)]

    def to(self, device: torch.device | str) -> None:
        """Move bodies and means."""
        super().to(device)
        self.mean = self.mean.to(device)

    def table(self) -> Any:
        """The table with positions and means."""
        return *super().table(), self.mean

    def restore(self, table: Any) -> None:
        """Forget what came after :meth:`table`."""
        self.mean = table[4]
        super().restore(table[:4])

    def _encode(
        self, stream: int, x: Tensor, backend: Any, rows: Any, first: Any, slot: int
    ) -> Tensor:
        if stream == 0:
            size = self.layouts[0].tokens
            at = first - size * self.count + self.shift
            at = torch.from_numpy(at[rows]).to(x.device)[:, None, None, None]
            page = torch.arange(slot, slot + x.shape[1], device=x.device)[:, None, None]
            places = at + size * page + torch.arange(size, device=x.device)
            mean = self.mean[rows][:, None, :, None].float()
            x = x.float() - self.rope.turned(mean, places)
        return super()._encode(stream, x, backend, rows, first, slot)
