"""The attention function and masks registered with the library, and how a model gets them.

Models call attention through a registry by name. Our names carry the implementation that serves
every layer that is not packed: ``kakeya_sdpa`` and ``kakeya_eager``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, eager_mask, sdpa_mask
from transformers.modeling_utils import PreTrainedModel

from kakeya_ref.errors import Unsupported

LOG = logging.getLogger("kakeya")
PREFIX = "kakeya_"
# Attention of the library that serves what we do not, and its masks.
BASES = ("sdpa", sdpa_mask), ("eager", eager_mask)


def attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    *,
    base: str,
    **kwargs: Any,
) -> tuple[Tensor, Tensor | None]:
    """Attention for models that hold a Kakeya cache; the library's contract.

    Keys with a handle are read from their layer's packed pages. Keys without one (layers of
    other kinds, no cache at all, training) go to ``base``.

    Rule: cache.attend.handle

    Raises
    ------
    Unsupported
        Placeholder keys without their handle, or an option that packed attention lacks.
    """
    layer = getattr(key, "_kakeya_layer", None)
    if layer is None:
        _refuse_placeholder(key)
        return base_forward(module, base)(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
    if dropout:
        raise Unsupported("cache.model.eval", "packed attention has no dropout; use model.eval()")
    for name in ("position_bias", "cache"):
        if kwargs.get(name) is not None:
            raise Unsupported("cache.attend.option", f"packed attention does not take {name}")
    causal = kwargs.get("is_causal")
    causal = getattr(module, "is_causal", True) if causal is None else causal
    if attention_mask is None and not causal and query.shape[2] > 1:
        raise Unsupported("cache.attend.option", "packed attention without a mask is causal")
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    softcap, s_aux = kwargs.get("softcap"), kwargs.get("s_aux")
    places = kwargs.get("position_ids")
    return layer.attend(query, attention_mask, scaling, softcap, s_aux, places), None


def _refuse_placeholder(key: Tensor) -> None:
    # Only placeholders are NaN: a layer refuses NaN before it hands them out.
    if key.numel() and bool(torch.isnan(key[:1, :1, :1, :1]).any()):
        raise Unsupported(
            "cache.attend.handle",
            "this model changes the keys between cache and attention; build the cache with "
            'attention="dense"',
        )


def base_forward(module: nn.Module, base: str) -> Callable[..., tuple[Tensor, Tensor | None]]:
    """The attention of a base, ``sdpa`` or ``eager``, as the module's model has it.

    Raises
    ------
    Unsupported
        A model without the eager one.
    """
    if base == "sdpa":
        return sdpa_attention_forward
    for kind in type(module).__mro__:
        eager = getattr(sys.modules.get(kind.__module__), "eager_attention_forward", None)
        if eager is not None:
            return eager
    raise Unsupported("cache.attend.base", f"no eager attention beside {type(module).__name__}")


def register() -> None:
    """Enter both names in the library's registries; doing it twice changes nothing.

    The mask functions are the library's own: without an entry there, the library drops masks,
    and padding would be attended to.
    """
    for base, mask in BASES:
        AttentionInterface.register(PREFIX + base, partial(attention_forward, base=base))
        AttentionMaskInterface.register(PREFIX + base, mask)


def takes_registry(model: PreTrainedModel, config: Any) -> str:
    """Why packed attention cannot serve this model; empty if it can."""
    name = type(model).__name__
    if not model._can_set_attn_implementation():
        return f"{name} does not call attention through the library's registry"
    if getattr(config, "kv_lora_rank", None) is not None:
        return f"{name} caches latents and expands them before attention"
    return ""


def base_of(model: PreTrainedModel, config: Any) -> str:
    """Which attention of the library gives what this model computes: ``sdpa`` or ``eager``."""
    before = config._attn_implementation or "sdpa"
    for base, _ in BASES:
        if before == PREFIX + base:
            return base
    capped = getattr(config, "attn_logit_softcapping", None) is not None
    # The layers that are not packed read dense tensors: flash and flex have no advantage that
    # would be worth a third base.
    return "eager" if before == "eager" or capped or not model._supports_sdpa else "sdpa"


def install(model: PreTrainedModel, config: Any) -> str:
    """Make the model's decoder attend through us; the name that was set.

    Rule: cache.attend.logged
    """
    register()
    before = config._attn_implementation or "sdpa"
    name = PREFIX + base_of(model, config)
    if before == name:
        return before
    if config is model.config:
        model.set_attn_implementation(name)
    else:
        part = next(k for k in model.config.sub_configs if getattr(model.config, k) is config)
        model.set_attn_implementation({part: name})
    LOG.info(
        "[cache.attend.logged] attention of %s: %s, was %s", type(model).__name__, name, before
    )
    return name
