"""``turbo``: principal components, spherical centres, a rotated Lloyd-Max residual, outliers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import chains
from kakeya_ref.errors import Malformed
from kakeya_ref.layout import residual_width
from kakeya_ref.rotation import rotate, unrotate
from kakeya_ref.scaling import gain_byte, gain_of, reciprocal_of, rms
from kakeya_ref.skeletons import Parts, Skeleton, widen16
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]

RANGE = "turbo.value.range"


def encode(x: F32, layout: PageLayout, tables: Skeleton) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: turbo.encode.project, turbo.seg.absolute, turbo.residual.padded, turbo.residual.gain,
    turbo.code.boundary, turbo.out.largest, turbo.value.range

    Raises
    ------
    RangeError
        A number that the stored type cannot hold, or a residual too large for the gain byte.
    """
    pages = [_encode(page, layout, tables, n) for n, page in enumerate(x)]
    return {name: np.stack([fields[name] for fields in pages]) for name in pages[0]}


def _encode(x: F32, layout: PageLayout, tables: Skeleton, n: int) -> dict[str, U64]:
    part, analysis = chains.tables_of(tables, layout, n)
    codec, store = layout.codec, str(layout.codec["store"])
    c = chains.project(x, part, analysis)
    chains.finite(c, RANGE)
    found = chains.segment(c, part, store, RANGE)
    padded = np.zeros((layout.tokens, residual_width(codec)), dtype=np.float32)
    padded[:, : c.shape[1]] = found.rest
    y = rotate(padded, codec.integer("seed"))
    scale = gain_byte(rms(y))
    z = y * reciprocal_of(scale)[:, None]
    _, thresholds = _quantiser(part, codec.integer("b"))
    codes = np.searchsorted(thresholds, z, side="left")
    fields = {
        "scales": scale.astype(np.uint64),
        "seg": found.seg,
        "proj": found.proj,
        "codes": np.where(scale[:, None] == 0, 0, codes).astype(np.uint64),
    }
    if codec.integer("out"):
        at = chains.largest(np.abs(z.reshape(-1)), codec.integer("out"))
        value = chains.stored(z.reshape(-1)[at], store, RANGE)
        fields |= {"outvalue": value.astype(np.uint64), "outplace": at.astype(np.uint64)}
    return fields


def coefficients(fields: dict[str, U64], layout: PageLayout, tables: Skeleton) -> F32:
    """Coefficients of fields, which are the vectors (N, P, D).

    Rule: turbo.decode.product, turbo.decode.sum, turbo.decode.synthesis, turbo.value.finite,
    turbo.out.ascending, turbo.seg.range

    Raises
    ------
    Malformed
        A centre or place that does not exist, a number that is not finite.
    """
    n = len(fields["proj"])
    pages = [{name: values[i] for name, values in fields.items()} for i in range(n)]
    return np.stack([_decode(page, layout, tables, i) for i, page in enumerate(pages)])


def _decode(fields: dict[str, U64], layout: PageLayout, tables: Skeleton, n: int) -> F32:
    part, _ = chains.tables_of(tables, layout, n)
    codec, store = layout.codec, str(layout.codec["store"])
    width, rank = residual_width(codec), codec.integer("rank")
    centres = chains.centre_part(fields, part, store, "turbo")
    levels, _ = _quantiser(part, codec.integer("b"))
    z = levels[fields["codes"].astype(np.int64)]
    if codec.integer("out"):
        at = chains.places(fields["outplace"], len(z), "turbo.out.ascending")
        value = widen16(fields["outvalue"].astype(np.uint16), store)
        if not np.isfinite(value).all():
            raise Malformed("turbo.value.finite", "a stored outlier is not finite")
        z[at] = value
    scale = fields["scales"].astype(np.uint8)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        y = np.where(scale == 0, np.float32(0), z.reshape(-1, width) * gain_of(scale))
        rest = unrotate(y, codec.integer("seed"))[:, :rank]
        return chains.synthesise(centres + rest, part, "turbo.value.finite")


def _quantiser(part: Parts, b: int) -> tuple[F32, F32]:
    """Levels and thresholds: those of the table, or Lloyd-Max of N(0, 1).

    Rule: turbo.levels.midpoint, scalar.table.lloyd-max
    """
    if not part.levels.size:
        return lloyd_max(b)
    levels = part.levels
    with np.errstate(over="ignore"):
        return levels, (levels[:-1] + levels[1:]) * np.float32(0.5)


def vectors(y: F32, layout: PageLayout, tables: Skeleton) -> F32:
    """The coded basis is the identity: the basis of a table changes from page to page."""
    return y
