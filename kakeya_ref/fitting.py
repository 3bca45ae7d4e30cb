"""Fits of ``skeleton`` and ``turbo``: from a block of vectors to a table and a rank.

Judged by quality, never by bytes, so it works in float64 and fast code may import it. The same
input gives the same table on one machine; another machine may differ in the last bits, which
changes no byte of a page once the table is there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import RangeError, ShapeError, UsageError
from kakeya_ref.layout import residual_width
from kakeya_ref.registry import is_resolved, resolved, table_kind
from kakeya_ref.rotation import rotate
from kakeya_ref.skeletons import Skeleton, parts, table_body
from kakeya_ref.tables import lloyd_max
from kakeya_ref.types import Codec

F64 = NDArray[np.float64]

ITERATIONS = 32  # of k-means and of the level fit; both settle earlier on keys and values
OVERSAMPLE, POWER_STEPS, SKETCH_SEED = 8, 2, 0x9E3779B9


@dataclass(frozen=True)
class Fit:
    """What a fit chose.

    Attributes
    ----------
    codec : Codec
        With its rank, without steering parameters; outliers are the business of a page.
    tables : Skeleton
        One table.
    captured : float
        Share of the block's variance inside the basis.
    """

    codec: Codec
    tables: Skeleton
    captured: float


def fit(x: NDArray[np.float32], codec: Codec, *, metric: F64 | None = None) -> Fit:
    """Table of one block, and the codec with all that a page layout needs.

    Rule: codec.fit.resolved, codec.fit.variance

    Parameters
    ----------
    x : (R, D) float32
        Vectors of one block: of one KV head, or of all heads that share the table.
    codec : Codec
        ``skeleton`` or ``turbo`` without a rank.
    metric : (D, D) float64, optional
        Lower Cholesky factor ``L`` of the second moment of the queries: the error that counts is
        ``|e L|``. It goes into basis and analysis, so pages and tables cost nothing more.

    Raises
    ------
    UsageError
        A codec that has no table, or has a rank already.
    ShapeError
        Not (R, D) or an unfit metric.
    RangeError
        NaN, infinity, or a table that the stored type cannot hold.
    """
    if table_kind(codec) != "skeleton" or is_resolved(codec):
        raise UsageError("codec.fit.resolved", f"{codec} has nothing to fit")
    if x.ndim != 2 or not len(x):
        raise ShapeError("page.shape.exact", f"a block is (R, D), got {x.shape}")
    if not np.isfinite(x).all():
        raise RangeError("num.input.finite", "NaN or infinity in a block")
    d = x.shape[1]
    if metric is not None and metric.shape != (d, d):
        raise ShapeError("codec.fit.metric", f"metric is ({d}, {d}), got {metric.shape}")
    mean = x.mean(axis=0, dtype=np.float64)
    left = np.eye(d) if metric is None else metric
    white = (x - mean) @ left
    axes, captured = _components(white, codec)
    rank = len(axes)
    done = resolved(codec, rank=rank)
    numbers = {"mean": mean, "basis": axes @ np.linalg.inv(left)}
    analysis = None
    if metric is not None:
        analysis = np.ascontiguousarray(axes @ left.T, dtype=np.float32)[None]
    c = white @ axes.T
    numbers["trend"] = trend = _trend(c) if done.id == "skeleton" else np.zeros(rank)
    c = c - (c @ trend)[:, None] * trend
    numbers["centres"] = centres = spherical_centres(c, done.integer("k"))
    if done.id == "turbo":
        numbers["levels"] = lloyd_max(done.integer("b"))[0].astype(np.float64)
        if done["levels"] == "own":
            numbers["levels"] = _levels(_residual(c, centres, done), numbers["levels"])
    body = table_body(done, d, **numbers)
    if analysis is None:
        # The encoder must project on what the decoder has, not on what it was rounded from.
        analysis = parts(body, done, d).basis[None]
    return Fit(done, Skeleton(body[None], analysis), captured)


def for_page(fitted: Fit, x: NDArray[np.float32], cut: int) -> Codec:
    """The codec of one page of a fit: with as many outliers as there are beyond ``cut / 10``.

    Rule: turbo.fit.cut

    Parameters
    ----------
    x : (P, D) float32
    cut : int
        Parameter ``cut`` of the codec that was asked for; 0 for no outliers.
    """
    if not cut or fitted.codec.id != "turbo":
        return fitted.codec
    part = parts(fitted.tables.bodies[0], fitted.codec, x.shape[1])
    analysis = part.basis if fitted.tables.analysis is None else fitted.tables.analysis[0]
    c = (x.astype(np.float64) - part.mean) @ analysis.T
    z = _residual(c, part.centres.astype(np.float64), fitted.codec)
    beyond = int((np.abs(z) > cut / 10).sum())
    return resolved(fitted.codec, out=-(-beyond // 8) * 8)


def _components(white: F64, codec: Codec) -> tuple[F64, float]:
    """Principal axes (rank, D) and their share of the variance of the whole block.

    Rule: codec.fit.variance
    """
    d, total = white.shape[1], float((white**2).sum())
    if total == 0:
        return np.eye(1, d), 1.0
    if codec.id == "turbo" and codec["pca"] == "random":
        values, axes = _sketch(white, max(d // 2, 8))
    else:
        _, values, axes = np.linalg.svd(white, full_matrices=False)
    share = np.cumsum(values**2) / total
    # Of the block's variance, not of the sketch's: a sketch that misses much must not look good.
    rank = int(np.searchsorted(share, codec.integer("vr") / 100 - 1e-12)) + 1
    rank = min(rank, len(axes))
    return axes[:rank], float(share[rank - 1])


def _sketch(white: F64, target: int) -> tuple[F64, F64]:
    """Leading axes by a randomised range finder with power steps, and how far the rows spread.

    Rule: turbo.fit.random
    """
    width = min(target + OVERSAMPLE, white.shape[1])
    q = np.random.default_rng(SKETCH_SEED).standard_normal((white.shape[1], width))
    q, _ = np.linalg.qr(white @ q)
    for _ in range(POWER_STEPS):
        q, _ = np.linalg.qr(white.T @ q)
        q, _ = np.linalg.qr(white @ q)
    _, _, axes = np.linalg.svd(q.T @ white, full_matrices=False)
    axes = axes[:target]
    # Singular values of the sketch are smaller than what its axes hold.
    return np.linalg.norm(white @ axes.T, axis=0), axes


def _trend(c: F64) -> F64:
    """Direction in which coefficients drift along the block; zero where they do not.

    Rule: skeleton.fit.trend
    """
    clock = np.arange(len(c)) - (len(c) - 1) / 2
    drift = clock @ c
    size = float(np.linalg.norm(drift))
    # White noise drifts by half of this; a direction made of noise would mean nothing.
    floor = 2 * np.linalg.norm(clock) * np.sqrt((c**2).sum(axis=1).mean())
    return drift / size if size > floor else np.zeros_like(drift)


def spherical_centres(c: F64, k: int) -> F64:
    """Unit centres (k, rank) by spherical k-means on lines: a vector and its opposite are one.

    Farthest-first start and assignment use the same absolute cosine. Centres that no vector
    needs are zero.
    """
    size = np.linalg.norm(c, axis=1)
    unit = c[size > 1e-8 * max(float(size.max()), 1e-30)]
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    centres = np.zeros((k, c.shape[1]))
    if not len(unit):
        return centres
    used = min(k, len(unit))
    centres[0] = unit[0]
    near = np.abs(unit @ centres[0])
    for j in range(1, used):
        centres[j] = unit[near.argmin()]
        near = np.maximum(near, np.abs(unit @ centres[j]))
    last = np.full(len(unit), -1)
    for _ in range(ITERATIONS):
        dots = unit @ centres[:used].T
        own = np.abs(dots).argmax(axis=1)
        if (own == last).all():
            break
        last = own
        aligned = unit * np.sign(dots[np.arange(len(unit)), own])[:, None]
        sums = np.zeros((used, c.shape[1]))
        np.add.at(sums, own, aligned)
        empty = np.linalg.norm(sums, axis=1) < 1e-12
        sums[empty] = unit[np.abs(dots).max(axis=1).argsort()[: int(empty.sum())]]
        centres[:used] = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return centres


def _residual(c: F64, centres: F64, codec: Codec) -> F64:
    """Rotated residuals over their rms, as the quantiser will see them: (R, width)."""
    dots = c @ centres.T
    own = np.abs(dots).argmax(axis=1)
    rest = c - dots[np.arange(len(c)), own][:, None] * centres[own]
    width = residual_width(codec)
    padded = np.zeros((len(c), width))
    padded[:, : c.shape[1]] = rest
    y = rotate(padded.astype(np.float32), codec.integer("seed")).astype(np.float64)
    gain = np.sqrt((y**2).mean(axis=1, keepdims=True))
    z: F64 = y / np.where(gain == 0, 1, gain)
    return z


def _levels(z: F64, start: F64) -> F64:
    """Lloyd's iteration on the block's own numbers, from the levels of N(0, 1)."""
    flat, levels = np.sort(z.ravel()), start
    total = np.concatenate([[0.0], np.cumsum(flat)])
    for _ in range(ITERATIONS):
        edges = np.searchsorted(flat, (levels[:-1] + levels[1:]) / 2, side="right")
        cuts = np.concatenate([[0], edges, [len(flat)]])
        count, sums = np.diff(cuts), np.diff(total[cuts])
        levels = np.where(count > 0, sums / np.maximum(count, 1), levels)
    return np.sort(levels)
