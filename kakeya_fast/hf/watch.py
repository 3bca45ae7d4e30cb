"""Listening to the attention layers of a model: what each is given, what errors would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.interface import BASES, base_forward, base_of
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
    sinks : (H * G,), optional
        Learned logits that take part in the softmax and have no value.
    """

    layer: int
    query: Tensor
    key: Tensor
    value: Tensor
    scaling: float
    window: int | None = None
    softcap: float | None = None
    sinks: Tensor | None = None

    def moved(self, first: int, page: int) -> tuple[Tensor, Tensor]:
        """How far errors of products move the outputs: weights of tokens and of queries.

        With attention ``a`` and output ``o`` of a query, an error of its logit of key ``j``
        moves ``o`` by ``a[j] * (v[j] - o)`` times that error. Errors of tokens are independent,
        so the squares of these lengths add up, over all pairs of a query and a key that it reads
        coded.

        Returns
        -------
        (H, T) and (H, G, T) float64
        """
        of_keys = torch.zeros(self.key.shape[1:3], dtype=torch.float64, device=self.key.device)
        of_queries = []
        for part in self.reads(first, page):
            out, value = part.looks @ part.value, part.value
            far = (out @ value.transpose(2, 3)).mul_(-2).add_(value.square().sum(-1)[:, :, None])
            far.add_(out.square().sum(-1, keepdim=True)).clamp_(min=0)
            squares = part.coded().square_().mul_(far)
            if part.slope is not None:
                squares.mul_(part.slope.square_())
            of_keys[:, part.columns] += squares.sum((1, 2))
            of_queries.append(squares.sum(3).double())
        return of_keys, torch.cat(of_queries, 2)

    def reads(self, first: int, page: int) -> Iterator[Reads]:
        """What some queries at a time read; exactly what is before ``first`` or of their page."""
        heads, tokens = self.key.shape[1:3]
        window = self.window or tokens
        at = torch.arange(tokens, device=self.key.device)
        own = (at - first).div(page, rounding_mode="floor")
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
            logits = logits.masked_fill_(unseen, -torch.inf)
            if self.sinks is not None:
                given = self.sinks.float().view(heads, -1, 1, 1).expand(-1, -1, len(rows), 1)
                logits = torch.cat([logits, given], -1)
            looks = logits.softmax(-1)[..., : len(there)]
            exact = (own[columns] >= own[rows, None]) | (there < first)
            yield Reads(columns, looks, value, exact, slope)


@dataclass(frozen=True)
class Reads:
    """What some queries read.

    Attributes
    ----------
    columns : slice
        The tokens that any of them sees.
    looks : (H, G, q, t)
        Attention.
    value : (H, 1, t, D)
    exact : (q, t) bool
        What a cache does not read from bytes.
    slope : (H, G, q, t), optional
        Of bounded logits.
    """

    columns: slice
    looks: Tensor
    value: Tensor
    exact: Tensor
    slope: Tensor | None

    def coded(self) -> Tensor:
        """Attention to what is read coded, elsewhere 0; attention itself is gone."""
        return self.looks.masked_fill_(self.exact, 0)


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
    config = model.config.get_text_config(decoder=True)
    base, before = base_of(model, config), config._attn_implementation
    AttentionInterface.register(NAME, partial(_watch, base=base))
    AttentionMaskInterface.register(NAME, dict(BASES)[base])
    model.set_attn_implementation(NAME)
    _watchers.append(see)
    try:
        yield
    finally:
        _watchers.pop()
        model.set_attn_implementation(before)


def _watch(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *args: Any,
    base: str,
    **kwargs: Any,
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
            kwargs.get("s_aux"),
        )
    )
    return base_forward(module, base)(module, query, key, value, *args, **kwargs)
