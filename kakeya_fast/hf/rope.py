"""Rotary positions as a thing of their own: turning vectors back to a frame, and moments with them.

A rotary embedding turns pairs of numbers by ``position * frequency``. Turning is linear and
relative: ``R(a) R(b) = R(a + b)``, and ``R(f) q · R(f) k = q · k``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Rope:
    """The rotary embedding of one layer.

    Attributes
    ----------
    frequencies : tuple of float
        Radians per position of each pair; empty where positions do not turn keys at all.
    interleaved : bool
        Pairs are neighbours ``(2i, 2i + 1)``; otherwise the halves of the part that turns,
        ``(i, i + n)``. Numbers behind ``2 n`` do not turn.
    """

    frequencies: tuple[float, ...]
    interleaved: bool = False

    def turned(self, x: Tensor, positions: Tensor) -> Tensor:
        """``R(positions) x``.

        Parameters
        ----------
        x : (..., D)
        positions : integer or float, broadcasting with the leading axes of ``x``

        Returns
        -------
        (..., D), dtype of ``x``; angles are computed in float64.
        """
        if not self.frequencies:
            return x
        return self.turned_by(x, self.waves(positions.to(x.device), x.dtype))

    def waves(self, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Cosines and sines (..., n) of the angles of all pairs at some positions."""
        turn = torch.tensor(self.frequencies, dtype=torch.float64, device=positions.device)
        angle = positions.to(torch.float64)[..., None] * turn
        return angle.cos().to(dtype), angle.sin().to(dtype)

    def turned_by(self, x: Tensor, waves: tuple[Tensor, Tensor]) -> Tensor:
        """``R(positions) x``, by the waves of these positions."""
        cos, sin = waves
        n = len(self.frequencies)
        if self.interleaved:
            a, b = x[..., 0 : 2 * n : 2], x[..., 1 : 2 * n : 2]
            both = torch.stack([a * cos - b * sin, b * cos + a * sin], -1).flatten(-2)
        else:
            a, b = x[..., :n], x[..., n : 2 * n]
            both = torch.cat([a * cos - b * sin, b * cos + a * sin], -1)
        # Positions may have axes that the vectors lack.
        rest = x[..., 2 * n :].expand(*both.shape[:-1], -1)
        return torch.cat([both, rest], -1)

    def rows(self, positions: Tensor, size: int, dtype: torch.dtype) -> Tensor:
        """Left factors of vectors of ``size`` numbers that are turned to some positions.

        ``R(positions) x @ matrix`` is ``rows(positions) @ factors(x, matrix)``: turning is linear
        in the waves of a position, so what many positions make of a vector is one product.

        Returns
        -------
        (..., W): cosines, sines, and 1 where there are numbers that do not turn.
        """
        cos, sin = self.waves(positions, dtype)
        rest = cos.new_ones(*cos.shape[:-1], min(1, size - 2 * len(self.frequencies)))
        return torch.cat([cos, sin, rest], -1)

    def factors(self, x: Tensor, matrix: Tensor) -> Tensor:
        """Right factors to :meth:`rows`.

        Parameters
        ----------
        x : (B, H, M, D)
        matrix : (H, D, E)

        Returns
        -------
        (B, W, H, M, E)
        """
        n = len(self.frequencies)
        first, second = slice(0, 2 * n, 2), slice(1, 2 * n, 2)
        if not self.interleaved:
            first, second = slice(0, n), slice(n, 2 * n)
        x, matrix = x.permute(0, 3, 1, 2)[..., None], matrix.transpose(0, 1)[:, :, None]
        a, b, by_a, by_b = x[:, first], x[:, second], matrix[first], matrix[second]
        rest = min(1, x.shape[1] - 2 * n)
        out = x.new_empty(len(x), 2 * n + rest, *x.shape[2:4], matrix.shape[-1])
        torch.mul(a, by_a, out=out[:, :n]).addcmul_(b, by_b)
        torch.mul(a, by_b, out=out[:, n : 2 * n]).addcmul_(b, by_a, value=-1)
        if rest:
            out[:, 2 * n] = (x[:, 2 * n :] * matrix[2 * n :]).sum(1)
        return out

    def pairs(self, size: int) -> tuple[NDArray[np.int64], NDArray[np.int64], F64]:
        """Indices of both numbers of every pair of ``size`` numbers, and its frequency.

        Numbers that do not turn are paired up, at frequency 0.
        """
        n = len(self.frequencies)
        first = np.arange(0, 2 * n, 2) if self.interleaved else np.arange(n)
        second = first + (1 if self.interleaved else n)
        rest = np.arange(2 * n, size)
        a = np.concatenate([first, rest[0::2]])
        b = np.concatenate([second, rest[1::2]])
        return a, b, np.concatenate([self.frequencies, np.zeros(len(rest) // 2)])


@dataclass(frozen=True)
class Spread:
    """Where something stands: positions ``0 .. whole - 1``, or anywhere up to ``reach``.

    Attributes
    ----------
    whole : int
        Number of whole positions, all equally likely.
    reach : float
        If above 0, ``far`` of the weight lies evenly on ``0 .. reach`` instead.
    far : float
    """

    whole: int
    reach: float = 0.0
    far: float = 0.0

    def wave(self, frequency: F64) -> NDArray[np.complex128]:
        """Mean of ``exp(i * frequency * position)``."""
        at = np.arange(self.whole)
        near = np.exp(1j * frequency[..., None] * at).mean(-1)
        if not self.far:
            return near
        angle = frequency * self.reach
        safe = np.where(np.abs(angle) < 1e-9, 1, angle)
        even = np.where(np.abs(angle) < 1e-9, 1, (np.exp(1j * angle) - 1) / (1j * safe))
        return (1 - self.far) * near + self.far * even


@lru_cache(maxsize=8)
def _waves(rope: Rope, spread: Spread, size: int) -> tuple[NDArray[np.complex128], ...]:
    """Mean waves of the pairs, of their differences and of their sums."""
    _, _, frequency = rope.pairs(size)
    both = frequency[:, None] - frequency, frequency[:, None] + frequency
    return spread.wave(frequency), spread.wave(both[0]), spread.wave(both[1])


def turned_moments(mean: F64, second: F64, rope: Rope, spread: Spread) -> tuple[F64, F64]:
    """Mean and second moment of vectors after each was turned to a random place.

    Pairs become complex numbers, turning a product with ``exp(i angle)``; so every entry of a
    moment is multiplied by the mean of one wave, whatever the number of positions.

    Parameters
    ----------
    mean : (D,)
    second : (D, D)
        ``E[x xᵀ]`` before turning.
    spread : Spread
        Distribution of the positions, independent of the vectors.
    """
    a, b, _ = rope.pairs(len(mean))
    once, apart, along = _waves(rope, spread, len(mean))
    z = (mean[a] + 1j * mean[b]) * once
    moved = np.zeros_like(mean)
    moved[a], moved[b] = z.real, z.imag
    aa, bb, ab = second[np.ix_(a, a)], second[np.ix_(b, b)], second[np.ix_(a, b)]
    plain = (aa + bb + 1j * (ab.T - ab)) * apart
    twice = (aa - bb + 1j * (ab + ab.T)) * along
    out = np.zeros_like(second)
    out[np.ix_(a, a)] = (plain + twice).real / 2
    out[np.ix_(b, b)] = (plain - twice).real / 2
    cross = (twice - plain).imag / 2
    out[np.ix_(a, b)], out[np.ix_(b, a)] = cross, cross.T
    return moved, out
