"""``query``: a calibrated transform, bits by band, one trellis through all of them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import bands, chains, trellis
from kakeya_ref.layout import band_bits
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]


def encode(x: F32, layout: PageLayout, tables: Skeleton) -> dict[str, U64]:
    """Fields of vectors in frame coordinates (N, P, D).

    Rule: query.encode.project, query.gain.active, query.code.trellis, query.value.range,
    query.row.bits

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
        scale = gain_byte(rms(y))
        z = y * reciprocal_of(scale)[:, None]
        codes = np.where(scale[:, None] == 0, 0, trellis.search(z, width).astype(np.int64))
        scales.append(scale.astype(np.uint64))
        rows.append(bands.pack(codes, width).astype(np.uint64))
    return {"scales": np.stack(scales), "codes": np.stack(rows)}


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
        values = trellis.values(bands.unpack(row, width).astype(np.uint64), width)
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
