"""Calibration of ``query``: moments of keys and queries from text, tables from moments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.keytables import KeyTables, LayerTables, fingerprint
from kakeya_fast.hf.rope import Rope, Spread, turned_moments
from kakeya_fast.hf.rotary import ropes, watching
from kakeya_ref.calibration import RIDGE, Moments, solve
from kakeya_ref.errors import UsageError
from kakeya_ref.registry import parse_codec
from kakeya_ref.skeletons import Skeleton

F64 = NDArray[np.float64]

# First tokens of a passage that count for nothing: caches keep sinks exact.
SINKS = 4
# Queries stand this near a frame, half of them, and anywhere in the context, the other half.
NEAR = 128


@dataclass
class Sums:
    """Running sums of one layer, before any rotation; their size does not depend on the text."""

    tokens: int = 0
    mean: F64 | float = 0.0
    keys: F64 | float = 0.0
    queries: F64 | float = 0.0


@dataclass
class Statistics:
    """What the tables of every frame length are computed from.

    Attributes
    ----------
    ropes : dict of layer to Rope
    sums : dict of layer to Sums
    tokens : int
        Tokens seen.
    """

    ropes: dict[int, Rope]
    sums: dict[int, Sums] = field(default_factory=dict)
    tokens: int = 0

    def add(self, layer: int, query: Tensor, key: Tensor) -> None:
        """Take queries (1, H * G, T, D) and keys (1, H, T, D) of one passage, as attention does."""
        back = -torch.arange(key.shape[2], device=key.device)
        turn = self.ropes[layer].turned
        k = turn(key, back)[0, :, SINKS:].double()
        q = turn(query, back)[0, :, SINKS:].double().unflatten(0, (k.shape[0], -1)).flatten(1, 2)
        one = self.sums.setdefault(layer, Sums())
        one.tokens += k.shape[1]
        one.mean = one.mean + k.sum(1).cpu().numpy()
        one.keys = one.keys + (k.transpose(1, 2) @ k).cpu().numpy()
        one.queries = one.queries + (q.transpose(1, 2) @ q).cpu().numpy()


def added(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of several texts together, each token counting alike."""
    out = Statistics(parts[0].ropes, {}, sum(part.tokens for part in parts))
    for layer in parts[0].sums:
        ones = [part.sums[layer] for part in parts]
        names = ("tokens", "mean", "keys", "queries")
        out.sums[layer] = Sums(*(sum(getattr(one, name) for one in ones) for name in names))
    return out


def statistics(
    model: PreTrainedModel,
    passages: Iterable[list[int]],
    step: Callable[[], None] = lambda: None,
) -> Statistics:
    """Moments of keys and queries of every layer over some passages, each read by itself.

    Parameters
    ----------
    passages : token ids of each, special tokens included
    step : called after each passage

    Raises
    ------
    Unsupported
        A model that cannot be listened to, or whose positions are no known rotation.
    UsageError
        No passage longer than the sinks.
    """
    found = Statistics(ropes(model))
    with torch.no_grad(), watching(model, found.add):
        for ids in passages:
            if len(ids) <= SINKS:
                continue
            text = torch.tensor([ids], device=model.device)
            model(text, use_cache=False, logits_to_keep=1)
            found.tokens += len(ids)
            step()
    if not found.tokens:
        raise UsageError("query.calibrate.text", "calibration needs passages of more than 4 tokens")
    return found


def tables(
    model: PreTrainedModel,
    found: Statistics,
    *,
    frame: int = 32,
    context: int = 8192,
    ridge: float = RIDGE,
    near: int = NEAR,
    far: float = 0.5,
    span: int = 0,
) -> KeyTables:
    """Tables of every layer for frames of that many tokens.

    Parameters
    ----------
    frame : int
        Tokens that share a frame; keys stand evenly inside of it.
    context : int
        The longest context to be served: queries look from anywhere up to there.
    ridge : float
        See :func:`kakeya_ref.calibration.solve`.
    near, far
        A share ``far`` of the queries stands anywhere in the context, the others within ``near``
        tokens of the start of a frame.
    span : int
        If above 0, keys stand in the first ``span`` positions of a frame only.

    Raises
    ------
    UsageError
        A frame or a context that means nothing.
    """
    if frame < 1 or context < 1:
        raise UsageError("query.calibrate.text", f"frame={frame}, context={context}")
    codec = parse_codec(f"query:f={frame}")
    size = min(frame, span or frame)
    where, reach = Spread(size), Spread(max(size, near), float(context), far)
    layers = {}
    for layer, one in found.sums.items():
        rope, made = found.ropes[layer], []
        for mean, keys, queries in zip(one.mean, one.keys, one.queries, strict=True):
            center, second = turned_moments(mean / one.tokens, keys / one.tokens, rope, where)
            _, looking = turned_moments(mean, queries, rope, reach)
            made.append(
                solve(Moments(center, second - np.outer(center, center), looking), codec, ridge)
            )
        bodies = np.stack([body for body, _ in made])
        analysis = np.stack([rows for _, rows in made])
        layers[layer] = LayerTables(Skeleton(bodies, analysis), rope, frame)
    made = {"context": context, "tokens": found.tokens}
    return KeyTables(layers, frame, fingerprint(model), made)
