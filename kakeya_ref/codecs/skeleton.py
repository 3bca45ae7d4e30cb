"""``skeleton``: principal components, spherical centres, a sparse residual."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import chains
from kakeya_ref.errors import Malformed
from kakeya_ref.layout import residual_kept
from kakeya_ref.skeletons import Skeleton, widen16
from kakeya_ref.types import PageLayout

F32 = NDArray[np.float32]
U64 = NDArray[np.uint64]

RANGE = "skeleton.value.range"


def encode(x: F32, layout: PageLayout, tables: Skeleton) -> dict[str, U64]:
    """Fields of vectors (N, P, D).

    Rule: skeleton.encode.project, skeleton.time.trend, skeleton.seg.absolute,
    skeleton.place.largest, skeleton.value.range

    Raises
    ------
    RangeError
        A number that the stored type cannot hold.
    """
    pages = [_encode(page, layout, tables, n) for n, page in enumerate(x)]
    return {name: np.stack([fields[name] for fields in pages]) for name in pages[0]}


def _encode(x: F32, layout: PageLayout, tables: Skeleton, n: int) -> dict[str, U64]:
    part, analysis = chains.tables_of(tables, layout, n)
    store, kept = str(layout.codec["store"]), residual_kept(layout.codec)
    c = chains.project(x, part, analysis)
    chains.finite(c, RANGE)
    fields: dict[str, U64] = {}
    if part.trend.size:
        along = chains.stored(chains.chain(c, part.trend[None])[:, 0], store, RANGE)
        fields["along"] = along.astype(np.uint64)
        with np.errstate(over="ignore", invalid="ignore"):
            c = c - widen16(along, store)[:, None] * part.trend
        chains.finite(c, RANGE)
    found = chains.segment(c, part, store, RANGE)
    at = chains.largest(np.abs(found.rest), kept)
    value = chains.stored(np.take_along_axis(found.rest, at, axis=1), store, RANGE)
    return fields | {
        "seg": found.seg,
        "proj": found.proj,
        "value": value.astype(np.uint64),
        "place": at.astype(np.uint64),
    }


def coefficients(fields: dict[str, U64], layout: PageLayout, tables: Skeleton) -> F32:
    """Coefficients of fields, which are the vectors (N, P, D).

    Rule: skeleton.decode.sum, skeleton.decode.synthesis, skeleton.value.finite,
    skeleton.place.ascending, skeleton.seg.range

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
    store, kept = str(layout.codec["store"]), residual_kept(layout.codec)
    rank = layout.codec.integer("rank")
    c = chains.centre_part(fields, part, store, "skeleton")
    every = np.tile(np.arange(kept, dtype=np.uint64), layout.tokens)
    listed = fields.get("place", every).reshape(-1, kept)
    at = chains.places(listed, rank, "skeleton.place.ascending")
    value = widen16(fields["value"].astype(np.uint16), store).reshape(-1, kept)
    along = widen16(fields.get("along", np.zeros(0)).astype(np.uint16), store)
    if not (np.isfinite(value).all() and np.isfinite(along).all()):
        raise Malformed("skeleton.value.finite", "a stored number is not finite")
    with np.errstate(over="ignore", invalid="ignore"):
        if part.trend.size:
            c = along[:, None] * part.trend + c
        rest = np.zeros((layout.tokens, rank), dtype=np.float32)
        np.put_along_axis(rest, at, value, axis=1)
        c = c + rest
    return chains.synthesise(c, part, "skeleton.value.finite")


def vectors(y: F32, layout: PageLayout, tables: Skeleton) -> F32:
    """The coded basis is the identity: the basis of a table changes from page to page."""
    return y
