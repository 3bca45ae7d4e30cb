"""``fp8``: e4m3 numbers under one gain byte per vector."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.gain import Gain
from kakeya_fast.torch_ops.pages import read_field
from kakeya_ref.types import PageLayout


class Fp8:
    """Fields of ``fp8`` pages.

    Rule: fp8.scale.up, fp8.code.round, fp8.code.nan, fp8.decode.product, scale.byte.zero
    """

    encode_rule, decode_rule = "fp8.scale.up", "fp8.code.nan"
    encode_fault = "the gain of a vector is above the grid"
    decode_fault = "a stored code is the e4m3 NaN"

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        self.layout = layout
        self.gain = Gain(layout.head_dim, device)

    def fields(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(N, P, D) float32 -> fields, bad (N, P) bool"""
        byte, bad = self.gain.of_peak(x)
        scaled = x * self.gain.reciprocal(byte)[..., None]
        # torch casts what is beyond 448 to NaN; the format saturates.
        codes = scaled.clamp(-448.0, 448.0).to(torch.float8_e4m3fn).view(torch.uint8)
        codes = torch.where(byte[..., None] == 0, 0, codes)  # a -0 would leave its sign bit
        return {"scales": byte, "codes": codes.flatten(1)}, bad

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """(N, nbytes) uint8 -> (N, P, D) float32, bad (N, P) bool"""
        codes = read_field(self.layout, pages, "codes", torch.uint8)
        byte = read_field(self.layout, pages, "scales", torch.uint8)[:, 0, :, None]
        y = codes.view(torch.float8_e4m3fn).to(torch.float32) * self.gain.value(byte)
        bad = ((codes & 0x7F) == 0x7F).any(dim=-1)
        return torch.where(byte == 0, 0.0, y), bad

    def vectors(self, y: Tensor) -> Tensor:
        """The coded basis is the identity."""
        return y
