"""Moments by attention, and what reads values: for codecs that are not in the format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from benchmarks.damage.forward import PAGE, SINKS
from kakeya_fast.hf.calibrate import Weighed
from kakeya_fast.hf.rope import Rope
from kakeya_fast.hf.watch import Call, watching


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

    def see(call: Call) -> None:
        heads, tokens = call.key.shape[1:3]
        back = -torch.arange(tokens, device=call.key.device)
        got, gave = torch.zeros(heads, tokens, dtype=torch.float64, device=back.device), []
        for part in call.reads(SINKS, PAGE):
            squares = part.coded().square_()
            got[:, part.columns] += squares.sum((1, 2))
            gave.append(squares.sum(3))
        inside = slice(SINKS, SINKS + max(0, tokens - SINKS) // PAGE * PAGE)
        got = got[:, inside]
        turned, one = ropes[call.layer].turned, found.setdefault(call.layer, Attended())
        values = call.value[0, :, inside]
        one.values.add(values, torch.ones_like(got))
        one.looked_values.add(values, got)
        one.looked_keys.add(turned(call.key, back)[0, :, inside], got)
        queries = turned(call.query, back)[0].unflatten(0, (heads, -1))
        one.looking.add(queries.flatten(1, 2), torch.cat(gave, 2).flatten(1, 2))

    with watching(model, see):
        for ids in passages:
            model(torch.tensor([ids], device=model.device), use_cache=False, logits_to_keep=1)
    return found


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
