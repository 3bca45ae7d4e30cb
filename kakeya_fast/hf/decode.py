"""Decode steps where the backend's attention merges partials: as few calls as it takes.

A step of one token runs this for every layer, and a GPU is done with a layer before Python is. So
exact tokens are one small attention in the model's own basis, everything that says where pages
lie stays on the device until a page is packed, and what layers have in common is made once.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from kakeya_fast.hf import fused
from kakeya_fast.hf.basis import rotation
from kakeya_ref.types import Paged, PageLayout

if TYPE_CHECKING:
    from kakeya_fast.hf.state import LayerState

LOG = logging.getLogger("kakeya")
# Fused attention that tells the log-sum-exp, by kind of device, and the types it is right for.
_flash: dict[str, tuple[Any, tuple[torch.dtype, ...]]] = {
    "cuda": (
        torch.ops.aten._scaled_dot_product_flash_attention, (torch.float16, torch.bfloat16)
    ),
    "cpu": (torch.ops.aten._scaled_dot_product_flash_attention_for_cpu, (torch.float32,)),
}  # fmt: skip


class Reader:
    """What does not change from step to step of a layer.

    Attributes
    ----------
    backend
    dtype : torch.dtype
        Of the queries.
    refused : str
        Why the backend never reads the pages itself; empty if it does.
    bases : three tensors (D, D) float32, or None where a codec has no basis of its own
        Right factors: keys and values into their coded bases, values back.
    """

    def __init__(self, state: LayerState, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.backend = state.policy.open(state.device, state.layouts)
        self.merges = getattr(self.backend, "merges", False)
        self.refused = fused.refusal(state, dtype, self.backend)
        if self.merges and not self.refused:
            self.bases = _bases(state.layouts, state.device)


@lru_cache(maxsize=64)
def _bases(
    layouts: tuple[PageLayout, PageLayout], device: torch.device
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    with torch.inference_mode(False):
        k, v = (rotation(x, torch.float32, device) for x in layouts)
        into_k, into_v = (None if x is None else x.T.contiguous() for x in (k, v))
        return into_k, into_v, v


def _times(x: Tensor, factor: Tensor | None) -> Tensor:
    return x if factor is None else x @ factor


# Beside the states, which hold what a cache holds and nothing else.
_readers: WeakKeyDictionary[LayerState, Reader] = WeakKeyDictionary()


def reader_of(state: LayerState, dtype: torch.dtype) -> Reader:
    """The reader of a layer for queries of a type."""
    found = _readers.get(state)
    if found is None or found.dtype is not dtype:
        found = _readers[state] = Reader(state, dtype)
    return found


class _Newest:
    """Results for the newest few keys: layers of one forward ask for the same."""

    def __init__(self) -> None:
        self._kept: dict[Any, Any] = {}

    def get(self, key: Any, make: Any) -> Any:
        if key not in self._kept:
            if len(self._kept) > 3:
                self._kept.pop(next(iter(self._kept)))
            self._kept[key] = make()
        return self._kept[key]


_origins, _visible = _Newest(), _Newest()


def attend(
    state: LayerState,
    query: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
    s_aux: Tensor | None,
) -> Tensor | None:
    """Attention of the newest few tokens, or None where it must go another way.

    Rule: cache.attend.fused, cache.read.own-page-exact, cache.read.recent-exact, attend.basis.once
    """
    batch, _, count, size = query.shape
    if count > fused.MOST or not state.pages.used:
        return None
    reader = reader_of(state, query.dtype)
    if not reader.merges or not fused.usable(state, count, mask, reader.refused):
        return None
    window = state.policy.window if mask is not None else None
    # Row m = g * Q + i of a KV head belongs to query token i.
    rows = query.reshape(batch, state.heads, -1, size).contiguous()
    out, lse = exact(rows, *state.exact, scaling, softcap, _seen(state, count, window))
    if s_aux is not None:
        out = out.float()
        given = s_aux.float().view(1, state.heads, -1, 1).expand(-1, -1, -1, count).flatten(2)
        both = torch.logaddexp(lse, given)
        out, lse = out * (lse - both).exp()[..., None], both
    into_k, into_v, out_of_v = reader.bases
    other = _times(out.float(), into_v).contiguous(), lse.contiguous()
    rows = _times(rows.float(), into_k).contiguous()
    at = state.device, batch, state.length - count
    origin = _origins.get(at, lambda: _full(*at))
    table = state.pages.block_table().on(state.device, state.policy.residual, state.step_from)
    out, _ = fused.over_pages(
        reader.backend,
        state.pages,
        rows,
        Paged(*table, origin, count),
        scaling,
        softcap=softcap,
        window=window,
        other=other,
    )
    out = _times(out, out_of_v).to(query.dtype).unflatten(2, (-1, count))
    return out.flatten(1, 2).transpose(1, 2).contiguous()


def exact(
    q: Tensor,
    keys: Tensor,
    values: Tensor,
    scaling: float,
    softcap: float | None,
    seen: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """A partial over the exact tokens, in the model's own basis.

    Parameters
    ----------
    q : (B, H, M, D)
    keys, values : (B, H, T, D)
    seen : (B, 1, Q, T) bool, or None: all
        Of query token ``m % Q``.

    Returns
    -------
    out : (B, H, M, E) float32, or dtype of ``q``
    lse : (B, H, M) float32
    """
    flash, types = _flash.get(q.device.type, (None, ()))
    if seen is None and softcap is None and q.dtype in types:
        try:
            return _by_flash(flash, q, keys, values, scaling)
        except (RuntimeError, TypeError) as error:
            del _flash[q.device.type]
            LOG.warning("[cache.attend.logged] exact tokens without flash attention: %s", error)
    keys, values = keys.float(), values.float()
    score = (q.float() * scaling) @ keys.transpose(2, 3)
    if softcap is not None:
        score = (score / softcap).tanh() * softcap
    if seen is not None:
        score.unflatten(2, (-1, seen.shape[2])).masked_fill_(~seen[:, :, None], -torch.inf)
    lse = score.logsumexp(-1)
    # A query that sees nothing: no NaN of its softmax gets through.
    weight = (score - lse.masked_fill(lse == -torch.inf, 0)[..., None]).exp()
    return weight @ values, lse


def _by_flash(
    flash: Any, q: Tensor, keys: Tensor, values: Tensor, scaling: float
) -> tuple[Tensor, Tensor]:
    out, lse, *_ = flash(q, keys, values, 0.0, False, scale=scaling)
    if lse.shape != q.shape[:3]:
        raise RuntimeError(f"log-sum-exp {tuple(lse.shape)}")
    return out, lse


def _full(device: torch.device, batch: int, value: int) -> Tensor:
    with torch.inference_mode(False):
        return torch.full((batch,), value, dtype=torch.int64, device=device)


def _seen(state: LayerState, count: int, window: int | None) -> Tensor | None:
    """Which exact tokens each of the newest ``count`` queries sees; None: all of them."""
    policy = state.policy
    key = (
        *(state.device, state.length, count, state.tail_from, window, policy.residual),
        *(policy.sinks, policy.page_tokens, state.starts.tobytes(), state.step_from.tobytes()),
    )
    return _visible.get(key, lambda: _work_out(state, count, window))


def _work_out(state: LayerState, count: int, window: int | None) -> Tensor | None:
    policy, length = state.policy, state.length
    start = np.where(state.starts < 0, length, state.starts)[:, None]
    cut, tail = state.step_from[:, None], np.arange(state.tail_from, length)[None]
    index = np.concatenate([start + np.arange(policy.sinks), tail + 0 * start], axis=1)
    q = np.arange(length - count, length)[None, :, None]
    # Pages from that of the token `residual` before the query on are read exactly.
    page, last = (x // policy.page_tokens for x in (tail - cut, q - policy.residual - cut[:, None]))
    recent = (tail >= cut)[:, None] & (page[:, None] >= last)
    of_sinks = np.ones((*recent.shape[:2], policy.sinks), bool)
    seen = np.concatenate([of_sinks, recent], axis=2) & (index[:, None] <= q)
    if window is not None:
        seen &= index[:, None] > q - window
    if seen.all():
        return None
    with torch.inference_mode(False):
        return torch.from_numpy(seen[:, None]).to(state.device)
