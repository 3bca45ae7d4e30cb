"""The metric of keys: second moments of the queries that a model asks them with."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.build import build_kakeya_cache
from kakeya_fast.hf.cache import KakeyaCache
from kakeya_fast.hf.layer import PackedLayer
from kakeya_ref.errors import ShapeError, UsageError

# Tokens per forward: bounds the logits, of which none is wanted.
CHUNK = 512


def query_metric(
    model: PreTrainedModel, ids: Tensor, *, ridge: float = 1e-2
) -> dict[int, NDArray[np.float64]]:
    """Cholesky factors of ``E[q qᵀ]`` of every layer and KV head that a cache would pack.

    The queries are those that attention gets, after the rotary embedding, of all query heads
    that read a KV head, in every layer that reads it. The model reads its keys exactly while
    they are collected; its attention stays switched, as by
    :func:`kakeya_fast.hf.build_kakeya_cache`.

    Rule: codec.fit.metric

    Parameters
    ----------
    ids : (T,) or (B, T) integer
        Text without padding. Fewer tokens than the head dim leave directions to the ridge.
    ridge : float
        Added to the eigenvalues of the moment, whose mean is scaled to 1: bounds what a
        direction that no query took can cost.

    Returns
    -------
    dict of model layer to (H, D, D) float64
        Lower factors ``L``, for ``metric=`` of :func:`kakeya_fast.hf.build_kakeya_cache`.

    Raises
    ------
    ShapeError
        Ids of another shape or type.
    UsageError
        A ridge that is not above 0.
    Unsupported
        A model whose attention cannot be followed to its keys.
    """
    if ids.dim() not in (1, 2) or not ids.numel() or ids.dtype not in (torch.int64, torch.int32):
        raise ShapeError("codec.fit.metric", f"ids are integers (B, T), got {tuple(ids.shape)}")
    if not ridge > 0:
        raise UsageError("cache.option.range", f"ridge={ridge!r} is not above 0")
    past = _watching(build_kakeya_cache(model, "raw", "raw", attention="packed"))
    text = ids.reshape(-1, ids.shape[-1]).to(model.device)
    with torch.no_grad():
        for begin in range(0, text.shape[1], CHUNK):
            model(text[:, begin : begin + CHUNK], past_key_values=past)
    watched = {i: x.moment for i, x in enumerate(past.layers) if isinstance(x, _Watched)}
    return {i: _factor(m.cpu().numpy(), ridge) for i, m in watched.items() if m is not None}


class _Watched(PackedLayer):
    """A packed layer that sums up the outer products of the queries it answers."""

    moment: Tensor | None = None

    def attend(self, query: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        grouped = query.unflatten(1, (self.state.heads, -1)).double()
        found = torch.einsum("bhgqd,bhgqe->hde", grouped, grouped)
        self.moment = found if self.moment is None else self.moment + found
        return super().attend(query, *args, **kwargs)


def _watching(cache: KakeyaCache) -> KakeyaCache:
    layers = [
        _Watched(x.policy, x.readers) if isinstance(x, PackedLayer) else x for x in cache.layers
    ]
    return KakeyaCache(layers, cache.attention, kinds=cache.kinds)


def _factor(moment: NDArray[np.float64], ridge: float) -> NDArray[np.float64]:
    size = moment.shape[-1]
    trace = np.trace(moment, axis1=1, axis2=2)[:, None, None]
    unit = moment * size / np.where(trace > 0, trace, 1)
    return np.linalg.cholesky(unit + ridge * np.eye(size))
