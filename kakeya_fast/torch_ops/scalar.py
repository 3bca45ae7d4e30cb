"""``scalar``: signs, Hadamard, one gain byte, Lloyd-Max codes."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.gain import Gain
from kakeya_fast.torch_ops.pages import read_field
from kakeya_fast.torch_ops.rotate import Rotation
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import PageLayout

# Up to this many thresholds, comparing with each is faster than a binary search.
COUNTED = 15


class Scalar:
    """Fields of ``scalar`` pages.

    Rule: scalar.code.boundary, scalar.decode.product, scalar.table.lloyd-max, scale.rms,
    scale.byte.zero
    """

    encode_rule, decode_rule = "scale.byte.range", ""
    encode_fault = "the gain of a vector is above the grid"
    decode_fault = ""

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        self.layout = layout
        self.gain = Gain(layout.head_dim, device)
        self.rotation = Rotation(layout.head_dim, layout.codec.integer("seed"), device)
        centroids, thresholds = lloyd_max(layout.codec.integer("b"))
        self.centroids = torch.tensor(centroids, device=device)
        self.thresholds = torch.tensor(thresholds, device=device)

    def fields(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(N, P, D) float32 -> fields, bad (N, P) bool"""
        y = self.rotation.forward(x)
        byte, bad = self.gain.of_rms(y)
        z = y * self.gain.reciprocal(byte)[..., None]
        codes = torch.where(byte[..., None] == 0, 0, self._codes(z))
        return {"scales": byte, "codes": codes.flatten(1)}, bad

    def _codes(self, z: Tensor) -> Tensor:
        """Number of thresholds below each number. float32 -> uint8"""
        if len(self.thresholds) > COUNTED:
            return torch.bucketize(z, self.thresholds, out_int32=True).to(torch.uint8)
        codes = torch.zeros_like(z, dtype=torch.uint8)
        for threshold in self.thresholds.unbind(0):
            codes = codes + (z > threshold)
        return codes

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """(N, nbytes) uint8 -> (N, P, D) float32, bad (N, P) bool, never true"""
        codes = read_field(self.layout, pages, "codes", torch.uint8)
        byte = read_field(self.layout, pages, "scales", torch.uint8)[:, 0, :, None]
        y = self.centroids.index_select(0, codes.flatten().int()).reshape(codes.shape)
        y = y * self.gain.value(byte)
        return torch.where(byte == 0, 0.0, y), torch.zeros_like(byte[..., 0], dtype=torch.bool)

    def vectors(self, y: Tensor) -> Tensor:
        """(N, P, D) coefficients -> (N, P, D) vectors, float32"""
        return self.rotation.inverse(y)
