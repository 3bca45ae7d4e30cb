"""``trellis``: signs, Hadamard, one gain byte, codes that walk through a trellis."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import trellis
from kakeya_ref.numerics import halving_sum
from kakeya_ref.rotation import rotate, unrotate
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.tables import gain_midpoints
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]

# Most steps of the grid that a scale byte is raised by.
OCTAVE = 8


def encode(x: F32, layout: PageLayout) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: trellis.search.branch, scale.rms, scale.byte.zero
    """
    y = rotate(x.reshape(-1, layout.head_dim), layout.codec.integer("seed"))
    scale = gain_byte(rms(y))
    z = y * reciprocal_of(scale)[:, None]
    codes = np.concatenate([trellis.search(part, bits_of(layout)) for part in _parts(z)])
    codes[scale == 0] = 0
    if layout.codec["gain"] == "unbiased":
        scale = _unbiased(scale, z, trellis.values(codes, bits_of(layout)))
    return {"scales": scale.astype(np.uint64), "codes": codes}


def _unbiased(scale: NDArray[np.uint8], z: F32, found: F32) -> NDArray[np.uint8]:
    """Scale bytes under which vectors come back as long, along themselves, as they were.

    Rule: trellis.gain.unbiased, num.sum.halving

    Parameters
    ----------
    scale : (M,) uint8
        Under which vectors became ``z``.
    z, found : (M, D) float32
        Numbers and the values of their codes.
    """
    along = halving_sum(z * found)
    known = (scale > 0) & (along > 0)
    with np.errstate(over="ignore"):
        gain = gain_of(scale) * (halving_sum(z * z) / np.where(known, along, 1).astype(np.float32))
    byte = np.searchsorted(gain_midpoints()[1:256], gain, side="left")
    most = np.minimum(scale.astype(np.int64) + OCTAVE, 255)
    return np.where(known, byte.clip(1, most), scale).astype(np.uint8)


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
