"""``fp8``: e4m3 numbers under one gain byte per vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import Malformed
from kakeya_ref.numerics import e4m3_values, round_e4m3
from kakeya_ref.scaling import gain_byte_above, gain_of, reciprocal_of
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def encode(x: F32, layout: PageLayout) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: fp8.scale.up, fp8.code.round, scale.byte.zero
    """
    rows = x.reshape(-1, layout.head_dim)
    peak = np.abs(rows).max(axis=1, initial=0.0)
    # A subnormal peak may give gain 0 and is still no zero vector.
    scale = np.where(peak == 0, np.uint8(0), gain_byte_above(peak * np.float32(1 / 448)))
    codes = round_e4m3(rows * reciprocal_of(scale)[:, None])
    codes = np.where(scale[:, None] == 0, np.uint8(0), codes)  # a -0 would leave its sign bit
    return {"scales": scale.astype(np.uint64), "codes": codes.astype(np.uint64)}


def coefficients(fields: dict[str, U64], layout: PageLayout) -> F32:
    """Coefficients of fields: code value times gain.

    Rule: fp8.decode.product, fp8.code.nan, scale.byte.zero

    Raises
    ------
    Malformed
        A NaN code.
    """
    codes = fields["codes"].reshape(-1, layout.tokens, layout.head_dim)
    if ((codes & np.uint64(0x7F)) == 0x7F).any():
        raise Malformed("fp8.code.nan", "a stored code is the e4m3 NaN")
    scale = fields["scales"].reshape(-1, layout.tokens, 1).astype(np.uint8)
    y = e4m3_values()[codes] * gain_of(scale)
    return np.where(scale == 0, np.float32(0), y)


def vectors(y: F32, layout: PageLayout) -> F32:
    """The coded basis is the identity."""
    return y
