"""``query``: a calibrated transform, bits by band, a trellis where they are few."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import bands, chains, trellis
from kakeya_ref.layout import band_bits
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def encode(x: F32, layout: PageLayout, tables: Skeleton) -> dict[str, U64]:
    """Fields of vectors in frame coordinates (N, P, D).

    Rule: query.encode.project, query.gain.active, query.gain.reach, query.code.boundary,
    query.code.trellis, query.value.range, query.row.bits

    Raises
    ------
    RangeError
        A coefficient or a gain beyond what the format carries.
    """
    scales, rows = [], []
    for n, page in enumerate(x):
        part, analysis = chains.tables_of(tables, layout, n)
        width = bands.widths(part.spread, band_bits(layout.codec, layout.head_dim))
        y = chains.project(page, part, analysis)[:, : len(width)]
        chains.finite(y, "query.value.range")
        scale = gain_byte(np.maximum(rms(y), _reach(y, width)))
        z = y * reciprocal_of(scale)[:, None]
        codes = np.where(scale[:, None] == 0, 0, _codes(z, width, part.spread))
        scales.append(scale.astype(np.uint64))
        rows.append(bands.pack(codes, width).astype(np.uint64))
    return {"scales": np.stack(scales), "codes": np.stack(rows)}


def _reach(y: F32, width: NDArray[np.int64]) -> F32:
    """The least gain under which no component of a wide band leaves its table.

    Rule: query.gain.reach
    """
    wide = int((width > bands.WALKED).sum())
    last = np.array([lloyd_max(int(b))[0][-1] for b in width[:wide]], dtype=np.float32)
    least: F32 = np.max(np.abs(y[:, :wide]) / last, axis=1, initial=0)
    return least


def _codes(z: F32, width: NDArray[np.int64], spread: F32) -> NDArray[np.int64]:
    """Lloyd-Max codes of the wide bands, and a walk of least error through the others.

    Rule: query.code.boundary, query.code.trellis
    """
    wide = int((width > bands.WALKED).sum())
    codes = np.zeros(z.shape, dtype=np.int64)
    for i in range(wide):
        codes[:, i] = np.searchsorted(lloyd_max(int(width[i]))[1], z[:, i], side="left")
    if wide < len(width):
        weight = np.repeat(spread, bands.BAND)[wide : len(width)]
        codes[:, wide:] = trellis.search(z[:, wide:], width[wide:], weight).astype(np.int64)
    return codes


def _values(codes: NDArray[np.int64], width: NDArray[np.int64]) -> F32:
    """Numbers of codes, before the gain. Rule: query.decode.product"""
    wide = int((width > bands.WALKED).sum())
    out = np.zeros(codes.shape, dtype=np.float32)
    for i in range(wide):
        out[:, i] = lloyd_max(int(width[i]))[0][codes[:, i]]
    if wide < len(width):
        out[:, wide:] = trellis.values(codes[:, wide:].astype(np.uint64), width[wide:])
    return out


def coefficients(fields: dict[str, U64], layout: PageLayout, tables: Skeleton) -> F32:
    """Coefficients of fields: value times gain; +0 in bands without bits.

    Rule: query.decode.product, scale.byte.zero
    """
    total = band_bits(layout.codec, layout.head_dim)
    scale = fields["scales"].reshape(-1, layout.tokens, 1).astype(np.uint8)
    rows = fields["codes"].reshape(-1, layout.tokens, total).astype(np.uint8)
    out = np.zeros((len(rows), layout.tokens, layout.head_dim), dtype=np.float32)
    for n, row in enumerate(rows):
        part, _ = chains.tables_of(tables, layout, n)
        width = bands.widths(part.spread, total)
        values = _values(bands.unpack(row, width), width)
        out[n, :, : len(width)] = np.where(scale[n] == 0, 0, values * gain_of(scale[n]))
    return out


def vectors(y: F32, layout: PageLayout, tables: Skeleton) -> F32:
    """Vectors in frame coordinates of coefficients.

    Rule: query.decode.synthesis

    Raises
    ------
    Malformed
        A number beyond float32: no encoder wrote these bytes.
    """
    out = [
        chains.synthesise(page, chains.tables_of(tables, layout, n)[0], "query.decode.synthesis")
        for n, page in enumerate(y)
    ]
    return np.stack(out)
