"""Tables that codecs with tables are timed with: random, with the spread of a model's keys."""

from __future__ import annotations

import numpy as np

from benchmarks.device.plan import HEADS
from kakeya_ref.registry import table_kind
from kakeya_ref.skeletons import Skeleton, table_body
from kakeya_ref.types import PageLayout

# A band holds this share of the variance of the band before it.
DECAY = 0.75


def beside(layout: PageLayout, count: int = HEADS) -> Skeleton | None:
    """One table for each head of each layer; nothing for codecs that need none.

    Each has memory of its own on the device; the numbers are those of the first few.
    """
    if not table_kind(layout.codec):
        return None
    d = layout.head_dim
    rng, made = np.random.default_rng(d), []
    spread = DECAY ** np.arange(d // 8)
    for _ in range(HEADS):
        basis = np.linalg.qr(rng.standard_normal((d, d)))[0]
        scaled = basis * np.sqrt(np.repeat(spread, 8))[:, None]
        numbers = {"mean": rng.standard_normal(d), "basis": scaled, "spread": spread}
        made.append((table_body(layout.codec, d, **numbers), np.linalg.inv(scaled).T))
    bodies, analysis = (np.stack(part) for part in zip(*made, strict=True))
    return _frozen(bodies[np.arange(count) % HEADS], analysis[np.arange(count) % HEADS])


def of_pages(known: Skeleton | None, of: np.ndarray) -> Skeleton | None:
    """The same tables, with the number of each page's."""
    if known is None:
        return None
    of.setflags(write=False)
    return Skeleton(known.bodies, known.analysis, of)


def some(known: Skeleton | None, rows: slice) -> Skeleton | None:
    """Some of the tables."""
    if known is None or known.analysis is None:
        return None
    return _frozen(known.bodies[rows], known.analysis[rows])


def _frozen(bodies: np.ndarray, analysis: np.ndarray) -> Skeleton:
    bodies, analysis = bodies.copy(), analysis.astype(np.float32)
    for array in (bodies, analysis):
        array.setflags(write=False)
    return Skeleton(bodies, analysis)
