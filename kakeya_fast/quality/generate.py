"""Greedy generation with a given cache, timed in its two parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Generated:
    """Tokens chosen after the prompt, and tokens per second of both parts."""

    tokens: tuple[int, ...]
    prefill_rate: float
    decode_rate: float


def generate(
    model: PreTrainedModel,
    prompt: Sequence[int],
    cache: Any,
    count: int,
    *,
    chunk: int = 512,
    step: Callable[[], None] = lambda: None,
) -> Generated:
    """``count`` greedy tokens after ``prompt``, which goes through the model in chunks.

    ``step`` is called after every forward pass. The special end token does not stop it: every
    cache is timed over the same number of steps.
    """
    import torch

    chosen: list[int] = []
    with torch.inference_mode():
        ids = torch.tensor([list(prompt)], device=model.device)
        began = time.perf_counter()
        for begin in range(0, len(prompt), chunk):
            logits = _last(model, ids[:, begin : begin + chunk], cache)
            step()
        chosen.append(int(logits.argmax()))
        middle = time.perf_counter()
        for _ in range(count - 1):
            logits = _last(model, torch.tensor([[chosen[-1]]], device=model.device), cache)
            chosen.append(int(logits.argmax()))
            step()
        end = time.perf_counter()
    decode = (count - 1) / (end - middle) if count > 1 else 0.0
    return Generated(tuple(chosen), len(prompt) / (middle - began), decode)


def _last(model: PreTrainedModel, ids: Any, cache: Any) -> Any:
    return model(ids, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
