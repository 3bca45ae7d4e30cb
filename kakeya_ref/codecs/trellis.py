"""``trellis``: signs, Hadamard, one gain byte, codes that walk through a trellis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import trellis
from kakeya_ref.rotation import rotate, unrotate
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def encode(x: F32, layout: PageLayout) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: trellis.search.branch, scale.rms, scale.byte.zero
    """
    y = rotate(x.reshape(-1, layout.head_dim), layout.codec.integer("seed"))
    scale = gain_byte(rms(y))
    z = y * reciprocal_of(scale)[:, None]
    codes = np.concatenate([trellis.search(part, bits_of(layout)) for part in _parts(z)])
    codes[scale == 0] = 0
    return {"scales": scale.astype(np.uint64), "codes": codes}


def coefficients(fields: dict[str, U64], layout: PageLayout) -> F32:
    """Coefficients of fields: value times gain.

    Rule: trellis.decode.product, scale.byte.zero
    """
    scale = fields["scales"].reshape(-1, 1).astype(np.uint8)
    found = trellis.values(fields["codes"].reshape(-1, layout.head_dim), bits_of(layout))
    y = np.where(scale == 0, np.float32(0), found * gain_of(scale))
    return y.reshape(-1, layout.tokens, layout.head_dim)


def vectors(y: F32, layout: PageLayout) -> F32:
    """Vectors of coefficients.

    Rule: hadamard.scale.once
    """
    return unrotate(y.reshape(-1, layout.head_dim), layout.codec.integer("seed")).reshape(y.shape)


def bits_of(layout: PageLayout) -> NDArray[np.int64]:
    """Bits of each code of a token."""
    return np.full(layout.head_dim, layout.codec.integer("b"), dtype=np.int64)


def _parts(z: F32) -> list[F32]:
    """Vectors in parts of at most 1024: the survivors of a large call would fill the memory."""
    return [z[at : at + 1024] for at in range(0, len(z), 1024)]
