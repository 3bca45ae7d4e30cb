"""Calibration of ``query``: moments of keys and queries from text, tables from moments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.keytables import KeyTables, LayerTables, fingerprint
from kakeya_fast.hf.rope import Rope, Spread, turned_moments
from kakeya_fast.hf.rotary import ropes
from kakeya_fast.hf.watch import Call, watching
from kakeya_ref.calibration import RIDGE, Moments, solve
from kakeya_ref.errors import UsageError
from kakeya_ref.registry import parse_codec
from kakeya_ref.skeletons import Skeleton

F64 = NDArray[np.float64]

log = logging.getLogger("kakeya")

# First tokens of a passage that count for nothing: caches keep sinks exact.
SINKS = 4
# Tokens that a query reads exactly, as in a cache: attention behind them counts.
PAGE = 32
# Queries stand this near a frame, half of them, and anywhere in the context, the other half.
NEAR = 128


@dataclass
class Weighed:
    """Vectors of the KV heads of a layer, each by its weight.

    Attributes
    ----------
    weight : (H,)
        Of all vectors.
    mean, second : (H, D), (H, D, D)
        Sums of the vectors and of their squares, each times its weight.
    """

    weight: F64 | float = 0.0
    mean: F64 | float = 0.0
    second: F64 | float = 0.0

    def add(self, x: Tensor, weight: Tensor) -> None:
        """Take vectors (H, N, D) of weights (H, N)."""
        x, weight = x.double(), weight.double()
        weighed = x * weight[..., None]
        self.weight = self.weight + weight.sum(1).cpu().numpy()
        self.mean = self.mean + weighed.sum(1).cpu().numpy()
        self.second = self.second + (weighed.transpose(1, 2) @ x).cpu().numpy()

    def of(self, head: int) -> tuple[F64, F64]:
        """Mean (D,) and second moment (D, D) of one head."""
        return self.mean[head] / self.weight[head], self.second[head] / self.weight[head]

    def __add__(self, other: Weighed) -> Weighed:
        return Weighed(
            *(getattr(self, n) + getattr(other, n) for n in ("weight", "mean", "second"))
        )


@dataclass
class Sums:
    """Running sums of one layer, before any rotation; their size does not depend on the text.

    Attributes
    ----------
    keys, queries : Weighed
        Every token counts alike.
    moved_keys, moved_queries : Weighed
        Each counts by how far errors of its products move outputs (:meth:`Call.moved`).
    """

    keys: Weighed = field(default_factory=Weighed)
    queries: Weighed = field(default_factory=Weighed)
    moved_keys: Weighed = field(default_factory=Weighed)
    moved_queries: Weighed = field(default_factory=Weighed)

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


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

    def add(self, call: Call) -> None:
        """Take what a layer was given for one passage."""
        back = -torch.arange(call.key.shape[2], device=call.key.device)
        turn = self.ropes[call.layer].turned
        k = turn(call.key, back)[0, :, SINKS:]
        q = turn(call.query, back)[0, :, SINKS:].unflatten(0, (k.shape[0], -1)).flatten(1, 2)
        one = self.sums.setdefault(call.layer, Sums())
        one.keys.add(k, torch.ones_like(k[..., 0]))
        one.queries.add(q, torch.ones_like(q[..., 0]))
        of_keys, of_queries = call.moved(SINKS, PAGE)
        one.moved_keys.add(k, of_keys[:, SINKS:])
        one.moved_queries.add(q, of_queries[..., SINKS:].flatten(1, 2))


def added(parts: Sequence[Statistics]) -> Statistics:
    """Statistics of several texts together, each token counting alike."""
    out = Statistics(parts[0].ropes, {}, sum(part.tokens for part in parts))
    for layer in parts[0].sums:
        out.sums[layer] = sum((part.sums[layer] for part in parts), Sums())
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
    alike: float = 0.0,
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
    alike : float
        Share of the keys' covariance, about the weighed mean, in which all of them count alike;
        otherwise keys and queries count by how far errors of their products move outputs. With 1
        all count alike in everything.

    Raises
    ------
    UsageError
        A frame, a context or a share that means nothing.
    """
    if frame < 1 or context < 1 or not 0 <= alike <= 1:
        raise UsageError("query.calibrate.text", f"frame={frame}, context={context}, alike={alike}")
    codec = parse_codec(f"query:f={frame}")
    size = min(frame, span or frame)
    where, reach = Spread(size), Spread(max(size, near), float(context), far)
    layers, blind = {}, 0
    for layer, one in found.sums.items():
        rope, made = found.ropes[layer], []
        for head in range(len(one.keys.weight)):
            mean, second = one.keys.of(head)
            queries = one.queries.second[head]
            # A head may look at nothing but its own page; so do all where passages are short.
            seen = one.moved_keys.weight[head] > 0
            blind += alike < 1 and not seen
            if alike < 1 and seen:
                plain, (mean, second) = (mean, second), one.moved_keys.of(head)
                second = (1 - alike) * second + alike * _about(mean, *plain)
                queries = one.moved_queries.second[head]
            center, second = turned_moments(mean, second, rope, where)
            _, looking = turned_moments(mean, queries, rope, reach)
            covariance = second - np.outer(center, center)
            made.append(solve(Moments(center, covariance, looking), codec, ridge))
        bodies = np.stack([body for body, _ in made])
        analysis = np.stack([rows for _, rows in made])
        layers[layer] = LayerTables(Skeleton(bodies, analysis), rope, frame)
    if blind:
        log.warning("[query.calibrate.text] %d heads read no coded key: theirs count alike", blind)
    made = {"context": context, "tokens": found.tokens, "alike": alike}
    return KeyTables(layers, frame, fingerprint(model), made)


def _about(center: F64, mean: F64, second: F64) -> F64:
    """Second moment of vectors as if they had that center and kept their spread about it."""
    across = np.outer(center, mean)
    return second - across - across.T + 2 * np.outer(center, center)
