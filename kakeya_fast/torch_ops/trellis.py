"""``trellis``: signs, Hadamard, one gain byte, the walk of least error."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.gain import Gain
from kakeya_fast.torch_ops.pages import read_field
from kakeya_fast.torch_ops.rotate import Rotation
from kakeya_fast.torch_ops.walk import Walk
from kakeya_ref.types import PageLayout


class Trellis:
    """Fields of ``trellis`` pages.

    Rule: trellis.decode.product, scale.rms, scale.byte.zero
    """

    encode_rule, decode_rule = "scale.byte.range", ""
    encode_fault = "the gain of a vector is above the grid"
    decode_fault = ""

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        self.layout = layout
        self.gain = Gain(layout.head_dim, device)
        self.rotation = Rotation(layout.head_dim, layout.codec.integer("seed"), device)
        self.walk = Walk([layout.codec.integer("b")] * layout.head_dim, device)
        self.unbiased = layout.codec["gain"] == "unbiased"

    def fields(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(N, P, D) float32 -> fields, bad (N, P) bool"""
        y = self.rotation.forward(x)
        byte, bad = self.gain.of_rms(y)
        z = y * self.gain.reciprocal(byte)[..., None]
        codes = self.walk.search(z.flatten(0, 1)).reshape(z.shape)
        codes = torch.where(byte[..., None] == 0, 0, codes)
        if self.unbiased:
            byte = self.gain.unbiased(byte, z, self.walk.values(codes.long()))
        return {"scales": byte, "codes": codes.flatten(1)}, bad

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """(N, nbytes) uint8 -> (N, P, D) float32, bad (N, P) bool, never true"""
        codes = read_field(self.layout, pages, "codes", torch.uint8)
        byte = read_field(self.layout, pages, "scales", torch.uint8)[:, 0, :, None]
        codes = codes.reshape(*byte.shape[:2], -1).long()
        y = self.walk.values(codes) * self.gain.value(byte)
        return torch.where(byte == 0, 0.0, y), torch.zeros_like(byte[..., 0], dtype=torch.bool)

    def vectors(self, y: Tensor) -> Tensor:
        """(N, P, D) coefficients -> (N, P, D) vectors, float32"""
        return self.rotation.inverse(y)
