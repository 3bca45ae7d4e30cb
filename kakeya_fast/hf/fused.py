"""Decode steps read packed pages where they lie, through the backend's own attention."""

from __future__ import annotations

import logging
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.pages import PageStore
from kakeya_ref.types import Paged

if TYPE_CHECKING:
    from kakeya_fast.hf.state import LayerState

LOG = logging.getLogger("kakeya")
# Query tokens of a step that one pass over the pages serves: more of them are a prefill, where a
# tile that is decoded once serves hundreds of queries.
MOST = 8
_said: set[str] = set()


def partial(
    state: LayerState,
    q: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None,
    backend: Any,
) -> tuple[Tensor, Tensor] | None:
    """Output and log-sum-exp over all packed tokens, or None where they must be decoded.

    The reason for None is logged once.

    Rule: cache.attend.logged, cache.attend.fused

    Parameters
    ----------
    q : (B, H, G, Q, D)
        In the coded basis of K.

    Returns
    -------
    out : (B, H, G, Q, E) float32, in the coded basis of V
    lse : (B, H, G, Q) float32
    """
    if q.shape[3] > MOST or not state.pages.used:
        return None
    reason = _refusal(state, q, backend) or _mask_refusal(state, mask, q.shape[3])
    if reason:
        if reason not in _said:
            _said.add(reason)
            LOG.warning("[cache.attend.logged] pages are decoded in every step: %s", reason)
        return None
    store, count = state.pages, q.shape[3]
    table = store.block_table()
    since = table.first + table.length
    if state.policy.residual:
        # What was packed before this step has no exact copy left, whatever was cropped since.
        since = since + np.where(table.first >= state.step_from[:, None], state.policy.residual, 0)
    origin = np.full(state.batch, state.length - count, np.int64)
    on_cpu = q.device.type == "cpu"
    first, length, slots = table.first, table.length, table.slots
    if not on_cpu:
        first, length, slots = table.on(q.device)
        since, origin = (
            torch.from_numpy(np.ascontiguousarray(x)).to(q.device, non_blocking=True)
            for x in (since.astype(np.int32), origin)
        )
    paged = Paged(slots, first, length, since, origin, count)
    rows = q.reshape(*q.shape[:2], 1, -1, q.shape[4])
    # A call without a mask is one that lies inside the window.
    window = state.policy.window if mask is not None else None
    pools = store.pools()
    out, lse = backend.attend_tensor(
        rows, *pools, state.layouts, paged, scaling, softcap=softcap, window=window
    )
    return out.view(*q.shape[:4], -1), lse.view(q.shape[:4])


def _refusal(state: LayerState, q: Tensor, backend: Any) -> str:
    """Why the backend cannot read these pages itself; empty if it can."""
    if type(state.pages) is not PageStore:
        return f"{state.policy.k} and {state.policy.v} have tables of their own"
    if q.dtype is torch.float64:
        return "queries are float64"
    if not hasattr(backend, "attend_tensor"):
        return f"{backend} has no attention"
    for layout in state.layouts:
        if "attend" not in backend.supports(layout).features:
            return f"backend {backend.name} has no attention over {layout}"
    return ""


class _Verdicts:
    """What was found out about the newest masks: layers of one forward share them."""

    def __init__(self) -> None:
        self._kept: list[tuple[Any, Any, str]] = []

    def of(self, state: LayerState, mask: Tensor, count: int) -> str:
        """Why this mask is not the plain causal one; empty if it is."""
        window = state.policy.window
        key = (state.length, count, state.starts.tobytes(), window)
        for known, at, verdict in self._kept:
            if known() is mask and at == key:
                return verdict
        verdict = (
            "" if _is_causal(mask, state.starts, count, window) else "a mask that is not causal"
        )
        self._kept = [*self._kept[-3:], (weakref.ref(mask), key, verdict)]
        return verdict


_verdicts = _Verdicts()


def _mask_refusal(state: LayerState, mask: Tensor | None, count: int) -> str:
    if mask is None:
        # Without a mask there is no window yet.
        return "" if (state.starts == 0).all() else "no mask, but rows that begin later"
    return _verdicts.of(state, mask, count)


def _is_causal(
    mask: Tensor, starts: NDArray[np.int64], count: int, window: int | None = None
) -> bool:
    """Whether a mask shows every query the tokens of its row up to itself, and adds nothing."""
    if mask.shape[1] != 1:
        return False
    length = mask.shape[3]
    column = torch.arange(length, device=mask.device)
    start = torch.from_numpy(np.where(starts < 0, length, starts)).to(mask.device)
    seen = column >= start[:, None, None]
    own = torch.arange(length - count, length, device=mask.device)[:, None]
    seen = seen & (column <= own)
    if window is not None:
        seen &= column > own - window
    if mask.dtype is torch.bool:
        return bool((mask[:, 0] == seen).all())
    hidden = mask[:, 0] <= torch.finfo(mask.dtype).min / 2
    return bool(((hidden == ~seen) & (hidden | (mask[:, 0] == 0))).all())
