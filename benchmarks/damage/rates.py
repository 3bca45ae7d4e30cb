"""Bits at equal damage: how many more other settings need for the same KL."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kakeya_fast.quality import stats


@dataclass(frozen=True)
class Row:
    """A setting on some passages.

    Attributes
    ----------
    name : str
        Of the setting.
    bits : pair of float
        True bits per number of keys and of values.
    tokens, kl, dnll : (n,) array
        Tokens of each passage, and sums over them: KL in nats, change of NLL.
    """

    name: str
    bits: tuple[float, float]
    tokens: Any
    kl: Any
    dnll: Any

    @property
    def mean_bits(self) -> float:
        """Of keys and values together."""
        return sum(self.bits) / 2

    @property
    def loss(self) -> stats.Estimate:
        """KL a token, in nats."""
        return stats.pooled(list(self.kl), [int(t) for t in self.tokens])

    @property
    def dppl(self) -> float:
        """ΔPPL, percent."""
        return 100 * math.expm1(self.dnll.sum() / self.tokens.sum())


def row_of(name: str, units: Mapping[int, dict[str, Any]]) -> Row:
    """A setting of a damage file, from its units by passage."""
    sums = [np.array(units[i]["buckets"])[:, 1:4].sum(0) for i in sorted(units)]
    tokens, kl, dnll = np.array(sums).T
    k, v = next(iter(units.values()))["bits"]
    return Row(name, (k, v), tokens, kl, dnll)


def saved(kl: float, bits: float, others: Sequence[tuple[float, float]]) -> float:
    """Bits that others (bits, KL) need more for a KL, on the line of log KL by bits.

    The line goes through those that no cheaper one beats.

    Examples
    --------
    >>> round(saved(0.02, 2.0, [(2.0, 0.04), (3.0, 0.01), (2.5, 0.05)]), 6)
    0.5
    """
    every = sorted((b, math.log(x)) for b, x in others)
    points = [p for i, p in enumerate(every) if all(p[1] < q[1] for q in every[:i])]
    pairs = list(itertools.pairwise(points))
    low, high = next((p for p in pairs if p[1][1] <= math.log(kl)), pairs[-1])
    share = (math.log(kl) - low[1]) / (high[1] - low[1])
    return low[0] + share * (high[0] - low[0]) - bits


def gain(row: Row, others: Sequence[Row]) -> tuple[float, float, float]:
    """Bits that a setting saves, with their interval: passages are drawn for all rows at once."""
    count = len(row.kl)
    picks = np.random.default_rng(stats.SEED).integers(0, count, size=(stats.DRAWS, count))
    draws = np.concatenate([np.arange(count)[None], picks])
    own, *rest = (r.kl[draws].sum(1) / r.tokens[draws].sum(1) for r in (row, *others))
    bits = [r.mean_bits for r in others]
    each = [
        saved(kl, row.mean_bits, list(zip(bits, found, strict=True)))
        for kl, *found in zip(own, *rest, strict=True)
    ]
    tail = stats.tail_share(count)
    low, high = np.quantile(each[1:], [tail, 1 - tail])
    return each[0], float(low), float(high)
