"""The gain byte, and the ordered sum behind it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kakeya_ref.tables import gain_grid, gain_midpoints


def halving_sum(a: Tensor) -> Tensor:
    """Sum over the last axis: the upper half is folded onto the lower until one is left.

    Rule: num.sum.halving, num.fp32.no-fma

    Parameters
    ----------
    a : (..., n) float32

    Returns
    -------
    (...) float32
    """
    n = a.shape[-1]
    while n > 1:
        h = (n + 1) // 2
        folded = a[..., : n - h] + a[..., h:n]
        # An odd middle value waits for the next round.
        a = folded if n == 2 * h else torch.cat((folded, a[..., n - h : h]), dim=-1)
        n = h
    return a[..., 0]


class Gain:
    """Scale bytes on one device.

    Rule: scale.byte.grid, scale.byte.zero, scale.byte.midpoint, scale.byte.range,
    scale.byte.reciprocal, scale.rms, fp8.scale.up
    """

    def __init__(self, d: int, device: torch.device) -> None:
        grid, middle = gain_grid(), gain_midpoints()
        self.grid = torch.tensor(grid, device=device)
        self.reciprocals = torch.tensor(grid[-np.arange(256) % 256], device=device)
        self.middle = torch.tensor(middle[1:256], device=device)
        self.limit = torch.tensor(middle[256], device=device)
        # Held as tensors: torch on CUDA multiplies by the reciprocal of a Python divisor.
        self.count = torch.tensor(d, dtype=torch.float32, device=device)
        self.share = torch.tensor(1 / 448, dtype=torch.float32, device=device)

    def of_rms(self, y: Tensor, least: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Nearest byte of each vector's rms.

        Parameters
        ----------
        y : (N, P, D) float32
        least : (N, P) float32, optional
            Taken where the rms is less.

        Returns
        -------
        byte : (N, P) uint8
        bad : (N, P) bool
            Above the grid; NaN too, which a butterfly of infinities makes.
        """
        # torch's float32 root is not correctly rounded on every CPU (AVX2 on AMD); rounding its
        # float64 root is, since no root of a float32 lies near enough to a midpoint.
        rms = (halving_sum(y * y) / self.count).double().sqrt().float()
        if least is not None:
            rms = torch.maximum(rms, least)
        byte = torch.bucketize(rms, self.middle).to(torch.uint8)
        return byte, ~(rms <= self.limit)

    def unbiased(self, byte: Tensor, z: Tensor, found: Tensor) -> Tensor:
        """Bytes under which vectors come back as long, along themselves, as they were.

        Rule: trellis.gain.unbiased, num.sum.halving

        Parameters
        ----------
        byte : (N, P) uint8
            Under which vectors became ``z``.
        z, found : (N, P, D) float32
            Numbers and the values of their codes.

        Returns
        -------
        (N, P) uint8
        """
        along = halving_sum(z * found)
        known = (byte > 0) & (along > 0)
        gain = self.value(byte) * (halving_sum(z * z) / torch.where(known, along, 1.0))
        most = (byte.long() + 8).clamp(max=255)
        fitting = torch.minimum(torch.bucketize(gain, self.middle), most).clamp(min=1)
        return torch.where(known, fitting, byte).to(byte)

    def of_peak(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Smallest byte that brings the largest magnitude to 448 or less.

        Returns
        -------
        byte : (N, P) uint8
        bad : (N, P) bool
        """
        peak = x.abs().amax(dim=-1)
        gain = peak * self.share
        byte = 1 + torch.bucketize(gain, self.grid[1:])
        # A subnormal peak may give gain 0 and is still no zero vector.
        byte = torch.where(peak == 0, 0, byte.clamp(max=255)).to(torch.uint8)
        return byte, gain > self.grid[255]

    def value(self, byte: Tensor) -> Tensor:
        """Gain of each byte, 0 for byte 0. uint8 -> float32"""
        return self.grid[byte.int()]

    def reciprocal(self, byte: Tensor) -> Tensor:
        """``S[256 - b]``, 0 for byte 0: encoders multiply, never divide. uint8 -> float32"""
        return self.reciprocals[byte.int()]
