"""Keys, values and queries of a real model, as its cache and its attention receive them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask

from kakeya_fast.hf.interface import attention_forward
from kakeya_ref.errors import Unsupported, UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "kakeya_capture"


@dataclass(frozen=True)
class Captured:
    """What one layer stored and asked over a text.

    Attributes
    ----------
    k, v : (H, T, D) float32
        Keys (after the rotary embedding) and values, one row per KV head.
    q : (H * G, T, D) float32 or None
        Queries after the rotary embedding, unscaled; query head ``j`` reads KV head ``j // G``.
    """

    k: NDArray[np.float32]
    v: NDArray[np.float32]
    q: NDArray[np.float32] | None = None

    def stream(self, name: str) -> NDArray[np.float32]:
        """``k`` or ``v``."""
        return {"k": self.k, "v": self.v}[name]


class _Recording(DynamicCache):
    """The library's cache, remembering what came in."""

    def __init__(self, config: Any, layers: Sequence[int]) -> None:
        super().__init__(config=config)
        self.came: dict[int, list[tuple[Tensor, Tensor]]] = {i: [] for i in layers}

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if layer_idx in self.came:
            self.came[layer_idx].append((key_states[0].clone(), value_states[0].clone()))
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)


def capture(
    model: PreTrainedModel,
    ids: Sequence[int],
    layers: Sequence[int],
    *,
    queries: bool = False,
    chunk: int = 512,
    step: Callable[[], None] = lambda: None,
) -> dict[int, Captured]:
    """Keys and values of chosen layers over one text, and their queries if asked for.

    Parameters
    ----------
    ids : (T,) int
        Token ids, special prefix included.
    layers : indices of model layers
    chunk : int
        Tokens of a forward pass; ``step`` is called after each.

    Raises
    ------
    UsageError
        A layer that does not exist (``capture.layer.range``).
    Unsupported
        A model that calls no attention through the registry, when queries are asked for
        (``capture.query.seen``).
    """
    depth = model.config.get_text_config(decoder=True).num_hidden_layers
    for layer in layers:
        if not 0 <= layer < depth:
            raise UsageError("capture.layer.range", f"layer {layer} of {depth}")
    cache = _Recording(model.config, layers)
    asked: dict[int, list[Tensor]] = {i: [] for i in layers}
    row = torch.tensor([list(ids)], device=model.device)
    with torch.inference_mode(), _listening(model, asked if queries else {}):
        for begin in range(0, row.shape[1], chunk):
            model(row[:, begin : begin + chunk], past_key_values=cache, logits_to_keep=1)
            step()
    found = {}
    for layer, came in cache.came.items():
        if not came or (queries and not asked[layer]):
            raise Unsupported("capture.query.seen", f"layer {layer} stores or asks nothing")
        k, v = (_host([pair[i] for pair in came]) for i in (0, 1))
        found[layer] = Captured(k, v, _host(asked[layer]) if queries else None)
    return found


def full_layers(model: PreTrainedModel) -> list[int]:
    """Indices of the layers with full attention: those that a packed cache can code."""
    types, _ = get_layer_types_and_kwargs(model.config.get_text_config(decoder=True))
    return [i for i, name in enumerate(types) if name == "full_attention"]


def _host(parts: Sequence[Tensor]) -> NDArray[np.float32]:
    return torch.cat(list(parts), dim=1).float().cpu().numpy()


@contextmanager
def _listening(model: PreTrainedModel, asked: dict[int, list[Tensor]]) -> Iterator[None]:
    """While this lasts, queries of the layers in ``asked`` are kept; nothing else changes."""
    if not asked:
        yield
        return
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation or "sdpa"
    # Ours carry the library's name of what they do with every other cache.
    base = before.removeprefix("kakeya_")
    if base not in ("sdpa", "eager"):
        raise Unsupported("capture.query.seen", f"attention {before!r} cannot be listened to")

    def listen(module: nn.Module, query: Tensor, *args: Any, **kwargs: Any) -> Any:
        layer = getattr(module, "layer_idx", None)
        if layer in asked:
            asked[layer].append(query[0].clone())
        return attention_forward(module, query, *args, base=base, **kwargs)

    AttentionInterface.register(NAME, listen)
    AttentionMaskInterface.register(NAME, sdpa_mask if base == "sdpa" else eager_mask)
    _switch(model, config, NAME)
    try:
        yield
    finally:
        _switch(model, config, before)


def _switch(model: PreTrainedModel, config: Any, name: str) -> None:
    if config is model.config:
        model.set_attn_implementation(name)
        return
    part = next(k for k in model.config.sub_configs if getattr(model.config, k) is config)
    model.set_attn_implementation({part: name})
