"""``trellis``: signs, Hadamard, one gain byte, the walk of least error."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.gain import Gain
from kakeya_fast.torch_ops.pages import read_field
from kakeya_fast.torch_ops.rotate import Rotation
from kakeya_ref.tables import trellis_labels, trellis_values
from kakeya_ref.types import PageLayout

STATES, LABELS = 128, 16


class Trellis:
    """Fields of ``trellis`` pages.

    Rule: trellis.search.branch, trellis.search.start, trellis.search.step, trellis.search.end,
    trellis.window.shift, trellis.decode.product, scale.rms, scale.byte.zero
    """

    encode_rule, decode_rule = "scale.byte.range", ""
    encode_fault = "the gain of a vector is above the grid"
    decode_fault = ""

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        self.layout = layout
        self.gain = Gain(layout.head_dim, device)
        self.rotation = Rotation(layout.head_dim, layout.codec.integer("seed"), device)
        self.labels = torch.tensor(trellis_labels(), device=device)
        self.values = torch.tensor(trellis_values(layout.codec.integer("b")), device=device)

    def fields(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(N, P, D) float32 -> fields, bad (N, P) bool"""
        y = self.rotation.forward(x)
        byte, bad = self.gain.of_rms(y)
        z = y * self.gain.reciprocal(byte)[..., None]
        codes = self._search(z.flatten(0, 1)).reshape(z.shape)
        codes = torch.where(byte[..., None] == 0, 0, codes)
        return {"scales": byte, "codes": codes.flatten(1)}, bad

    def _search(self, z: Tensor) -> Tensor:
        """(M, D) float32 -> (M, D) uint8"""
        m, d = z.shape
        cost = torch.full((m, STATES), torch.inf, device=z.device)
        cost[:, 0] = 0
        uppers, picks = [], []
        for i in range(d):
            branch, pick = self._branches(z[:, i, None])
            both = (cost.repeat_interleave(2, dim=1) + branch[:, self.labels]).unflatten(
                1, (2, STATES)
            )
            upper = both[:, 1] < both[:, 0]
            cost = torch.where(upper, both[:, 1], both[:, 0])
            uppers.append(upper)
            picks.append(pick)
        # Which of several least a library's argmin takes is its own affair.
        least = cost == cost.amin(1, keepdim=True)
        every = torch.arange(STATES, device=z.device)
        state = torch.where(least, every, STATES).amin(1, keepdim=True).clamp(max=STATES - 1)
        codes = torch.empty((m, d), dtype=torch.uint8, device=z.device)
        for i in reversed(range(d)):
            window = state + STATES * uppers[i].gather(1, state)
            pick = picks[i].gather(1, self.labels[window])
            codes[:, i] = (pick * 2 + (state & 1))[:, 0]
            state = window >> 1
        return codes

    def _branches(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 1) float32 -> least squares and their values (M, 16), the lowest of equals."""
        best = pick = None
        for u, values in enumerate(self.values.split(LABELS)):
            off = z - values
            square = off * off
            if best is None:
                best, pick = square, torch.zeros_like(square, dtype=torch.uint8)
                continue
            nearer = square < best
            best, pick = torch.where(nearer, square, best), torch.where(nearer, u, pick)
        return best, pick.to(torch.uint8)

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """(N, nbytes) uint8 -> (N, P, D) float32, bad (N, P) bool, never true"""
        codes = read_field(self.layout, pages, "codes", torch.uint8)
        byte = read_field(self.layout, pages, "scales", torch.uint8)[:, 0, :, None]
        codes = codes.reshape(*byte.shape[:2], -1).long()
        low = codes & 1
        window = low.clone()
        for back in range(1, 8):
            window[..., back:] |= low[..., :-back] << back
        y = self.values[(codes >> 1) * LABELS + self.labels[window]] * self.gain.value(byte)
        return torch.where(byte == 0, 0.0, y), torch.zeros_like(byte[..., 0], dtype=torch.bool)

    def vectors(self, y: Tensor) -> Tensor:
        """(N, P, D) coefficients -> (N, P, D) vectors, float32"""
        return self.rotation.inverse(y)
