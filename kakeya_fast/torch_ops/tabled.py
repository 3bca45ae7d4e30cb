"""Calls of the codec with tables: pages by table, and what was found wrong first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kakeya_fast.torch_ops import query
from kakeya_ref.errors import KakeyaError, Malformed, RangeError
from kakeya_ref.skeletons import Skeleton, as_skeleton
from kakeya_ref.types import PageLayout

CODECS = ("query",)


def encode(x: Tensor, layout: PageLayout, tables: Any, step: int) -> Tensor:
    """Page bodies of finite float32 vectors (N, P, D), ``step`` pages at a time.

    Rule: codec.table.given, codec.table.shape, encode.batch.independent

    Raises
    ------
    UsageError, ShapeError, Malformed
        The tables.
    RangeError
        A number that leaves the range of the codec.
    """
    known = as_skeleton(tables, layout, len(x))
    out = torch.empty((len(x), layout.nbytes), dtype=torch.uint8, device=x.device)
    first: list[tuple[int, KakeyaError]] = []
    for at, pages in _by_body(known, len(x)):
        try:
            analysis = None if known.analysis is None else known.analysis[at]
            one = query.query_of(layout, known.bodies[at], analysis, x.device)
        except Malformed as error:
            first.append((int(pages[0]), error))
            continue
        for part in torch.from_numpy(pages).to(x.device).split(step):
            out[part], fault = one.encode(x[part])
            if fault.any():
                n = int(fault.nonzero()[0])
                rule, what = query.FAULTS[int(fault[n])]
                page = int(part[n])
                first.append((page, RangeError(rule, f"page {page} of {layout}: {what}")))
                break
    _raise_first(first)
    return out


def decode(
    body: Tensor, layout: PageLayout, tables: Any, step: int, vectors: bool, out: Tensor
) -> None:
    """Numbers of page bodies (N, nbytes) into ``out`` (N, P, D), of no use when one is refused.

    Rule: codec.table.given, codec.table.shape, decode.bytes.only, query.decode.synthesis

    Raises
    ------
    UsageError, Malformed
    """
    known = as_skeleton(tables, layout, len(body))
    first: list[tuple[int, KakeyaError]] = []
    for at, pages in _by_body(known, len(body)):
        try:
            one = query.query_of(layout, known.bodies[at], None, body.device)
        except Malformed as error:
            first.append((int(pages[0]), error))
            continue
        for part in torch.from_numpy(pages).to(body.device).split(step):
            y = one.coefficients(body[part])
            if vectors:
                y = one.vectors(y)
                bad = ~y.isfinite().flatten(1).all(1)
                if bad.any():
                    page = int(part[bad.nonzero()[0]])
                    what = f"page {page} of {layout}: a decoded number is not finite"
                    first.append((page, Malformed("query.decode.synthesis", what)))
                    break
            out[part] = y.to(out.dtype)
    _raise_first(first)


def _by_body(known: Skeleton, count: int) -> Iterator[tuple[int, np.ndarray]]:
    """Bodies that are used, each with its pages in ascending order."""
    which = np.array([known.body_of(page) for page in range(count)], dtype=np.int64)
    for at in np.unique(which):
        yield int(at), np.flatnonzero(which == at)


def _raise_first(found: list[tuple[int, KakeyaError]]) -> None:
    if found:
        raise min(found, key=lambda one: one[0])[1]
