"""``scalar``: signs, Hadamard, one gain byte, Lloyd-Max codes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.rotation import rotate, unrotate
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def encode(x: F32, layout: PageLayout) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: scalar.code.boundary, scale.rms, scale.byte.zero
    """
    y = rotate(x.reshape(-1, layout.head_dim), layout.codec.integer("seed"))
    scale = gain_byte(rms(y))
    z = y * reciprocal_of(scale)[:, None]
    _, thresholds = lloyd_max(layout.codec.integer("b"))
    codes = np.searchsorted(thresholds, z, side="left")  # thresholds strictly below z
    codes = np.where(scale[:, None] == 0, 0, codes)
    return {"scales": scale.astype(np.uint64), "codes": codes.astype(np.uint64)}


def coefficients(fields: dict[str, U64], layout: PageLayout) -> F32:
    """Coefficients of fields: centroid times gain.

    Rule: scalar.decode.product, scale.byte.zero
    """
    centroids, _ = lloyd_max(layout.codec.integer("b"))
    scale = fields["scales"].reshape(-1, layout.tokens, 1).astype(np.uint8)
    codes = fields["codes"].reshape(-1, layout.tokens, layout.head_dim)
    return np.where(scale == 0, np.float32(0), centroids[codes] * gain_of(scale))


def vectors(y: F32, layout: PageLayout) -> F32:
    """Vectors of coefficients.

    Rule: hadamard.scale.once
    """
    return unrotate(y.reshape(-1, layout.head_dim), layout.codec.integer("seed")).reshape(y.shape)
