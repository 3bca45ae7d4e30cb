"""A query metric per layer and KV head: what an error of a key costs on average.

For a key error ``e`` and queries ``q`` the scores are off by ``q · e``, on average squared by
``e Σ eᵀ`` with ``Σ = E[q qᵀ]``. Its Cholesky factor whitens the keys before a table is fitted. The
queries come from a text of their own, never from the one that is evaluated.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.quality.capture import capture, full_layers
from kakeya_fast.quality.texts import Text, passages

if TYPE_CHECKING:
    from kakeya_fast.quality.models import Loaded

# Of the mean of the diagonal: keeps directions that no query takes from vanishing.
RIDGE = 1e-3
TOKENS = 2048

Metric = Mapping[int, NDArray[np.float64]]


def query_metric(loaded: Loaded, text: Text, tokens: int = TOKENS) -> Metric:
    """Lower Cholesky factors (H, D, D) of each full-attention layer, from the middle of a text.

    Raises
    ------
    UsageError
        The text is too short (``text.passages.disjoint``).
    """
    (passage,) = passages(loaded.tokens(text.text), loaded.prefix, tokens, 1)
    found = capture(loaded.model, passage.ids, full_layers(loaded.model), queries=True)
    return {i: factor(c.q, len(c.k)) for i, c in found.items() if c.q is not None}


def factor(q: NDArray[np.float32], heads: int) -> NDArray[np.float64]:
    """Cholesky factors (H, D, D) of the second moments of queries (H * G, T, D).

    Examples
    --------
    >>> q = np.array([[[3.0, 0.0], [0.0, 4.0]]], np.float32)
    >>> np.round(factor(q, 1)[0], 2).tolist()
    [[2.12, 0.0], [0.0, 2.83]]
    """
    wide = q.reshape(heads, -1, q.shape[2]).astype(np.float64)
    moment = wide.transpose(0, 2, 1) @ wide / wide.shape[1]
    ridge = RIDGE * np.trace(moment, axis1=1, axis2=2) / q.shape[2]
    return np.linalg.cholesky(moment + ridge[:, None, None] * np.eye(q.shape[2]))
