"""Sign flips and the orthonormal block Hadamard transform."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_ref.tables import signs


class Rotation:
    """The map between vectors and coefficients of one head dim and seed.

    Rule: signs.splitmix64.top-bit, signs.seed.zero, hadamard.blocks.largest-first,
    hadamard.order.strides, hadamard.scale.once, num.fp32.no-fma

    Differs: all blocks run their butterflies together. Blocks are powers of two, largest first,
    so those longer than a stride are a prefix of the vector; each number sees the same
    operations in the same order.
    """

    def __init__(self, d: int, seed: int, device: torch.device) -> None:
        self.signs = torch.tensor(signs(seed, d), device=device)
        lengths = [1 << m for m in reversed(range(d.bit_length())) if d >> m & 1]
        scale = [2.0 ** (-(n.bit_length() - 1) / 2) for n in lengths for _ in range(n)]
        self.scale = torch.tensor(scale, dtype=torch.float32, device=device)
        self.passes = [
            (stride, sum(n for n in lengths if n > stride))
            for stride in (1 << k for k in range(lengths[0].bit_length() - 1))
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients of vectors. (..., D) float32 -> (..., D) float32"""
        return self._hadamard(x * self.signs)

    def inverse(self, y: Tensor) -> Tensor:
        """Vectors of coefficients. (..., D) float32 -> (..., D) float32"""
        return self._hadamard(y) * self.signs

    def _hadamard(self, y: Tensor) -> Tensor:
        for stride, length in self.passes:
            head = y[..., :length]
            pairs = head.reshape(*y.shape[:-1], length // (2 * stride), 2, stride)
            a, b = pairs[..., 0, :], pairs[..., 1, :]
            mixed = torch.stack((a + b, a - b), dim=-2).reshape(head.shape)
            y = mixed if length == y.shape[-1] else torch.cat((mixed, y[..., length:]), dim=-1)
        return y * self.scale
