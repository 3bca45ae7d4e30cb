"""What the suite compares with: the reference, remembered, and an independent float64 ideal."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.tables import option
from kakeya_ref.backend import ReferenceBackend
from kakeya_ref.errors import KakeyaError
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import Basis, PageLayout

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
U8 = NDArray[np.uint8]
ROTATED = frozenset({"scalar", "d4", "e8", "trellis"})
GAINED = frozenset({"fp8", "scalar", "d4", "e8", "trellis"})
KEPT = 256


@dataclass
class Oracle:
    """The reference with a memory: the same question is computed once."""

    reference: ReferenceBackend = field(default_factory=ReferenceBackend)
    _kept: OrderedDict[Any, Any] = field(default_factory=OrderedDict)

    def encode(
        self, x: NDArray[Any], layout: PageLayout, tables: Skeleton | None = None
    ) -> U8 | KakeyaError:
        """Pages, or the error that the reference raises."""
        key = ("encode", layout, _words(tables), x.dtype.str, x.shape, x.tobytes())
        pages: U8 | KakeyaError = self._remember(
            key, lambda: self.reference.encode(x, layout, **option(tables))
        )
        return pages

    def decode(
        self,
        pages: U8,
        layout: PageLayout,
        basis: Basis = "vectors",
        tables: Skeleton | None = None,
    ) -> F32 | KakeyaError:
        """Floats, or the error that the reference raises."""
        key = ("decode", layout, _words(tables), basis, pages.shape, pages.tobytes())
        floats: F32 | KakeyaError = self._remember(
            key, lambda: self.reference.decode(pages, layout, basis=basis, **option(tables))
        )
        return floats

    def _remember(self, key: Any, compute: Any) -> Any:
        if key not in self._kept:
            try:
                value = compute()
                value.setflags(write=False)
            except KakeyaError as error:
                value = error
            self._kept[key] = value
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


def _words(tables: Skeleton | None) -> tuple[bytes, ...]:
    """Tables as a key."""
    arrays = () if tables is None else (tables.bodies, tables.analysis)
    return tuple(b"" if array is None else array.tobytes() for array in arrays)


def blocks(d: int) -> list[int]:
    """Power-of-two block lengths, largest first. Rule: hadamard.blocks.largest-first"""
    out = []
    while d:
        n = 1 << (d.bit_length() - 1)
        out.append(n)
        d -= n
    return out


def sign_flips(seed: int, d: int) -> F64:
    """Signs from SplitMix64, written a second time. Rule: signs.splitmix64.top-bit"""
    if seed == 0:
        return np.ones(d)
    mask = (1 << 64) - 1
    flips = np.empty(d)
    for i in range(d):
        z = (seed + (i + 1) * 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        flips[i] = -1.0 if (z ^ (z >> 31)) >> 63 else 1.0
    return flips


@cache
def hadamard_matrix(n: int) -> F64:
    """Orthonormal Sylvester matrix: entry ``(-1)^popcount(i & j) / sqrt(n)``."""
    h = np.ones((1, 1))
    while len(h) < n:
        h = np.block([[h, h], [h, -h]])
    out: F64 = h / np.sqrt(n)
    return out


def transform(y: F64) -> F64:
    """Block Hadamard of the last axis by dense matrices. Rule: hadamard.scale.once"""
    out, start = np.empty_like(y), 0
    for n in blocks(y.shape[-1]):
        out[..., start : start + n] = y[..., start : start + n] @ hadamard_matrix(n)
        start += n
    return out


def ideal_vectors(coefficients: NDArray[Any], layout: PageLayout) -> F64:
    """Vectors of coefficients in float64, by dense matrices. Rule: hadamard.scale.once"""
    y = coefficients.astype(np.float64)
    if layout.codec.id not in ROTATED:
        return y
    return transform(y) * sign_flips(layout.codec.integer("seed"), layout.head_dim)


def ideal_coefficients(x: NDArray[Any], layout: PageLayout) -> F64:
    """Coded-basis coordinates of vectors in float64. Rule: hadamard.scale.once"""
    wide = x.astype(np.float64)
    if layout.codec.id not in ROTATED:
        return wide
    return transform(wide * sign_flips(layout.codec.integer("seed"), layout.head_dim))
