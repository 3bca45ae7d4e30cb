"""Moments of values, and what reads them: for codecs of values that are not in the format."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from benchmarks.damage.forward import PAGE, SINKS

NAME = "kakeya_values"
# Of one layer: weights of the tokens (H,), and by them sums of values (H, D) and of their squares
# (H, D, D).
Sums = tuple[Any, Any, Any]
# Every token counts alike, or as the squares of the attention that it gets: errors of tokens are
# independent, so in an output their squares add up.
PLAIN, LOOKED = "plain", "looked"


@torch.inference_mode()
def value_moments(model: Any, passages: list[list[int]]) -> dict[str, dict[int, Sums]]:
    """Sums over the tokens of complete pages, both ways, in float64; layers as the model counts.

    Attention counts where a cache reads codes: from queries behind a token's page.
    """
    found: dict[str, dict[int, Sums]] = {PLAIN: {}, LOOKED: {}}

    def attend(
        module: nn.Module, q: Tensor, k: Tensor, v: Tensor, mask: Any, scaling: float = 1.0,
        **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        looks = _looks(q, k, scaling, getattr(module, "sliding_window", None))
        groups = q.shape[1] // k.shape[1]
        out = looks @ v.repeat_interleave(groups, 1)
        end = SINKS + max(0, q.shape[2] - SINKS) // PAGE * PAGE
        page = (torch.arange(q.shape[2], device=q.device) - SINKS) // PAGE
        behind = looks * (page[:, None] > page)
        got = behind.square().sum(2).unflatten(1, (-1, groups)).sum(2)[0, :, SINKS:end].double()
        values = v[0, :, SINKS:end].double()
        for kind, weight in ((PLAIN, torch.ones_like(got)), (LOOKED, got)):
            weighed = values * weight[..., None]
            sums = weight.sum(1), weighed.sum(1), weighed.transpose(1, 2) @ values
            old = found[kind].get(module.layer_idx, (0.0, 0.0, 0.0))
            new = tuple(a + b.cpu().numpy() for a, b in zip(old, sums, strict=True))
            found[kind][module.layer_idx] = new
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
    return (q @ k.transpose(2, 3) * scaling).masked_fill(~seen, -torch.inf).softmax(-1)


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


def spread_of(sums: Sums, head: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and covariance (D, D) of one head's values."""
    weight, mean, second = sums
    mean, second = mean[head] / weight[head], second[head] / weight[head]
    return mean, second - np.outer(mean, mean)
