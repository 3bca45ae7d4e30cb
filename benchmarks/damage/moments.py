"""Moments by attention, and what reads values: for codecs that are not in the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from benchmarks.damage.forward import PAGE, SINKS
from kakeya_fast.hf.calibrate import Weighed
from kakeya_fast.hf.rope import Rope

NAME = "kakeya_moments"


@dataclass
class Attended:
    """Moments of one layer over complete pages; keys and queries turned back to position 0.

    Attributes
    ----------
    values : Weighed
        Every token counts alike.
    looked_values, looked_keys : Weighed
        A token counts as the squares of the attention that it gets from behind its page, where a
        cache reads codes: errors of tokens are independent, so their squares add up.
    looking : Weighed
        Queries, each counting as the squares of the attention that it gives so.
    """

    values: Weighed = field(default_factory=Weighed)
    looked_values: Weighed = field(default_factory=Weighed)
    looked_keys: Weighed = field(default_factory=Weighed)
    looking: Weighed = field(default_factory=Weighed)


@torch.inference_mode()
def moments(
    model: Any, ropes: Mapping[int, Rope], passages: list[list[int]]
) -> dict[int, Attended]:
    """Of every layer, over some passages."""
    found: dict[int, Attended] = {}

    def attend(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float = 1.0,
        **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        heads, tokens = k.shape[1:3]
        looks = _looks(q, k, scaling, getattr(module, "sliding_window", None))
        out = looks @ v.repeat_interleave(q.shape[1] // heads, 1)
        at = torch.arange(tokens, device=q.device)
        page = (at - SINKS) // PAGE
        squares = looks[0].masked_fill_(page[:, None] <= page, 0).square_()
        squares = squares.unflatten(0, (heads, -1))
        inside = slice(SINKS, SINKS + max(0, tokens - SINKS) // PAGE * PAGE)
        squares[..., :SINKS] = 0
        got, gave = squares.sum((1, 2))[:, inside], squares.sum(3)
        rope, one = ropes[module.layer_idx], found.setdefault(module.layer_idx, Attended())
        values = v[0, :, inside]
        one.values.add(values, torch.ones_like(got))
        one.looked_values.add(values, got)
        one.looked_keys.add(rope.turned(k, -at)[0, :, inside], got)
        turned = rope.turned(q, -at)[0].unflatten(0, (heads, -1))
        one.looking.add(turned.flatten(1, 2), gave.flatten(1, 2))
        return out.transpose(1, 2).contiguous(), None

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    try:
        for ids in passages:
            model(torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=1)
    finally:
        model.set_attn_implementation(before)
    return found


def _looks(q: Tensor, k: Tensor, scaling: float, window: int | None) -> Tensor:
    """Attention of every query on every key, (1, H of queries, T, T)."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], 1)
    at = torch.arange(q.shape[2], device=q.device)
    seen = (at <= at[:, None]) & (at > at[:, None] - (window or len(at)))
    logits = (q @ k.transpose(2, 3)).mul_(scaling).masked_fill_(~seen, -torch.inf)
    return logits.softmax(-1)


def readers_of(model: Any) -> dict[int, Any]:
    """Of each layer and KV head: what the output projection makes of an error of its values.

    Returns
    -------
    dict of layer to (H, D, D) float64
    """
    config = model.config.get_text_config(decoder=True)
    found = {}
    for module in model.modules():
        if not hasattr(module, "o_proj"):
            continue
        weight = module.o_proj.weight.detach().double()
        d = weight.shape[1] // config.num_attention_heads
        by_head = weight.unflatten(1, (config.num_attention_heads, d))
        each = torch.einsum("ohd,ohe->hde", by_head, by_head)
        groups = each.unflatten(0, (config.num_key_value_heads, -1)).sum(1)
        found[module.layer_idx] = groups.cpu().numpy()
    return found
