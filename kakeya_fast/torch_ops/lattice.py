"""``d4`` and ``e8``: the nearest lattice point inside a cube, by block of 4 or 8 coefficients."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.torch_ops.gain import Gain, halving_sum
from kakeya_fast.torch_ops.pages import read_field
from kakeya_fast.torch_ops.rotate import Rotation
from kakeya_ref.layout import LATTICE_BLOCK, lattice_count
from kakeya_ref.tables import lattice_step
from kakeya_ref.types import PageLayout


def nearest_even(w: Tensor, low: int, high: int) -> tuple[Tensor, Tensor]:
    """Nearest integer point of even sum with every coordinate in ``low..high``.

    Rule: d4.nearest.inside, d4.nearest.tie, e8.nearest.inside, e8.nearest.tie

    Differs: blocks are columns, so that every operation runs over long rows; the coordinate to
    move is found as the first row that reaches the greatest gain.

    Parameters
    ----------
    w : (n, M) float32

    Returns
    -------
    c : (n, M) float32, whole numbers
    cost : (M,) float32
    """
    c = w.round().clamp(low, high)
    e = w - c
    up = e >= 0
    up = up ^ ((up & (c == high)) | (~up & (c == low)))
    d = up.float() * 2.0 - 1.0
    gain = d * e
    greatest = gain == gain.amax(dim=0)
    # Whole numbers up to 8 * 110: their sum is exact in any order.
    free = (c.sum(dim=0).to(torch.int32) & 1).bool()
    moves = []
    for row in greatest.unbind(0):
        moves.append(row & free)
        free = free & ~row
    c = c + d * torch.stack(moves)
    e = w - c
    return c, halving_sum((e * e).t())


def rank(digits: Tensor, base: int) -> Tensor:
    """Mixed-radix value, first digit most significant. (n, M) int64 -> (M,) int64"""
    value = digits[0]
    for row in digits[1:].unbind(0):
        value = value * base + row
    return value


def unrank(value: Tensor, base: int, n: int) -> list[Tensor]:
    """Inverse of :func:`rank`. (M,) int64 -> n digits, (M,) int64 each"""
    digits = []
    for _ in range(n):
        high = value // base
        digits.append(value - high * base)
        value = high
    return digits[::-1]


class Lattice:
    """Fields of ``d4`` and ``e8`` pages.

    Rule: d4.index.bijective, d4.index.range, d4.decode.product, d4.step.table,
    e8.index.bijective, e8.index.range, e8.decode.product, e8.step.table, e8.coset.tie,
    scale.rms, scale.byte.zero
    """

    encode_rule = "scale.byte.range"
    encode_fault = "the gain of a vector is above the grid"

    def __init__(self, layout: PageLayout, device: torch.device) -> None:
        codec = layout.codec
        self.layout = layout
        self.q, self.block = codec.integer("q"), LATTICE_BLOCK[codec.id]
        self.count = lattice_count(codec)
        self.whole_count = ((2 * self.q + 1) ** self.block + 1) // 2
        self.decode_rule = f"{codec.id}.index.range"
        self.decode_fault = f"an index is not below {self.count}"
        self.gain = Gain(layout.head_dim, device)
        self.rotation = Rotation(layout.head_dim, codec.integer("seed"), device)
        kappa, inverse = lattice_step(codec.id, self.q)
        self.kappa = torch.tensor(kappa, device=device)
        self.inverse = torch.tensor(inverse, device=device)

    def fields(self, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """(N, P, D) float32 -> fields, bad (N, P) bool"""
        y = self.rotation.forward(x)
        byte, bad = self.gain.of_rms(y)
        z = y * (self.gain.reciprocal(byte) * self.inverse)[..., None]
        columns = z.reshape(-1, self.block).t().contiguous()
        index = self._index(columns).reshape(*byte.shape, -1)
        index = torch.where(byte[..., None] == 0, 0, index)
        return {"scales": byte, "index": index.flatten(1)}, bad

    def _index(self, z: Tensor) -> Tensor:
        """Index of the nearest point of each block. (block, M) float32 -> (M,) int64"""
        q = self.q
        c, cost = nearest_even(z, -q, q)
        index = rank(c.long() + q, 2 * q + 1) >> 1
        if self.block == 4:
            return index
        c, half_cost = nearest_even(z - 0.5, -q, q - 1)
        u = c.long() + q
        half = rank(u[:7], 2 * q) * q + (u[7] >> 1) + self.whole_count
        return torch.where(half_cost < cost, half, index)

    def coefficients(self, pages: Tensor) -> tuple[Tensor, Tensor]:
        """(N, nbytes) uint8 -> (N, P, D) float32, bad (N, P) bool"""
        byte = read_field(self.layout, pages, "scales", torch.uint8)[:, 0, :, None]
        index = read_field(self.layout, pages, "index", torch.int64)
        bad = (index >= self.count).reshape(*byte.shape[:2], -1).any(dim=2)
        point = self._point(index.flatten()).t().reshape(*byte.shape[:2], -1)
        y = point * (self.gain.value(byte) * self.kappa)
        return torch.where(byte == 0, 0.0, y), bad

    def _point(self, index: Tensor) -> Tensor:
        """Lattice point of each index. (M,) int64 -> (block, M) float32"""
        q = self.q
        is_half = index >= self.whole_count
        whole = unrank(torch.where(is_half, 0, index * 2), 2 * q + 1, self.block)
        if self.block == 4:
            return torch.stack([(u - q).float() for u in whole])
        rest = torch.where(is_half, index - self.whole_count, 0)
        high = rest // q
        half = unrank(high, 2 * q, 7)
        # The sum of a half-odd point's integers is even: seven digits tell the last one's parity.
        half.append(2 * (rest - high * q) + (sum(half) & 1))
        rows = zip(whole, half, strict=True)
        return torch.stack(
            [torch.where(is_half, (h - q).float() + 0.5, (u - q).float()) for u, h in rows]
        )

    def vectors(self, y: Tensor) -> Tensor:
        """(N, P, D) coefficients -> (N, P, D) vectors, float32"""
        return self.rotation.inverse(y)
