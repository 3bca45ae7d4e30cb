"""A cache layer as the library sees it: ``update`` takes tokens in, ``attend`` reads them."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.cache_utils import CacheLayerMixin

from kakeya_fast.hf.attention import attend, check
from kakeya_fast.hf.placed import PlacedStore
from kakeya_fast.hf.policy import Policy
from kakeya_fast.hf.state import UNKNOWN, LayerState
from kakeya_fast.hf.step import Step, check_finite
from kakeya_ref.errors import KakeyaError, ShapeError, Unsupported, UsageError

# Tokens whose exact copies outlive packing while a rollback may come: more than any drafter
# proposes in one step, and a constant, so that a long prompt is not kept exact.
RECORD = 256
# Where looking at a number means waiting for the device, the few tokens of a decode step are
# looked at once a forward, before it counts as taken in.
LATE, FEW = ("cuda",), 8


@lru_cache(maxsize=32)
def _nan(dtype: torch.dtype, device: torch.device) -> Tensor:
    # NaN: a model that computes with it instead of following the handle fails loudly.
    with torch.inference_mode(False):
        return torch.full((1, 1, 1, 1), torch.nan, dtype=dtype, device=device)


class PackedLayer(CacheLayerMixin):
    """Append-only packed cache of one full-attention layer.

    ``update`` takes keys and values; ``attend``, which the registered attention function calls
    right after it with the queries of the same tokens, packs what is complete and reads.
    Every row has its own pages: they begin after its first ``sinks`` real tokens, so neither
    padding nor the other rows of the batch show in its bytes.

    Rule: cache.append.causal, cache.page.never-reencoded, cache.read.own-page-exact,
    cache.row.independent, cache.step.whole

    Parameters
    ----------
    policy : Policy
    readers : int
        How many attention layers read one ``update``: more than one where the model shares keys
        and values between layers.

    Attributes
    ----------
    state : LayerState or None
        None before the first token.
    """

    is_compileable = False
    is_croppable = True
    is_sliding = False

    def __init__(self, policy: Policy, readers: int = 1) -> None:
        super().__init__()
        self.policy = policy
        self.readers = readers
        self.record_past = False
        # A cache of several layers gives them one step and their indices.
        self.index, self.step = 0, Step()
        self._clear()

    def _clear(self) -> None:
        self.state: LayerState | None = None
        self.is_initialized = False
        # Attention calls that have read the newest tokens, and how many tokens these are.
        self.reads = 0
        self.newest = 0
        self.leaving = False

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Take shapes, dtype and device from the first tensors, (B, H, q, D)."""
        self.state = LayerState(self.policy, key_states, value_states)
        self.dtype, self.device = key_states.dtype, key_states.device
        self.is_initialized = True

    @torch.no_grad()
    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Append keys and values, exactly.

        Parameters
        ----------
        key_states, value_states : (B, H, q, D), finite

        Returns
        -------
        Two tensors (B, H, T, D). Packed attention: NaN without storage, with a handle that the
        attention function follows. Dense attention: all tokens, the packed ones decoded.

        Raises
        ------
        ShapeError, RangeError, Unsupported
            The tokens of this forward are gone again, from every layer of the cache.
        """
        with self.step.whole():
            if self.state is not None:
                self.prefetch()
                self._finish()
                # Not earlier: while a forward may still be refused, nothing leaves.
                self.state.slide(RECORD if self.record_past else 0)
            self.step.enter(self.index, self)
            self._check(key_states, value_states)
            if self.state is None:
                self.lazy_initialization(key_states, value_states)
            self.state.append(key_states, value_states)
            if self.policy.attention == "packed":
                return self._placeholder(key_states), self._placeholder(value_states)
            # The mask does not come this way: padding counts as tokens here.
            dense = self.state.dense()
            self.state.settle(np.zeros(self.state.batch, np.int64))
            self._finish()
            self.step.leave(self.index)
        return dense

    def attend(
        self,
        query: Tensor,
        mask: Tensor | None,
        scaling: float,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        places: Tensor | None = None,
    ) -> Tensor:
        """Attention of the tokens just appended; see :func:`kakeya_fast.hf.attention.attend`.

        ``places`` (B or 1, Q) are the model's own positions, for codecs with frames.

        Raises
        ------
        RangeError
            The codec cannot carry a value.
        ShapeError, Unsupported
            Queries or mask do not fit.
        UsageError
            No tokens were appended for these queries.

        After any of them the tokens of this forward are gone again, from every layer.
        """
        with self.step.whole():
            new = self.newest if self.reads else self.get_seq_length() - self._settled
            if not 0 < query.shape[2] <= new:
                raise UsageError(
                    "cache.attend.order", f"{query.shape[2]} queries after {new} appended tokens"
                )
            check(self.state, query, mask)
            self.prefetch()
            if not self.reads:
                starts = self._starts(mask)
                if isinstance(self.state.pages, PlacedStore):
                    self.state.pages.place(starts, places, self.state.length)
                self.state.settle(starts)
            self.newest = new
            self.reads += 1
            out = attend(self.state, query, mask, scaling, softcap, s_aux)
            if self.reads >= self.readers:
                self._finish()
                self.step.leave(self.index)
        return out

    def mark(self) -> dict[str, Any] | None:
        """What :meth:`restore` needs; None before the first token."""
        return self.state.mark() if self.state else None

    def restore(self, mark: dict[str, Any] | None) -> None:
        """Be again as at :meth:`mark`."""
        if mark is None or self.state is None:
            self._clear()
            return
        self.state.restore(mark)
        self.reads, self.leaving = 0, False

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Length and offset of the keys that the next ``query_length`` tokens will see."""
        return self.get_seq_length() + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens seen, padding included."""
        return self.state.length if self.state else 0

    def get_max_length(self) -> int:
        """No maximum."""
        return -1

    @property
    def batch_size(self) -> int:
        """Rows of the batch; absent before the first token."""
        if self.state is None:
            raise AttributeError("batch_size is known once tokens have come")
        return self.state.batch

    def activate_past_recording(self) -> None:
        """Keep exact copies of recent tokens, so that ``crop`` undoes packing without a trace."""
        self.record_past = True

    def crop(self, tokens_to_remove: int) -> None:
        """Remove the last ``-tokens_to_remove`` tokens.

        A crop that lands inside a packed page leaves a short page, whose bytes stay; while the
        past is recorded, a crop of up to 256 tokens dissolves pages into exact tokens instead, as
        if the removed tokens had never come.

        Rule: cache.crop.short-page, cache.crop.recorded

        Raises
        ------
        UsageError, Unsupported
            As :meth:`check_crop`.
        """
        self.check_crop(tokens_to_remove)
        if self.state is None:
            return
        self._finish()
        if tokens_to_remove:
            self.state.crop(max(0, self.state.length + tokens_to_remove))
        self.state.trim()

    def check_crop(self, tokens_to_remove: int) -> None:
        """Refuse a crop after which a query would see tokens that have left the window.

        Rule: cache.crop.negative, cache.crop.window

        Raises
        ------
        UsageError
            No whole number of tokens, or a positive one.
        Unsupported
        """
        if not hasattr(tokens_to_remove, "__index__") or tokens_to_remove > 0:
            raise UsageError(
                "cache.crop.negative",
                f"crop({tokens_to_remove!r}) is not offered; crop(-n) removes n tokens",
            )
        window = self.policy.window
        if self.state is None or window is None:
            return
        length = max(0, self.state.length + tokens_to_remove)
        if length - window + 1 < self.state.left and length:
            raise Unsupported(
                "cache.crop.window",
                f"tokens up to {self.state.left} have left; a crop to {length} would need those "
                f"from {length - window + 1} on",
            )

    def dense(self) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """K and V (B, H, T, D) of all tokens, the packed ones decoded; a copy, not kept.

        What has left a sliding window is zero.
        """
        return self.state.dense() if self.state else (None, None)

    def reset(self) -> None:
        """Forget everything."""
        self._clear()

    def offload(self) -> None:
        """Move all tensors to the CPU, after the attention that is still to come."""
        self.leaving = self.state is not None
        if self.leaving and not self._busy:
            self._finish()

    def prefetch(self) -> None:
        """Move all tensors back to the device they came from."""
        if self.state is not None:
            self.state.to(self.device)

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Take these rows, in this order."""
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat every row ``repeats`` times."""
        if self.state is not None:
            self.batch_select_indices(torch.arange(self.state.batch).repeat_interleave(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows: indices, or a mask."""
        if self.state is not None:
            rows = torch.as_tensor(indices)
            self.state.select(rows.nonzero()[:, 0] if rows.dtype is torch.bool else rows)

    # -- inside -------------------------------------------------------------------------------

    @property
    def _settled(self) -> int:
        return self.state.settled if self.state else 0

    @property
    def _busy(self) -> bool:
        return self.state.length > self.state.settled or self.reads > 0

    def _finish(self) -> None:
        """End a step: pack what no attention came for, drop exact copies, leave the device."""
        state = self.state
        if state.length > state.settled and (state.starts != UNKNOWN).all():
            try:
                state.settle(state.starts)
            except KakeyaError:
                # They would fail again at every later call, and nobody has read them.
                state.crop(state.settled)
                raise
        self.reads = 0
        state.trim(RECORD if self.record_past else 0)
        if self.leaving:
            self.leaving = False
            state.to("cpu")

    def _starts(self, mask: Tensor | None) -> NDArray[np.int64]:
        """First real token of each row, from the mask: the first column that any query sees."""
        state = self.state
        unknown = state.starts == UNKNOWN
        if not unknown.any():
            return state.starts
        if mask is None:
            return np.where(unknown, 0, state.starts)
        seen = mask if mask.dtype is torch.bool else mask > torch.finfo(mask.dtype).min / 2
        seen = seen.any(2).any(1).expand(state.batch, -1)
        first = torch.where(seen.any(1), seen.int().argmax(1), UNKNOWN).cpu().numpy()
        if ((first != UNKNOWN) & unknown & (first < state.tail_from)).any():
            raise Unsupported("cache.row.start", "the mask shows tokens that it hid as padding")
        return np.where(unknown, first, state.starts)

    def _placeholder(self, like: Tensor) -> Tensor:
        out = _nan(like.dtype, like.device).expand(
            *like.shape[:2], self.state.length, like.shape[3]
        )
        out._kakeya_layer = self
        return out

    def _check(self, k: Tensor, v: Tensor) -> None:
        if k.dim() != 4 or k.shape[:3] != v.shape[:3] or k.dtype != v.dtype:
            raise ShapeError(
                "cache.append.shape",
                f"keys {tuple(k.shape)} {k.dtype} and values {tuple(v.shape)} {v.dtype}",
            )
        if k.requires_grad or v.requires_grad:
            raise Unsupported(
                "cache.model.eval", "a packed cache has no gradient; run under torch.no_grad()"
            )
        if self.state is not None:
            dims = [layout.head_dim for layout in self.state.layouts]
            have = (self.state.batch, self.state.heads, *dims, self.dtype)
            came = (*k.shape[:2], k.shape[3], v.shape[3], k.dtype)
            if have != came:
                raise ShapeError(
                    "cache.append.shape",
                    f"{came} does not continue a cache of (rows, KV heads, size of keys, size of "
                    f"values, dtype) {have}",
                )
        at = self.get_seq_length()
        if k.device.type in LATE and k.shape[2] <= FEW:
            self.step.watch(k, v, at)
        else:
            check_finite(k, v, at)
