"""The walk of least error through the trellis, and the values of its codes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kakeya_ref.tables import trellis_labels, trellis_values

STATES, LABELS = 128, 16


class Walk:
    """The trellis for codes of given widths, on one device.

    Rule: trellis.search.branch, trellis.search.start, trellis.search.step, trellis.search.end,
    trellis.window.shift, trellis.label.linear, trellis.table.values

    Parameters
    ----------
    bits : sequence of int
        Bits of each code of a walk.
    weight : (n,) float32 tensor, optional
        What an error of each number counts, where they count differently.
    """

    def __init__(
        self, bits: Sequence[int], device: torch.device, weight: Tensor | None = None
    ) -> None:
        self.labels = torch.tensor(trellis_labels(), device=device)
        self.bits, self.weight = tuple(bits), weight
        self.tables = {b: torch.tensor(trellis_values(b), device=device) for b in set(bits)}

    def search(self, z: Tensor) -> Tensor:
        """(M, n) float32 -> (M, n) uint8"""
        m, n = z.shape
        cost = torch.full((m, STATES), torch.inf, device=z.device)
        cost[:, 0] = 0
        branch, pick = self._branches(z)
        if self.weight is not None:
            branch = branch * self.weight[:, None]
        uppers = []
        for i in range(n):
            both = (cost.repeat_interleave(2, dim=1) + branch[:, i, self.labels]).unflatten(
                1, (2, STATES)
            )
            upper = both[:, 1] < both[:, 0]
            cost = torch.where(upper, both[:, 1], both[:, 0])
            uppers.append(upper)
        # Which of several least a library's argmin takes is its own affair.
        least = cost == cost.amin(1, keepdim=True)
        every = torch.arange(STATES, device=z.device)
        state = torch.where(least, every, STATES).amin(1, keepdim=True).clamp(max=STATES - 1)
        codes = torch.empty((m, n), dtype=torch.uint8, device=z.device)
        for i in reversed(range(n)):
            window = state + STATES * uppers[i].gather(1, state)
            best = pick[:, i].gather(1, self.labels[window])
            codes[:, i] = (best * 2 + (state & 1))[:, 0]
            state = window >> 1
        return codes

    def _branches(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(M, n) float32 -> least squares and their values (M, n, 16), the lowest of equals."""
        best = z.new_empty(*z.shape, LABELS)
        pick = torch.zeros(best.shape, dtype=torch.uint8, device=z.device)
        for bits, values in self.tables.items():
            at = [i for i, b in enumerate(self.bits) if b == bits]
            some = slice(None) if len(at) == len(self.bits) else at
            part = z[:, some, None]
            least = which = None
            for u, row in enumerate(values.split(LABELS)):
                off = part - row
                square = off * off
                if least is None:
                    least, which = square, torch.zeros_like(square, dtype=torch.uint8)
                    continue
                nearer = square < least
                least, which = torch.where(nearer, square, least), which.masked_fill(nearer, u)
            best[:, some], pick[:, some] = least, which
        return best, pick

    def values(self, codes: Tensor) -> Tensor:
        """(M, n) int64 -> (M, n) float32"""
        low = codes & 1
        window = low.clone()
        for back in range(1, min(8, low.shape[-1])):
            window[..., back:] |= low[..., :-back] << back
        at = (codes >> 1) * LABELS + self.labels[window]
        if len(self.tables) == 1:
            return self.tables[self.bits[0]][at]
        return torch.stack([self.tables[b][at[..., i]] for i, b in enumerate(self.bits)], -1)
