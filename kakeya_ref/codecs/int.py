"""``int``: min/max integers in groups along a token's channels or along a channel's tokens."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import Malformed
from kakeya_ref.numerics import float_bits, round_f16
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def _group_of(layout: PageLayout) -> NDArray[np.int64]:
    """(P, D) index of the group every element belongs to, in the order of planes lo and step."""
    p, d, g = layout.tokens, layout.head_dim, layout.codec.integer("g")
    token, channel = np.indices((p, d))
    if layout.codec["axis"] == "token":
        return token * -(-d // g) + channel // g
    return token // g * d + channel


def encode(x: F32, layout: PageLayout) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: int.range.f16, int.code.clamp, int.lo.positive-zero

    Raises
    ------
    RangeError
        A group's minimum or step does not fit float16.
    """
    group = _group_of(layout)
    order = np.argsort(group.ravel(), kind="stable")
    starts = np.flatnonzero(np.diff(group.ravel()[order], prepend=-1))
    levels = np.float32(2 ** layout.codec.integer("b") - 1)
    members = x.reshape(len(x), -1)[:, order]
    lo: F32 = np.minimum.reduceat(members, starts, axis=1)
    hi: F32 = np.maximum.reduceat(members, starts, axis=1)
    with np.errstate(over="ignore"):
        # +0: a group of zeros of both signs must not get the step -0, which no decoder takes.
        step = (hi - lo + np.float32(0)) / levels
    # min() may return either zero; adding +0 makes the stored byte a function of the values.
    lo16 = round_f16(lo + np.float32(0), "int.range.f16") + np.float16(0)
    step16 = round_f16(step, "int.range.f16")
    base, width = lo16.astype(np.float32)[:, group], step16.astype(np.float32)[:, group]
    safe = np.where(width == 0, np.float32(1), width)
    codes = np.clip(np.rint((x - base) / safe), np.float32(0), levels)
    codes = np.where(width == 0, np.float32(0), codes)
    return {
        "lo": float_bits(lo16),
        "step": float_bits(step16),
        "codes": codes.astype(np.uint64),
    }


def coefficients(fields: dict[str, U64], layout: PageLayout) -> F32:
    """Coefficients of fields: ``lo + code * step``, a multiply then an add.

    Rule: int.decode.affine, int.params.finite

    Raises
    ------
    Malformed
        A minimum or step that is not finite, or a negative step.
    """
    lo16 = fields["lo"].astype(np.uint16).view(np.float16)
    step16 = fields["step"].astype(np.uint16).view(np.float16)
    if not (np.isfinite(lo16).all() and np.isfinite(step16).all()) or np.signbit(step16).any():
        raise Malformed("int.params.finite", "a stored minimum or step is not finite, or step < 0")
    group = _group_of(layout)
    codes = fields["codes"].reshape(-1, layout.tokens, layout.head_dim).astype(np.float32)
    product = codes * step16.astype(np.float32)[:, group]
    out: F32 = lo16.astype(np.float32)[:, group] + product
    return out


def vectors(y: F32, layout: PageLayout) -> F32:
    """The coded basis is the identity."""
    return y
