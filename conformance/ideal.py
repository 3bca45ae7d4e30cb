"""Decoding in float64, from fields, tables beside them and the tables of the spec alone.

Shares no arithmetic with the reference, so it judges the reference as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance.oracle import sign_flips, transform
from kakeya_conformance.pages import Fields
from kakeya_conformance.tables import numbers_of
from kakeya_conformance.walks import walked
from kakeya_ref.layout import residual_width
from kakeya_ref.skeletons import Parts, Skeleton, widen16
from kakeya_ref.tables import gain_grid, lloyd_max
from kakeya_ref.types import PageLayout

F64 = NDArray[np.float64]


def coefficients(layout: PageLayout, fields: Fields) -> F64:
    """Ideal coefficients of ``fp8``, ``int``, ``scalar`` and ``trellis``.

    Rule: fp8.decode.product, int.decode.affine, scalar.decode.product, trellis.decode.product

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
    if layout.codec.id == "trellis":
        return walked(codes, layout.codec.integer("b")) * gain
    product: F64 = _e4m3(codes) * gain
    return product


def vectors(layout: PageLayout, fields: Fields, tables: Skeleton) -> F64:
    """Ideal vectors of ``skeleton`` and ``turbo``: matrix products in float64.

    Rule: skeleton.decode.sum, skeleton.decode.synthesis, turbo.decode.product, turbo.decode.sum,
    turbo.decode.synthesis

    Returns
    -------
    (N, P, D) float64
    """
    pages, n = [], len(fields["proj"])
    for at, (part, _) in enumerate(numbers_of(tables, layout, n)):
        one = {name: values[at] for name, values in fields.items()}
        seg = one.get("seg", np.zeros(layout.tokens, np.uint64)).astype(np.int64)
        c = _stored(layout, one, "proj")[:, None] * part.centres[seg]
        if "along" in one:
            c = c + _stored(layout, one, "along")[:, None] * part.trend
        rest = _sparse(layout, one) if layout.codec.id == "skeleton" else _rest(layout, one, part)
        pages.append((c + rest) @ part.basis.astype(np.float64) + part.mean)
    return np.array(pages)


def _stored(layout: PageLayout, one: Fields, name: str) -> F64:
    return widen16(one[name].astype(np.uint16), str(layout.codec["store"])).astype(np.float64)


def _sparse(layout: PageLayout, one: Fields) -> F64:
    """Residual of ``skeleton``: kept numbers at their places."""
    value = _stored(layout, one, "value").reshape(layout.tokens, -1)
    rest = np.zeros((layout.tokens, layout.codec.integer("rank")))
    place = one.get("place", np.tile(np.arange(value.shape[1], dtype=np.uint64), layout.tokens))
    np.put_along_axis(rest, place.astype(np.int64).reshape(value.shape), value, axis=1)
    return rest


def _rest(layout: PageLayout, one: Fields, part: Parts) -> F64:
    """Residual of ``turbo``: levels and outliers times the gain, rotated back."""
    width, seed = residual_width(layout.codec), layout.codec.integer("seed")
    levels = part.levels if part.levels.size else lloyd_max(layout.codec.integer("b"))[0]
    z = levels.astype(np.float64)[one["codes"].astype(np.int64)]
    if "outplace" in one:
        z[one["outplace"].astype(np.int64)] = _stored(layout, one, "outvalue")
    gain = gain_grid().astype(np.float64)[one["scales"].astype(np.int64)]
    y = z.reshape(-1, width) * gain[:, None]
    rest: F64 = (transform(y) * sign_flips(seed, width))[:, : layout.codec.integer("rank")]
    return rest


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
