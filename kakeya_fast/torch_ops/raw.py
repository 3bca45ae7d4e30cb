"""``raw``: the numbers themselves."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.pages import read_field
from kakeya_ref.types import PageLayout

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class Raw:
    """Fields of ``raw`` pages.

    Rule: raw.range, raw.code.finite, num.round.half-even
    """

    encode_rule, decode_rule = "raw.range", "raw.code.finite"
    encode_fault = "a value rounds to infinity"
    decode_fault = "a stored value is NaN or infinite"

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        self.layout = layout
        self.dtype = DTYPES[str(layout.codec["dtype"])]

    def fields(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(N, P, D) float32 -> fields, bad (N, P) bool"""
        values = x.to(self.dtype)
        return {"values": values.flatten(1)}, ~values.isfinite().all(dim=-1)

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """(N, nbytes) uint8 -> (N, P, D) float32, bad (N, P) bool"""
        values = read_field(self.layout, pages, "values", self.dtype)
        return values.to(torch.float32), ~values.isfinite().all(dim=-1)

    def vectors(self, y: Tensor) -> Tensor:
        """The coded basis is the identity."""
        return y
