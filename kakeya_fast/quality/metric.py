"""The query metric of a model, from a text that is not the one evaluated.

For a key error ``e`` and queries ``q`` the scores are off by ``q · e``, on average squared by
``e Σ eᵀ`` with ``Σ = E[q qᵀ]``; its Cholesky factor whitens the keys before a table is fitted.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from kakeya_fast import hf
from kakeya_fast.quality.texts import Text, passages

if TYPE_CHECKING:
    from kakeya_fast.quality.models import Loaded

TOKENS = 2048

Metric = Mapping[int, NDArray[np.float64]]


def query_metric(loaded: Loaded, text: Text, tokens: int = TOKENS) -> Metric:
    """Lower Cholesky factors (H, D, D) of each packed layer, from the middle of a text.

    See :func:`kakeya_fast.hf.query_metric`.

    Raises
    ------
    UsageError
        The text is too short (``text.passages.disjoint``).
    """
    (passage,) = passages(loaded.tokens(text.text), loaded.prefix, tokens, 1)
    return hf.query_metric(loaded.model, torch.tensor(passage.ids))
