"""``e8``: signs, Hadamard, one gain byte, the nearest point of E8 inside a cube per block of 8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import lattice
from kakeya_ref.layout import lattice_count
from kakeya_ref.rotation import rotate, unrotate
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.tables import lattice_step
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def encode(x: F32, layout: PageLayout) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: e8.nearest.inside, e8.nearest.tie, e8.coset.tie, e8.index.bijective, e8.step.table,
    scale.rms, scale.byte.zero
    """
    d, q = layout.head_dim, layout.codec.integer("q")
    y = rotate(x.reshape(-1, d), layout.codec.integer("seed"))
    scale = gain_byte(rms(y))
    _, kinv = lattice_step("e8", q)
    z = y * (reciprocal_of(scale) * kinv)[:, None]
    half, c = lattice.nearest_e8(z.reshape(-1, 8), q)
    offset = np.uint64(((2 * q + 1) ** 8 + 1) // 2)
    index = np.where(half, offset + lattice.rank_half(c, q), lattice.rank_even(c, q))
    index = np.where(np.repeat(scale == 0, d // 8), np.uint64(0), index)
    return {"scales": scale.astype(np.uint64), "index": index}


def coefficients(fields: dict[str, U64], layout: PageLayout) -> F32:
    """Coefficients of fields: lattice point times step.

    Rule: e8.decode.product, e8.index.range, e8.index.bijective, scale.byte.zero

    Raises
    ------
    Malformed
        An index that names no point.
    """
    q, index = layout.codec.integer("q"), fields["index"].ravel()
    lattice.check_range(index, lattice_count(layout.codec), "e8.index.range")
    offset = np.uint64(((2 * q + 1) ** 8 + 1) // 2)
    half = index >= offset
    whole = lattice.unrank_even(np.where(half, np.uint64(0), index), q, 8).astype(np.float32)
    shifted = lattice.unrank_half(np.where(half, index - offset, np.uint64(0)), q)
    point = np.where(half[:, None], shifted.astype(np.float32) + np.float32(0.5), whole)
    point = point.reshape(-1, layout.tokens, layout.head_dim)
    scale = fields["scales"].reshape(-1, layout.tokens, 1).astype(np.uint8)
    kappa, _ = lattice_step("e8", q)
    return np.where(scale == 0, np.float32(0), point * (gain_of(scale) * kappa))


def vectors(y: F32, layout: PageLayout) -> F32:
    """Vectors of coefficients.

    Rule: hadamard.scale.once
    """
    return unrotate(y.reshape(-1, layout.head_dim), layout.codec.integer("seed")).reshape(y.shape)
