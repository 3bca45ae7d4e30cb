"""The coded basis of a layout as a matrix, so that attention need not leave it.

A rotation is orthonormal: ``q · k`` is the same for rotated queries and coefficients, and a
weighted sum of values can be rotated back after the sum. One query is rotated instead of a whole
context.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from kakeya_ref.registry import table_kind
from kakeya_ref.tables import signs
from kakeya_ref.types import PageLayout


@lru_cache(maxsize=64)
def rotation(layout: PageLayout, dtype: torch.dtype, device: torch.device) -> Tensor | None:
    """``M`` (D, D) with ``vectors = coefficients @ M``; None where the two are the same.

    Rule: hadamard.blocks.largest-first, hadamard.order.strides, signs.splitmix64.top-bit
    """
    # A table's basis changes from page to page: such pages decode to vectors.
    if table_kind(layout.codec) or all(name != "seed" for name, _ in layout.codec.params):
        return None
    d = layout.head_dim
    matrix, at = np.zeros((d, d)), 0
    while at < d:
        size = 1 << ((d - at).bit_length() - 1)
        block = np.ones((1, 1))
        while len(block) < size:
            block = np.block([[block, block], [block, -block]])
        matrix[at : at + size, at : at + size] = block / np.sqrt(size)
        at += size
    matrix *= signs(layout.codec.integer("seed"), d)
    with torch.inference_mode(False):
        return torch.from_numpy(matrix).to(device, dtype)
