"""Decode steps read packed pages where they lie, through the backend's own attention."""

from __future__ import annotations

import logging
import weakref
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.framed import FramedStore
from kakeya_fast.hf.pages import PageStore
from kakeya_ref.types import Paged, PageLayout

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

    Rule: cache.attend.fused

    Parameters
    ----------
    q : (B, H, G, Q, D)
        In the coded basis of K.

    Returns
    -------
    out : (B, H, G, Q, E) float32, in the coded basis of V
    lse : (B, H, G, Q) float32
    """
    if not usable(state, q.shape[3], mask, refusal(state, q.dtype, backend)):
        return None
    store, policy = state.pages, state.policy
    table = store.block_table()
    origin = np.full(state.batch, state.length - q.shape[3], np.int64)
    since = table.since(policy.residual, state.step_from)
    paged = Paged(table.slots, table.first, table.length, since, origin, q.shape[3])
    rows = q.reshape(*q.shape[:2], 1, -1, q.shape[4])
    # A call without a mask is one that lies inside the window.
    window = policy.window if mask is not None else None
    out, lse = over_pages(backend, store, rows, paged, scaling, softcap=softcap, window=window)
    return out.view(*q.shape[:4], -1), lse.view(q.shape[:4])


def over_pages(
    backend: Any, store: PageStore, q: Tensor, paged: Paged, scaling: float, **options: Any
) -> tuple[Tensor, Tensor]:
    """The partial over all pages of a store, and over what ``other`` holds, if given.

    Parameters
    ----------
    q : (B, H, M, D) or (B, H, 1, M, D)
        In the coded basis of K; as the model makes them where keys are coded in frames.
    """
    if not isinstance(store, FramedStore):
        return backend.attend_tensor(q, *store.pools(), store.layouts, paged, scaling, **options)
    found: Any = None
    for turned, part, more in store.runs(q, paged):
        given = options | more
        if found is not None:
            given["other"] = found
        found = backend.attend_tensor(turned, *store.pools(), store.layouts, part, scaling, **given)
    return found


def usable(state: LayerState, count: int, mask: Tensor | None, refused: str) -> bool:
    """Whether the backend reads the pages itself for ``count`` queries a row.

    The reason why it does not is logged once: ``refused``, if it never does, or a mask.

    Rule: cache.attend.logged
    """
    if count > MOST or not state.pages.used:
        return False
    reason = refused or _mask_refusal(state, mask, count)
    if reason and reason not in _said:
        _said.add(reason)
        LOG.warning("[cache.attend.logged] pages are decoded in every step: %s", reason)
    return not reason


def refusal(state: LayerState, dtype: torch.dtype, backend: Any) -> str:
    """Why the backend cannot read these pages itself; empty if it can."""
    if type(state.pages) not in (PageStore, FramedStore):
        return f"{state.policy.k} and {state.policy.v} have tables or means of their own"
    if isinstance(state.pages, FramedStore) and state.pages.tables.frame == 1:
        return f"every token of {state.policy.k} has a frame of its own"
    if dtype is torch.float64:
        return "queries are float64"
    if not hasattr(backend, "attend_tensor"):
        return f"{backend} has no attention"
    return _lacks(backend, state.layouts)


@lru_cache(maxsize=256)
def _lacks(backend: Any, layouts: tuple[PageLayout, PageLayout]) -> str:
    for layout in layouts:
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
