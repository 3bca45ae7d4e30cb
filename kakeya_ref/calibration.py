"""The table of ``query`` from moments of keys and queries: a fit, judged by quality."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.bands import BAND
from kakeya_ref.skeletons import table_body
from kakeya_ref.tables import signs
from kakeya_ref.types import Codec

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Share of the mean eigenvalue that is added to the second moment of the queries: bounds what a
# direction that no query took can cost.
RIDGE = 1e-2
# Least variance of a component, of that of the first: numbers that never vary keep a finite row.
FLOOR = 1e-9


@dataclass(frozen=True)
class Moments:
    """What calibration knows of one KV head, in frame coordinates.

    Attributes
    ----------
    mean : (D,)
        Mean of the keys.
    covariance : (D, D)
        Of the keys, about their mean.
    queries : (D, D)
        Second moment ``E[q qᵀ]`` of the queries that read them.
    """

    mean: F64
    covariance: F64
    queries: F64


def solve(moments: Moments, codec: Codec, ridge: float = RIDGE) -> tuple[NDArray[np.uint8], F32]:
    """Table body and analysis of a head.

    With ``S = L Lᵀ`` the queries' moment and ``Lᵀ C L = U Λ Uᵀ``, the components
    ``y = Uᵀ Lᵀ (k - mean)`` are uncorrelated with variances ``Λ``, and a white error of ``y`` is a
    white error of ``q · k``. Every band of 8 is divided by its rms, flipped and rotated, which
    turns the heavy tails of single components into nearly normal numbers.

    Rule: codec.fit.metric, query.table.layout

    Returns
    -------
    body : (nbytes,) uint8
    analysis : (D, D) float32
    """
    d = len(moments.mean)
    unit = moments.queries * (d / max(float(np.trace(moments.queries)), 1e-300))
    left = np.linalg.cholesky(unit + ridge * np.eye(d))
    variance, axes = np.linalg.eigh(left.T @ moments.covariance @ left)
    order = np.argsort(variance)[::-1]
    variance = np.maximum(variance[order], max(FLOOR * variance.max(), 1e-30))
    bands = variance.reshape(-1, BAND).mean(axis=1)
    turn = _turn(d) / np.sqrt(np.repeat(bands, BAND))
    analysis = turn @ axes[:, order].T @ left.T
    basis = np.linalg.inv(analysis).T
    body = table_body(codec, d, mean=moments.mean, basis=basis, spread=bands / bands[0])
    return body, analysis.astype(np.float32)


def _turn(d: int) -> F64:
    """Sign flips and a Hadamard transform inside every band, as a matrix."""
    pair = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2)
    block = np.kron(pair, np.kron(pair, pair))
    turn = np.kron(np.eye(d // BAND), block) * signs(1, d)
    return turn.astype(np.float64)
