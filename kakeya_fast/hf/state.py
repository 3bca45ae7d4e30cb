"""What one layer remembers: packed pages, exact sinks, an exact tail, and where rows begin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.policy import Policy

UNKNOWN = -1


class LayerState:
    """Tensors of one layer and the operations that keep them consistent.

    Cache indices count padding, as the library does. Row ``b`` begins at ``starts[b]``; its
    sinks follow, then its pages, then what is not packed yet.

    Attributes
    ----------
    pages : PageStore or BlockStore
    exact : two tensors (B, H, sinks + W, D)
        K and V of the sinks, and then of cache indices ``tail_from .. length``.
    starts : (B,) int64
        Cache index of the first real token of each row, ``-1`` until there is one.
    length : int
        Tokens seen, padding included.
    left : int
        Tokens below this index may have left a sliding window.
    settled : int
        Tokens below this index are packed, sinks, padding, or too recent to be packed.
    step_from : (B,) int64
        Where each row's packed tokens ended before the tokens of the current step were packed.
    moved : bool
        Whether pages were packed since, so that they end elsewhere now.
    until : int
        While ``length`` is below it no page fills and every sink is there; 0 if that is not known.
    """

    def __init__(self, policy: Policy, k: Tensor, v: Tensor) -> None:
        self.policy = policy
        self.dtype, self.device = k.dtype, k.device
        self.layouts = policy.layouts(k.shape[-1], v.shape[-1], k.dtype)
        policy.open(self.device, self.layouts)
        self.pages = policy.store(k.shape[0], k.shape[1], self.layouts, self.device)
        self.exact = tuple(x.new_zeros(*x.shape[:2], policy.sinks, x.shape[-1]) for x in (k, v))
        self.starts = np.full(k.shape[0], UNKNOWN, np.int64)
        self.step_from, self.moved = np.zeros(k.shape[0], np.int64), False
        self.until = 0
        self.length = self.settled = self.tail_from = self.left = 0

    @property
    def batch(self) -> int:
        """Rows."""
        return self.exact[0].shape[0]

    @property
    def heads(self) -> int:
        """KV heads."""
        return self.exact[0].shape[1]

    @property
    def sink_k(self) -> Tensor:
        """Exact keys of the sinks: (B, H, sinks, D)."""
        return self.exact[0][:, :, : self.policy.sinks]

    @property
    def sink_v(self) -> Tensor:
        """Exact values of the sinks."""
        return self.exact[1][:, :, : self.policy.sinks]

    @property
    def tail_k(self) -> Tensor:
        """Exact keys of ``tail_from .. length``: (B, H, W, D)."""
        return self.exact[0][:, :, self.policy.sinks :]

    @property
    def tail_v(self) -> Tensor:
        """Exact values of ``tail_from .. length``."""
        return self.exact[1][:, :, self.policy.sinks :]

    @property
    def tail(self) -> tuple[Tensor, Tensor]:
        """Exact K and V of ``tail_from .. length``."""
        return self.tail_k, self.tail_v

    def append(self, k: Tensor, v: Tensor) -> None:
        """Put tokens at the end, exactly."""
        old_k, old_v = self.exact
        self.exact = torch.cat([old_k, k], dim=2), torch.cat([old_v, v], dim=2)
        self.length += k.shape[2]

    def mark(self) -> dict[str, Any]:
        """What :meth:`restore` needs: references and numbers, no copies, no pages."""
        kept = {k: v for k, v in vars(self).items() if k != "pages"}
        return kept | {"table": self.pages.table()}

    def restore(self, mark: dict[str, Any]) -> None:
        """Be again as at :meth:`mark`."""
        device = self.exact[0].device
        self.pages.restore(mark["table"])
        vars(self).update({k: v for k, v in mark.items() if k != "table"})
        self.to(device)

    def settle(self, starts: NDArray[np.int64]) -> None:
        """Pack every page that no later query reads exactly; fill the sinks.

        After ``n`` real tokens a row has ``max(0, n - sinks - residual) // P`` pages, however
        they came.

        Rule: cache.page.never-reencoded, cache.row.independent, cache.read.recent-exact

        Raises
        ------
        RangeError
            The codec cannot carry a value; nothing has changed.
        """
        if starts is self.starts and self.length < self.until:
            if self.moved:
                self.step_from, self.moved = self._ends(starts), False
            self.settled = self.length
            return
        ends, old = self._ends(starts), self.length - self.policy.residual
        pages = np.maximum(0, (old - ends) // self.policy.page_tokens)
        backend = self.policy.open(self.device, self.layouts)
        self.pages.append(ends, pages, self.tail, self.tail_from, backend)
        self.starts, self.step_from = starts, ends
        self._fill_sinks()
        self.settled = self.length
        self.moved = True
        known = (starts != UNKNOWN) & (starts + self.policy.sinks <= self.length)
        full = int(self._ends(starts).min()) + self.policy.page_tokens + self.policy.residual
        self.until = full if known.all() else 0

    def trim(self, keep: int = 0) -> None:
        """Drop the exact copies of packed tokens, but for what a crop of ``keep`` would need.

        That is every page that is read exactly after such a crop, from its first token on.
        """
        packed = self.until - self.policy.page_tokens - self.policy.residual
        if not keep and self.length < self.until and self.tail_from >= packed:
            return
        need = min(self.settled, int(self._ends(self.starts).min()))
        if keep:
            keep += self.policy.residual + self.policy.page_tokens - 1
            need = min(need, max(self.tail_from, self.length - keep))
        if need > self.tail_from:
            self._keep_tail(need, self.length)

    def slide(self, keep: int = 0) -> None:
        """Let pages go that no query from here on sees, nor any after a crop of ``keep``.

        Rule: cache.window.leave
        """
        if self.policy.window is not None:
            left = self.pages.slide(self.length - keep - self.policy.window + 1)
            self.left = max(self.left, left)

    def crop(self, length: int) -> None:
        """Forget every token from cache index ``length`` on.

        Rule: cache.crop.short-page, cache.crop.recorded
        """
        self.until = 0
        self.pages.crop(length, self.tail_from, self.policy.residual)
        self.length, self.settled = length, min(self.settled, length)
        self._keep_tail(min(self.tail_from, length), length)
        self.starts = np.where(self.starts >= length, UNKNOWN, self.starts)

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, in this order."""
        self.pages.select(rows)
        self.until = 0
        index = rows.to(self.exact[0].device)
        self.exact = self.exact[0][index], self.exact[1][index]
        host = rows.cpu().numpy()
        self.starts, self.step_from = self.starts[host].copy(), self.step_from[host].copy()

    def to(self, device: torch.device | str) -> None:
        """Move every tensor, packed ones included."""
        if self.exact[0].device == device:
            return
        self.pages.to(device)
        self.exact = tuple(x.to(device, non_blocking=True) for x in self.exact)

    def dense(self) -> tuple[Tensor, Tensor]:
        """K and V (B, H, length, D): sinks and tail as they came, pages decoded, padding zero."""
        return self._dense(0), self._dense(1)

    def _dense(self, stream: int) -> Tensor:
        tail = self.tail[stream]
        sink = (self.sink_k, self.sink_v)[stream]
        out = tail.new_zeros(*tail.shape[:2], self.length, tail.shape[3])
        backend = self.policy.open(self.device, self.layouts)
        ends = np.minimum(self._ends(self.starts), self.settled)
        for row, (start, end) in enumerate(zip(self.starts, ends, strict=True)):
            if start != UNKNOWN:
                sinks = min(self.policy.sinks, self.length - start)
                out[row, :, start : start + sinks] = sink[row, :, :sinks]
            out[row, :, end:] = tail[row, :, end - self.tail_from :]
        size = self.policy.page_tokens
        for slot in range(self.pages.used):
            page = self.pages.decode(slot, slot + 1, stream, backend)
            for row in range(self.batch):
                first, n = self.pages.first[row, slot], self.pages.length[row, slot]
                out[row, :, first : first + n] = page[row, :, : min(n, size)]
        return out

    def _ends(self, starts: NDArray[np.int64]) -> NDArray[np.int64]:
        # All tokens seen so far of a row without a start are padding.
        begin = np.where(starts == UNKNOWN, self.length, starts + self.policy.sinks)
        return self.pages.ends(begin)

    def _fill_sinks(self) -> None:
        columns = self.starts[:, None] + np.arange(self.policy.sinks)
        known = self.starts[:, None] != UNKNOWN
        fresh = known & (columns >= self.settled) & (columns < self.length)
        if not fresh.any():
            return
        tail = self.tail
        at = np.clip(columns - self.tail_from, 0, tail[0].shape[2] - 1)
        index = torch.from_numpy(at).to(self.device)[:, None, :, None]
        new = torch.from_numpy(fresh).to(self.device)[:, None, :, None]
        sinks = [
            torch.where(new, x.gather(2, index.expand_as(old)), old)
            for x, old in zip(tail, (self.sink_k, self.sink_v), strict=True)
        ]
        self._hold(sinks, tail)

    def _keep_tail(self, begin: int, end: int) -> None:
        part = slice(begin - self.tail_from, max(begin, end) - self.tail_from)
        self._hold((self.sink_k, self.sink_v), [x[:, :, part] for x in self.tail])
        self.tail_from = begin

    def _hold(self, sinks: Sequence[Tensor], tail: Sequence[Tensor]) -> None:
        # A copy, so that what is dropped is really freed.
        self.exact = tuple(torch.cat(both, dim=2) for both in zip(sinks, tail, strict=True))
