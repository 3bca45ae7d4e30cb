"""``int``: min/max integers in groups along a token's channels or along a channel's tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.pages import read_field
from kakeya_ref.types import PageLayout


class Affine:
    """Fields of ``int`` pages.

    Rule: int.range.f16, int.code.clamp, int.lo.positive-zero, int.decode.affine,
    int.params.finite
    """

    encode_rule, decode_rule = "int.range.f16", "int.params.finite"
    encode_fault = "the minimum or the step of a group does not fit float16"
    decode_fault = "a stored minimum or step is not finite, or the step is negative"

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        self.layout = layout
        self.axis = 2 if layout.codec["axis"] == "token" else 1
        self.size = layout.codec.integer("g")
        length = layout.head_dim if self.axis == 2 else layout.tokens
        self.full = length // self.size * self.size
        self.owner = torch.arange(length, device=device) // self.size
        # A tensor: torch on CUDA multiplies by the reciprocal of a Python divisor.
        levels = 2 ** layout.codec.integer("b") - 1
        self.levels = torch.tensor(levels, dtype=torch.float32, device=device)

    def fields(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(N, P, D) float32 -> fields, bad (N, P) bool"""
        low, high = self._extremes(x)
        # Adding +0 makes a zero positive, whichever zero min or max returned; the rounding to
        # float16 can make a negative zero again.
        low16 = (low + 0.0).to(torch.float16) + 0.0
        step16 = (((high - low) + 0.0) / self.levels).to(torch.float16)
        bad = ~(low16.isfinite() & step16.isfinite())
        base, step = self._spread(low16.float()), self._spread(step16.float())
        codes = ((x - base) / torch.where(step == 0, 1.0, step)).round()
        codes = torch.minimum(codes.clamp(min=0.0), self.levels)
        codes = torch.where(step == 0, 0.0, codes).to(torch.uint8)
        fields = {"lo": low16.flatten(1), "step": step16.flatten(1), "codes": codes.flatten(1)}
        return fields, self._tokens(bad)

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """(N, nbytes) uint8 -> (N, P, D) float32, bad (N, P) bool"""
        low16 = read_field(self.layout, pages, "lo", torch.float16)
        step16 = read_field(self.layout, pages, "step", torch.float16)
        codes = read_field(self.layout, pages, "codes", torch.uint8)
        bad = ~(low16.isfinite() & step16.isfinite()) | step16.signbit()
        product = codes.float() * self._spread(step16.float())
        return self._spread(low16.float()) + product, self._tokens(bad)

    def vectors(self, y: Tensor) -> Tensor:
        """The coded basis is the identity."""
        return y

    def _extremes(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Minimum and maximum of every group, the short last one included."""
        parts = []
        if self.full:
            head = x.narrow(self.axis, 0, self.full).unflatten(self.axis, (-1, self.size))
            parts.append((head.amin(dim=self.axis + 1), head.amax(dim=self.axis + 1)))
        if self.full < x.shape[self.axis]:
            rest = x.narrow(self.axis, self.full, x.shape[self.axis] - self.full)
            parts.append((rest.amin(self.axis, keepdim=True), rest.amax(self.axis, keepdim=True)))
        if len(parts) == 1:
            return parts[0]
        low, high = zip(*parts, strict=True)
        return torch.cat(low, dim=self.axis), torch.cat(high, dim=self.axis)

    def _spread(self, groups: Tensor) -> Tensor:
        """Value of its group for every element: (N, rows, row) -> (N, P, D)."""
        return groups.index_select(self.axis, self.owner)

    def _tokens(self, bad: Tensor) -> Tensor:
        """Tokens (N, P) that have a part in a bad group."""
        return (bad if self.axis == 2 else self._spread(bad)).any(dim=2)
