"""Listening to the attention layers of a model: what each is given, what errors would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask
from transformers.modeling_utils import PreTrainedModel

from kakeya_ref.errors import Unsupported

NAME = "kakeya_watch"
# Rows of logits that are there at a time.
ROWS = 256


@dataclass(frozen=True)
class Call:
    """What an attention layer is given for one passage.

    Attributes
    ----------
    layer : int
    query : (1, H * G, T, D)
    key, value : (1, H, T, D)
    scaling : float
    window : int, optional
        Tokens that a query of a sliding layer sees.
    softcap : float, optional
        Bound of the logits.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    window: int | None = None
    softcap: float | None = None

    def moved(self, first: int, page: int) -> tuple[Tensor, Tensor]:
        """How far errors of products move the outputs: weights of tokens and of queries.

        With attention ``a`` and output ``o`` of a query, an error of its logit of key ``j``
        moves ``o`` by ``a[j] * (v[j] - o)`` times that error. Errors of tokens are independent,
        so the squares of these lengths add up, over all pairs of a query and a key that it reads
        coded: not before ``first``, not of the query's own page.

        Returns
        -------
        (H, T) and (H, G, T) float64
        """
        heads, tokens = self.key.shape[1:3]
        window = self.window or tokens
        at = torch.arange(tokens, device=self.key.device)
        own = (at - first).div(page, rounding_mode="floor")
        of_keys = torch.zeros(heads, tokens, dtype=torch.float64, device=self.key.device)
        of_queries = []
        for rows in at.split(ROWS):
            # No query of these sees others.
            columns = slice(max(0, int(rows[0]) - window + 1), int(rows[-1]) + 1)
            key, value = (x[0, :, columns].float()[:, None] for x in (self.key, self.value))
            query = self.query[0, :, rows].float().unflatten(0, (heads, -1))
            logits = (query @ key.transpose(2, 3)).mul_(self.scaling)
            slope = None
            if self.softcap:
                bent = logits.div_(self.softcap).tanh_()
                slope, logits = 1 - bent.square(), bent * self.softcap
            there = at[columns]
            unseen = (there > rows[:, None]) | (there <= rows[:, None] - window)
            looks = logits.masked_fill_(unseen, -torch.inf).softmax(-1)
            out = looks @ value
            far = (out @ value.transpose(2, 3)).mul_(-2).add_(value.square().sum(-1)[:, :, None])
            far.add_(out.square().sum(-1, keepdim=True)).clamp_(min=0)
            exact = (own[columns] >= own[rows, None]) | (there < first)
            squares = looks.masked_fill_(exact, 0).square_().mul_(far)
            if slope is not None:
                squares.mul_(slope.square_())
            of_keys[:, columns] += squares.sum((1, 2))
            of_queries.append(squares.sum(3).double())
        return of_keys, torch.cat(of_queries, 2)


_watchers: list[Callable[[Call], None]] = []


@contextmanager
def watching(model: PreTrainedModel, see: Callable[[Call], None]) -> Iterator[None]:
    """While inside, ``see`` gets what every attention layer is given.

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
    AttentionInterface.register(NAME, _watch)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config = model.config.get_text_config(decoder=True)
    before = config._attn_implementation
    model.set_attn_implementation(NAME)
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.pop()
        model.set_attn_implementation(before)


def _watch(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Any:
    scaling = kwargs.get("scaling")
    _watchers[-1](
        Call(
            module.layer_idx,
            query,
            key,
            value,
            query.shape[-1] ** -0.5 if scaling is None else scaling,
            getattr(module, "sliding_window", None),
            kwargs.get("softcap"),
        )
    )
    return sdpa_attention_forward(module, query, key, value, *args, **kwargs)
