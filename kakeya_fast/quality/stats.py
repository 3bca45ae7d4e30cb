"""Means over passages with honest intervals. The passage, not the token, is the sample.

Tokens of a passage share their context and, in a packed cache, its errors; treating them as
independent would make every interval too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
DRAWS = 10_000
SEED = 20240


@dataclass(frozen=True)
class Estimate:
    """A pooled mean, its bootstrap interval and its standard error; None where one passage."""

    mean: float
    low: float | None
    high: float | None
    stderr: float | None


def pooled(sums: Sequence[float], counts: Sequence[int], *, seed: int = SEED) -> Estimate:
    """Mean per token over passages, 95 % percentile bootstrap over passages, and its stderr.

    Parameters
    ----------
    sums : (n,) float
        Sum of the quantity over the counted tokens of each passage.
    counts : (n,) int
        Counted tokens of each passage.
    seed : int
        Seed of the resampling, so that a stored file gives the same interval again.

    Examples
    --------
    >>> pooled([2.0, 2.0], [2, 2])
    Estimate(mean=1.0, low=1.0, high=1.0, stderr=0.0)
    """
    s, c = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    mean = float(s.sum() / c.sum())
    n = len(s)
    if n < 2:
        return Estimate(mean, None, None, None)
    picks = np.random.default_rng(seed).integers(0, n, size=(DRAWS, n))
    means = s[picks].sum(1) / c[picks].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    spread = float(np.sqrt(n / (n - 1) * ((s - mean * c) ** 2).sum()) / c.sum())
    return Estimate(mean, float(low), float(high), spread)
