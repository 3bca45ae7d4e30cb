"""Attention over packed pages, tile by tile, with an online softmax.

Nothing here grows with the context except the packed bytes that are read. In a decode step the
backend's own attention reads the pages where they lie; elsewhere a tile of pages is decoded once,
used by every query that may see it, and dropped. Everything is computed in the
coded basis, which costs one rotation per query instead of one per cached token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf import decode, fused
from kakeya_fast.hf.basis import rotation
from kakeya_fast.hf.framed import FramedKeys, FramedStore
from kakeya_ref.errors import ShapeError

if TYPE_CHECKING:
    from kakeya_fast.hf.state import LayerState

# Tokens decoded at once.
TILE = 512
# Scores held at once, over all heads and rows: bounds the query tile.
SCORES = 1 << 21
NEVER = np.iinfo(np.int64).max


@torch.no_grad()
def attend(
    state: LayerState,
    query: Tensor,
    mask: Tensor | None,
    scaling: float,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
) -> Tensor:
    """Attention of the newest tokens over everything the layer holds.

    The query at index ``q`` reads from packed bytes every page before that of token
    ``q - residual``, and the rest exactly, so the result does not depend on how the sequence was
    cut into calls.

    Rule: cache.read.own-page-exact, cache.read.recent-exact, cache.append.causal

    Parameters
    ----------
    state : LayerState
        Its pages are up to date; its exact tail still holds the pages of these queries.
    query : (B, H * G, Q, D)
        Queries of the last ``Q`` cache indices.
    mask : (B or 1, 1 or H * G, Q, T) bool (True: may look) or float (added), or None (causal)
    softcap : float, optional
        Scores become ``softcap * tanh(score / softcap)``.
    s_aux : (H * G,), optional
        Learned logits that take part in the softmax and have no value.

    Returns
    -------
    (B, Q, H * G, Dv), dtype of ``query``. A query that may look at nothing gets zeros.
    """
    out = decode.attend(state, query, mask, scaling, softcap, s_aux)
    if out is not None:
        return out
    run = _Run(state, query, mask, scaling, softcap, s_aux)
    packed = fused.partial(state, run.q, mask, scaling, softcap, run.backend)
    if packed is not None:
        run.join(*packed)
    else:
        per_tile = max(1, TILE // state.policy.page_tokens)
        for a in range(0, state.pages.used, per_tile):
            _read_pages(run, a, min(a + per_tile, state.pages.used))
    # Narrow tiles: the block around the diagonal is mostly invisible in wide ones.
    for i0, i1 in run.query_tiles(4 * state.policy.page_tokens):
        _read_exact(run, i0, i1)
    return run.result()


def check(state: LayerState, query: Tensor, mask: Tensor | None) -> None:
    """Refuse queries or a mask that do not fit the state.

    Raises
    ------
    ShapeError
    """
    batch, heads, count, size = query.shape
    if batch != state.batch or heads % state.heads or size != state.layouts[0].head_dim:
        raise ShapeError(
            "cache.attend.shape",
            f"queries {tuple(query.shape)} for {state.batch} rows, {state.heads} KV heads and "
            f"head dim {state.layouts[0].head_dim}",
        )
    if mask is None:
        return
    fits = mask.dim() == 4 and mask.shape[0] in (1, batch) and mask.shape[1] in (1, heads)
    if not fits or mask.shape[2] != count or mask.shape[3] != state.length:
        raise ShapeError(
            "cache.attend.shape",
            f"mask {tuple(mask.shape)} for {count} queries over {state.length} tokens",
        )


def _read_pages(run: _Run, a: int, b: int) -> None:
    """Fold pages ``a..b`` of every row into the queries that read them from bytes."""
    state, size = run.state, run.state.policy.page_tokens
    first = state.pages.first[:, a:b].astype(np.int64)
    length = state.pages.length[:, a:b]
    # What was packed before this step has no exact copy left, whatever was cropped since.
    lag = np.where(first >= state.step_from[:, None], state.policy.residual, 0)
    end = np.where(length > 0, first + length + lag, NEVER)
    oldest, newest = int(end.min()), int(end.max())
    whole = bool((length == size).all())
    columns: slice | Tensor
    if whole and (first == first[0, 0] + size * np.arange(b - a)).all():
        columns = slice(int(first[0, 0]), int(first[0, 0]) + size * (b - a))
    else:
        spread = (first[:, :, None] + np.arange(size)).reshape(len(first), -1)
        # What a short page has lost may lie beyond the end; it is never visible.
        columns = run.to_device(np.minimum(spread, state.length - 1))
    # A token counts from the query that reads its page; what a short page lost never counts.
    since = np.where(np.arange(size) < length[:, :, None], end[:, :, None], NEVER)
    keys = values = None
    for start, i1 in run.query_tiles():
        i0 = max(start, oldest - run.origin)
        if i0 >= i1:
            continue
        if keys is None:
            keys = state.pages.decode(a, b, 0, run.backend, "coefficients").to(run.dtype)
            if isinstance(state.pages, FramedStore):
                keys = state.pages.framed(keys, a, b)
            values = state.pages.decode(a, b, 1, run.backend, "coefficients").to(run.dtype)
        visible = None
        if not whole or newest > run.origin + i0:
            limit = run.to_device(since.reshape(len(since), 1, -1))
            visible = run.columns(i0, i1)[None, :, None] >= limit
        run.fold(i0, i1, keys, values, columns, visible)


def _read_exact(run: _Run, i0: int, i1: int) -> None:
    """Fold the sinks and what these queries read exactly: at most ``residual + P - 1`` back."""
    state, policy = run.state, run.state.policy
    oldest = run.origin + i0 - policy.residual - policy.page_tokens + 1
    begin, end = max(state.tail_from, oldest), run.origin + i1
    for lo in range(begin, end, TILE):
        hi = min(lo + TILE, end)
        own = slice(lo - state.tail_from, hi - state.tail_from)
        columns, visible = _recent(run, i0, i1, lo, hi)
        keys, values = state.tail_k[:, :, own], state.tail_v[:, :, own]
        if policy.sinks and lo == begin:
            start = run.to_device(np.where(state.starts < 0, state.length, state.starts))[:, None]
            sink = start + torch.arange(policy.sinks, device=start.device)
            seen = sink[:, None, :] <= run.columns(i0, i1)[None, :, None]
            visible = torch.cat([seen, visible], dim=2)
            columns = torch.cat([sink.clamp(max=state.length - 1), columns], dim=1)
            keys = torch.cat([state.sink_k, keys], dim=2)
            values = torch.cat([state.sink_v, values], dim=2)
        keys, values = (
            _into(keys.to(run.dtype), run.bases[0]),
            _into(values.to(run.dtype), run.bases[1]),
        )
        run.fold(i0, i1, keys, values, columns, visible)


def _recent(run: _Run, i0: int, i1: int, lo: int, hi: int) -> tuple[Tensor, Tensor]:
    """Columns (B, T) of the exact tokens ``lo..hi``, and which queries read them: (B, Q, T)."""
    state, size = run.state, run.state.policy.page_tokens
    cut = run.to_device(state.step_from)[:, None]
    tail = torch.arange(lo, hi, device=run.q.device)[None, :]
    q = run.columns(i0, i1)[None, :, None]
    last = q - state.policy.residual - cut[:, :, None]
    page = torch.div(tail - cut, size, rounding_mode="floor")
    recent = page[:, None, :] >= torch.div(last, size, rounding_mode="floor")
    visible = (tail >= cut)[:, None, :] & (tail[:, None, :] <= q) & recent
    return tail.expand(len(cut), -1), visible


def _into(x: Tensor, basis: Tensor | None) -> Tensor:
    """Vectors as coefficients."""
    return x if basis is None else x @ basis.T


class _Run:
    """Running maximum, sum and weighted values of all queries of one call."""

    def __init__(
        self,
        state: LayerState,
        query: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None,
        s_aux: Tensor | None,
    ) -> None:
        batch, heads, count, _ = query.shape
        groups = heads // state.heads
        self.state, self.mask, self.scaling, self.softcap = state, mask, scaling, softcap
        self.backend = state.policy.open(state.device, state.layouts)
        self.origin = state.length - count
        self.dtype = torch.float64 if query.dtype is torch.float64 else torch.float32
        self.out_dtype = query.dtype
        self.bases = [rotation(x, self.dtype, query.device) for x in state.layouts]
        q = query.reshape(batch, state.heads, groups, count, query.shape[-1])
        self.q = q if self.bases[0] is None else _into(q.to(self.dtype), self.bases[0])
        shape = (batch, state.heads, groups, count)
        options = {"dtype": self.dtype, "device": query.device}
        self.top = torch.full((*shape, 1), -torch.inf, **options)
        self.sum = torch.zeros((*shape, 1), **options)
        self.acc = torch.zeros((*shape, state.layouts[1].head_dim), **options)
        if s_aux is not None:
            self.top[:] = s_aux.to(self.dtype).view(1, state.heads, groups, 1, 1)
            self.sum[:] = 1
        widest = max(TILE, state.policy.page_tokens) + state.policy.sinks
        self.step = max(16, SCORES // (batch * heads * widest))

    def query_tiles(self, widest: int | None = None) -> list[tuple[int, int]]:
        """Bounds of the query tiles."""
        count, step = self.q.shape[3], min(self.step, widest or self.step)
        return [(i, min(i + step, count)) for i in range(0, count, step)]

    def columns(self, i0: int, i1: int) -> Tensor:
        """Cache indices of queries ``i0..i1``."""
        return torch.arange(self.origin + i0, self.origin + i1, device=self.q.device)

    def to_device(self, host: NDArray[np.int64]) -> Tensor:
        """A small host array beside the queries."""
        return torch.from_numpy(np.ascontiguousarray(host)).to(self.q.device)

    def join(self, out: Tensor, lse: Tensor) -> None:
        """Take in a partial (B, H, G, Q, E) and (B, H, G, Q) of other tokens, all queries.

        Rule: attend.merge
        """
        lse = lse[..., None]
        top = torch.maximum(self.top, lse)
        pivot = top.masked_fill(top == -torch.inf, 0)
        decay, weight = (self.top - pivot).exp_(), (lse - pivot).exp_()
        self.top, self.sum = top, self.sum * decay + weight
        self.acc = torch.addcmul(self.acc * decay, out, weight)

    def fold(
        self,
        i0: int,
        i1: int,
        keys: Tensor | FramedKeys,
        values: Tensor,
        columns: slice | Tensor,
        visible: Tensor | None,
    ) -> None:
        """Take keys (B, H, T, D), or such in frames, and values into queries ``i0..i1``.

        ``columns`` are the cache indices of the T tokens, ``visible`` is (B, Q, T) or None.
        """
        q = self.q[:, :, :, i0:i1].to(self.dtype)
        shape, rows = (*q.shape[:4], values.shape[2]), q.flatten(2, 3)
        framed = isinstance(keys, FramedKeys)
        score = keys.scores(rows) if framed else rows @ keys.transpose(2, 3)
        score = score.view(shape)
        score *= self.scaling
        if self.softcap is not None:
            score = score.div_(self.softcap).tanh_().mul_(self.softcap)
        if visible is not None:
            score.masked_fill_(~visible[:, None, None], -torch.inf)
        if self.mask is not None:
            self._mask(score, i0, i1, columns)
        old = self.top[:, :, :, i0:i1]
        top = torch.maximum(old, score.amax(-1, keepdim=True))
        # Where nothing is visible yet, -inf minus -inf would be NaN.
        pivot = top.masked_fill(top == -torch.inf, 0)
        weight = score.sub_(pivot).exp_()
        decay = (old - pivot).exp_()
        self.top[:, :, :, i0:i1] = top
        self.sum[:, :, :, i0:i1].mul_(decay).add_(weight.sum(-1, keepdim=True))
        add = (weight.flatten(2, 3) @ values).view(*shape[:4], -1)
        self.acc[:, :, :, i0:i1].mul_(decay).add_(add)

    def _mask(self, score: Tensor, i0: int, i1: int, columns: slice | Tensor) -> None:
        part = self.mask[:, :, i0:i1]
        if isinstance(columns, slice):
            part = part[..., columns]
        else:
            index = columns[:, None, None, :].expand(-1, part.shape[1], i1 - i0, -1)
            part = part.expand(len(index), -1, -1, -1).gather(3, index)
        heads = (1, 1) if part.shape[1] == 1 else score.shape[1:3]
        part = part.unflatten(1, heads)
        if part.dtype is torch.bool:
            score.masked_fill_(~part, -torch.inf)
        else:
            # The library writes "forbidden" as the lowest finite number of the dtype.
            score += part
            score.masked_fill_(part <= torch.finfo(part.dtype).min / 2, -torch.inf)

    def result(self) -> Tensor:
        """Weighted values over sums, heads last but one."""
        out = self.acc / self.sum.masked_fill(self.sum == 0, 1)
        if self.bases[1] is not None:
            out = out @ self.bases[1]
        return out.flatten(1, 2).transpose(1, 2).to(self.out_dtype).contiguous()
