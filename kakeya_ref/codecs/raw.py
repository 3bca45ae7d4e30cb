"""``raw``: the numbers themselves. Separates cache logic from codec logic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import Malformed
from kakeya_ref.numerics import float_bits, round_bf16, round_f16, widen_bf16
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def encode(x: F32, layout: PageLayout) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: raw.range, num.round.half-even
    """
    dtype = layout.codec["dtype"]
    if dtype == "f16":
        return {"values": float_bits(round_f16(x, "raw.range"))}
    if dtype == "bf16":
        return {"values": round_bf16(x, "raw.range").astype(np.uint64)}
    return {"values": float_bits(x)}


def coefficients(fields: dict[str, U64], layout: PageLayout) -> F32:
    """Values of fields.

    Rule: raw.code.finite

    Raises
    ------
    Malformed
        A NaN or infinity pattern, which no encoder writes.
    """
    dtype, bits = layout.codec["dtype"], fields["values"]
    if dtype == "f16":
        x = bits.astype(np.uint16).view(np.float16).astype(np.float32)
    elif dtype == "bf16":
        x = widen_bf16(bits.astype(np.uint16))
    else:
        x = bits.astype(np.uint32).view(np.float32)
    if not np.isfinite(x).all():
        raise Malformed("raw.code.finite", "a stored value is NaN or infinite")
    return x.reshape(len(x), layout.tokens, layout.head_dim)


def vectors(y: F32, layout: PageLayout) -> F32:
    """The coded basis is the identity."""
    return y
