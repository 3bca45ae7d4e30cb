"""Options that differ from layer to layer: which are exact, and what metric their keys have."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kakeya_fast.hf.keytables import KeyTables, LayerTables
from kakeya_fast.hf.plan import Plan
from kakeya_fast.hf.policy import Policy
from kakeya_fast.hf.rope import Rope
from kakeya_ref.errors import ShapeError, Unsupported, UsageError
from kakeya_ref.registry import parse_codec, table_kind
from kakeya_ref.types import Codec

LOG = logging.getLogger("kakeya")

# The library's name of the layers that are packed.
FULL = "full_attention"
# Those that can be, too.
SLIDING = "sliding_attention"


def layer_policies(
    policy: Policy,
    kinds: Sequence[str],
    exact_layers: Sequence[int] = (),
    metric: Mapping[int, Any] | None = None,
    plan: Plan | None = None,
    tables: KeyTables | None = None,
    center: Mapping[int, Rope] | None = None,
) -> list[Policy]:
    """The policy of every model layer.

    Parameters
    ----------
    kinds : sequence of str
        The library's name for each layer.
    exact_layers, metric, plan
        As given to :func:`kakeya_fast.hf.build_kakeya_cache`.

    Raises
    ------
    UsageError
        A layer that does not exist; a metric for keys that are not fitted; a plan that codes a
        layer which is not packed.
    ShapeError
        A metric that is not (H, D, D) and finite.
    """
    planned = dict(plan.codecs) if plan else {}
    for index in planned:
        if index >= len(kinds) or kinds[index] != FULL:
            raise UsageError("cache.plan.file", f"layer {index} of this model is not packed")
    exact = {_index(i, len(kinds), "exact_layers") for i in exact_layers}
    for index in sorted(exact):
        if kinds[index] != FULL:
            LOG.info("layer %d is %s: exact without being asked to", index, kinds[index])
    if metric and table_kind(policy.k) != "skeleton":
        raise UsageError("cache.option.range", f"a metric does nothing for keys of {policy.k}")
    factors = {_index(i, len(kinds), "metric", 0): _factor(i, x) for i, x in (metric or {}).items()}
    exactly = ("raw", "raw")
    return [
        replace(
            policy,
            k=parse_codec(k),
            v=parse_codec(v),
            metric=None if i in exact else factors.get(i),
            keys=_keys(parse_codec(k), tables, i),
            center=None if i in exact else (center or {}).get(i),
        )
        for i in range(len(kinds))
        for k, v in [exactly if i in exact else planned.get(i, (policy.k, policy.v))]
    ]


def check_tables(policies: Sequence[Policy], tables: KeyTables | None) -> None:
    """Refuse ``query`` without its tables, or with those of other frames.

    Rule: query.tables.given, query.tables.match, query.frame.pages, query.stream.keys

    Raises
    ------
    UsageError
    """
    asked = [policy for policy in policies if policy.k.id == "query"]
    if any(policy.v.id == "query" for policy in policies):
        raise UsageError(
            "query.stream.keys", "query is for keys; values take trellis:gain=unbiased or scalar"
        )
    if not asked and tables is not None:
        raise UsageError(
            "query.tables.given", "tables are for keys of query, and none are asked for"
        )
    if asked and tables is None:
        raise UsageError(
            "query.tables.given",
            "query needs tables of this model: `kakeya calibrate --model M --text FILE --out "
            'tables.safetensors`, then tables="tables.safetensors"',
        )
    for policy in asked:
        frame = policy.k.integer("f")
        if tables.frame != frame or policy.keys is None:
            what = f"frames of {tables.frame} tokens, {len(tables.layers)} layers"
            raise UsageError("query.tables.match", f"these tables ({what}) do not serve {policy.k}")
        if frame != 1 and frame % policy.page_tokens:
            raise UsageError(
                "query.frame.pages", f"frames of {frame} tokens, pages of {policy.page_tokens}"
            )
        if table_kind(policy.v):
            raise UsageError("cache.option.range", f"query beside values of {policy.v}")


def _keys(codec: Codec, tables: KeyTables | None, index: int) -> LayerTables | None:
    """Tables of a layer whose keys are coded by ``query``."""
    return tables.layers.get(index) if tables is not None and codec.id == "query" else None


def sliding_policies(
    policies: list[Policy], kinds: Sequence[str], options: Sequence[Mapping[str, Any]], reach: str
) -> list[Policy]:
    """The same policies, with the window of every sliding layer, which is then packed.

    Parameters
    ----------
    options : sequence of dict
        What the library's own cache layers are made with.

    Raises
    ------
    Unsupported
        Codecs that are fitted to pages, dense reading.
    """
    out = list(policies)
    for i, (policy, kind) in enumerate(zip(policies, kinds, strict=True)):
        if kind == SLIDING:
            fitted = any(table_kind(c) and c.id != "query" for c in (policy.k, policy.v))
            if fitted or reach != "packed":
                raise Unsupported(
                    "cache.window.leave",
                    "sliding layers are packed by codecs that are not fitted, and read from pages",
                )
            out[i] = replace(policy, window=int(options[i]["sliding_window"]))
    return out


def _index(value: Any, count: int, option: str, lowest: int | None = None) -> int:
    lowest = -count if lowest is None else lowest
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value < count:
        raise UsageError(
            "cache.option.range", f"{option}: {value!r} is not a layer from {lowest} to {count - 1}"
        )
    return value % count


def _factor(index: int, value: Any) -> NDArray[np.float64]:
    """One layer's factors as a float64 array."""
    host = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
    factor = np.asarray(host, dtype=np.float64)
    if factor.ndim != 3 or factor.shape[1] != factor.shape[2] or not np.isfinite(factor).all():
        raise ShapeError(
            "codec.fit.metric",
            f"the metric of layer {index} is a finite (H, D, D) array, got {factor.shape}",
        )
    return factor
