"""One page through ``skeleton`` or ``turbo``, step by step, apart from the codec's arithmetic.

The steps are repeated here in float64 on the numbers of the fitted table; only what the format
stores in few bits (projections, gain bytes, codes, outliers) is rounded as it is stored.

Two errors that once stood in public code can be injected into ``turbo``'s residual:

* ``scale``: the scale ``sqrt(w) / |r|`` of an orthonormal transform used with a plain one, so that
  a quantiser made for N(0, 1) sees a deviation of ``sqrt(w)``;
* ``norm``: a decoder that never reads the stored size of the residual and takes it for 1.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.fitting import Fit
from kakeya_ref.layout import residual_kept, residual_width
from kakeya_ref.skeletons import Parts, narrow16, parts, widen16
from kakeya_ref.tables import gain_grid, gain_midpoints, lloyd_max, signs
from kakeya_ref.types import Codec

F32, F64 = NDArray[np.float32], NDArray[np.float64]


def trace(x: F32, fitted: Fit, codec: Codec, inject: str = "") -> Iterator[tuple[str, F64]]:
    """Name and reconstruction (R, D) float64 after each stage of one page.

    Parameters
    ----------
    x : (R, D) float32
    fitted : Fit
    codec : Codec
        Of this page: with its outliers.
    inject : str
        Empty, ``scale`` or ``norm``.
    """
    table = _wide(parts(fitted.tables.bodies[0], codec, x.shape[1]))
    analysis = table["basis"]
    if fitted.tables.analysis is not None:
        analysis = fitted.tables.analysis[0].astype(np.float64)
    store = str(codec["store"])

    def vectors(c: F64) -> F64:
        return c @ table["basis"] + table["mean"]

    c = (x.astype(np.float64) - table["mean"]) @ analysis.T
    yield "principal components", vectors(c)
    known = np.zeros_like(c)
    if table["trend"].size:
        along = _stored(c @ table["trend"], store)
        known = along[:, None] * table["trend"]
        yield "trend", vectors(known)
    dots = (c - known) @ table["centres"].T
    own = np.abs(dots).argmax(axis=1)
    near = _stored(dots[np.arange(len(c)), own], store)
    known = known + near[:, None] * table["centres"][own]
    yield "centres", vectors(known)
    rest = c - known
    if codec.id == "skeleton":
        yield "sparse residual", vectors(known + _sparse(rest, codec))
        return
    turn = rotation(residual_width(codec), codec.integer("seed"))[: c.shape[1]]
    y = rest @ turn
    yield "residual, unquantised", vectors(known + y @ turn.T)
    for name, found in _quantise(y, codec, table["levels"], inject):
        yield name, vectors(known + found @ turn.T)


def rotation(width: int, seed: int) -> F64:
    """``M`` (width, width) with ``rotated = padded @ M``: signs, then orthonormal Hadamard blocks.

    Rule: hadamard.blocks.largest-first, hadamard.order.strides, signs.splitmix64.top-bit
    """
    matrix, at = np.zeros((width, width)), 0
    while at < width:
        size = 1 << ((width - at).bit_length() - 1)
        block = np.ones((1, 1))
        while len(block) < size:
            block = np.block([[block, block], [block, -block]])
        matrix[at : at + size, at : at + size] = block / np.sqrt(size)
        at += size
    found: F64 = signs(seed, width).astype(np.float64)[:, None] * matrix
    return found


def _quantise(y: F64, codec: Codec, own: F64, inject: str) -> Iterator[tuple[str, F64]]:
    levels = own if own.size else lloyd_max(codec.integer("b"))[0].astype(np.float64)
    gain = np.sqrt((y**2).mean(axis=1, keepdims=True))
    byte = np.searchsorted(gain_midpoints()[1:256], gain, side="left")
    up = gain_grid().astype(np.float64)[(256 - byte) % 256]
    down = gain_grid().astype(np.float64)[byte]
    if inject == "scale":
        up, down = up * np.sqrt(y.shape[1]), down / np.sqrt(y.shape[1])
    elif inject == "norm":
        down = np.where(byte == 0, 0, 1 / np.sqrt(y.shape[1]))
    z = y * up
    found = levels[np.searchsorted((levels[:-1] + levels[1:]) / 2, z, side="left")]
    yield "quantiser", found * down
    if codec.integer("out"):
        at = np.argsort(-np.abs(z.ravel()), kind="stable")[: codec.integer("out")]
        found.ravel()[at] = _stored(z.ravel()[at], str(codec["store"]))
        yield "outliers", found * down


def _sparse(rest: F64, codec: Codec) -> F64:
    at = np.argsort(-np.abs(rest), axis=1, kind="stable")[:, : residual_kept(codec)]
    out = np.zeros_like(rest)
    kept = _stored(np.take_along_axis(rest, at, axis=1), str(codec["store"]))
    np.put_along_axis(out, at, kept, axis=1)
    return out


def _stored(x: F64, store: str) -> F64:
    return widen16(narrow16(x.astype(np.float32), store), store).astype(np.float64)


def _wide(part: Parts) -> dict[str, F64]:
    return {name: value.astype(np.float64) for name, value in vars(part).items()}
