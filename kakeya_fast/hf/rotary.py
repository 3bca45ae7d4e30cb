"""Which rotary embedding each layer has, found by asking the model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.rope import Rope
from kakeya_ref.errors import Unsupported

WATCH = "kakeya_watch"
# Positions at which keys are compared with those of position 0, and what rounding may cost.
PLACES = (0, 1, 2, 7, 100)
TOLERANCE = 2e-3

_watchers: list[Any] = []


@contextmanager
def watching(model: PreTrainedModel, see: Any) -> Iterator[None]:
    """While inside, ``see(layer, query, key)`` gets what every attention layer is given.

    Rule: cache.attend.option

    Raises
    ------
    Unsupported
        A model that does not call attention through the library's registry.
    """
    if not model._can_set_attn_implementation():
        raise Unsupported(
            "cache.attend.option", f"the attention of {type(model).__name__} cannot be listened to"
        )
    AttentionInterface.register(WATCH, _watch)
    AttentionMaskInterface.register(WATCH, sdpa_mask)
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    model.set_attn_implementation(WATCH)
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.pop()
        model.set_attn_implementation(before)


def _watch(module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any):
    _watchers[-1](module.layer_idx, query, key)
    return sdpa_attention_forward(module, query, key, value, *args, **kwargs)


def ropes(model: PreTrainedModel) -> dict[int, Rope]:
    """The rotary embedding of every attention layer.

    A sequence of one token has the same keys in every layer wherever it stands, but for its
    rotation; so one forward of single tokens at several positions tells pairing, partial
    rotation, frequencies and layers without rotation, and shows what is none of these.

    Rule: query.frame.rotation

    Raises
    ------
    Unsupported
        Keys that no known rotation explains: several axes, frequencies that change with length.
    """
    config = model.config.get_text_config(decoder=True)
    found = [b for n, b in model.named_buffers() if n.endswith("inv_freq") and b.dim() == 1]
    kinds = {str(getattr(m, "rope_type", "default")) for m in model.modules()}
    changing = sorted(kinds & {"dynamic", "longrope"})
    axes = getattr(config, "rope_parameters", None) or {}
    if changing or "mrope_section" in str(axes):
        what = ", ".join(changing) or "positions of several axes"
        raise Unsupported("query.frame.rotation", f"{type(model).__name__} has {what}")
    keys: dict[int, Tensor] = {}
    token = min(5, config.vocab_size - 1)
    ids = torch.full((len(PLACES), 1), token, device=model.device)
    at = torch.tensor(PLACES, device=model.device)
    with torch.no_grad(), watching(model, lambda i, q, k: keys.setdefault(i, k[:, :, 0].double())):
        model(ids, position_ids=at[:, None], use_cache=False, logits_to_keep=1)
    frequencies = {tuple(b.double().tolist()) for b in found}
    candidates = [Rope(()), *(Rope(f, inter) for f in frequencies for inter in (False, True))]
    return {layer: _best(layer, k, at, candidates) for layer, k in keys.items()}


def _best(layer: int, keys: Tensor, at: Tensor, candidates: list[Rope]) -> Rope:
    """The candidate that turns the key at position 0 (first row) into all others."""
    size = keys.shape[-1]
    fits = [r for r in candidates if 2 * len(r.frequencies) <= size and size % 2 == 0]
    first = keys[:1].expand_as(keys)
    errors = [float((r.turned(first, at[:, None]) - keys).norm() / keys.norm()) for r in fits]
    least = min(range(len(fits)), key=errors.__getitem__)
    if not errors[least] < TOLERANCE:
        raise Unsupported(
            "query.frame.rotation",
            f"no known rotation explains the keys of layer {layer} ({errors[least]:.1e} off)",
        )
    return fits[least]
