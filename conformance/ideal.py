"""Coefficients in float64, from the fields of a page and the tables of the spec alone.

Shares no arithmetic with the reference, so it judges the reference as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.pages import Fields
from kakeya_ref.tables import gain_grid, lloyd_max
from kakeya_ref.types import PageLayout

F64 = NDArray[np.float64]


def coefficients(layout: PageLayout, fields: Fields) -> F64:
    """Ideal coefficients of ``fp8``, ``int`` and ``scalar``: one product, or a product and a sum.

    Rule: fp8.decode.product, int.decode.affine, scalar.decode.product

    Returns
    -------
    (N, P, D) float64
    """
    shape = (-1, layout.tokens, layout.head_dim)
    codes = fields["codes"].astype(np.int64).reshape(shape)
    if layout.codec.id == "int":
        lo, step = (_spread(layout, fields[name]) for name in ("lo", "step"))
        affine: F64 = lo + codes * step
        return affine
    gain = gain_grid().astype(np.float64)[fields["scales"].astype(np.int64)][..., None]
    if layout.codec.id == "scalar":
        centroids: F64 = lloyd_max(layout.codec.integer("b"))[0].astype(np.float64)
        return centroids[codes] * gain
    product: F64 = _e4m3(codes) * gain
    return product


def _e4m3(codes: NDArray[np.int64]) -> F64:
    exponent, fraction = codes >> 3 & 15, codes & 7
    magnitude = np.where(
        exponent == 0, np.ldexp(fraction, -9), np.ldexp(8.0 + fraction, exponent - 10)
    )
    value: F64 = np.where(codes & 128, -magnitude, magnitude)
    return value


def _spread(layout: PageLayout, bits: NDArray[np.uint64]) -> F64:
    """A parameter of each group at every element of the group, (N, P, D)."""
    g, p, d = layout.codec.integer("g"), layout.tokens, layout.head_dim
    values = bits.astype(np.uint16).view(np.float16).astype(np.float64)
    if layout.codec["axis"] == "token":
        return np.repeat(values.reshape(-1, p, -(-d // g)), g, axis=2)[:, :, :d]
    return np.repeat(values.reshape(-1, -(-p // g), d), g, axis=1)[:, :p]
