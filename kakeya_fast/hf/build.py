"""From a model to its cache: which layers are packed, how they are read, what is refused."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    CacheLayerMixin,
    get_layer_types_and_kwargs,
)
from transformers.modeling_utils import PreTrainedModel

from kakeya_fast.hf.cache import KakeyaCache
from kakeya_fast.hf.interface import install, takes_registry
from kakeya_fast.hf.keytables import KeyTables, load_tables
from kakeya_fast.hf.layer import PackedLayer
from kakeya_fast.hf.options import FULL, check_tables, layer_policies, sliding_policies
from kakeya_fast.hf.plan import Plan
from kakeya_fast.hf.policy import Policy
from kakeya_fast.hf.rope import Rope
from kakeya_fast.hf.rotary import ropes
from kakeya_ref.errors import Unsupported, UsageError
from kakeya_ref.registry import parse_codec, table_kind
from kakeya_ref.types import Codec

LOG = logging.getLogger("kakeya")


def build_kakeya_cache(
    model: PreTrainedModel,
    k: str | Codec = "scalar:b=4",
    v: str | Codec = "scalar:b=4",
    sinks: int = 4,
    backend: str = "auto",
    page_tokens: int = 32,
    attention: Literal["auto", "packed", "dense"] = "auto",
    offloading: bool = False,
    offload_only_non_sliding: bool = False,
    residual: int = 0,
    exact_layers: Sequence[int] = (),
    metric: Mapping[int, Any] | None = None,
    plan: Plan | str | Path | None = None,
    tables: str | Path | KeyTables | None = None,
    center: bool = False,
    sliding: Literal["library", "pack"] = "library",
) -> KakeyaCache:
    """A packed cache for a model, to be passed as ``past_key_values``.

    Full-attention layers are packed. Sliding layers are the library's own unless asked for;
    chunked, linear and shared layers always are. The model's attention is switched to
    ``kakeya_sdpa`` or ``kakeya_eager``, which serve every other cache as before.

    Rule: cache.plan.library, cache.model.eval, cache.attend.logged

    Parameters
    ----------
    model : PreTrainedModel
        A decoder in eval mode.
    k, v : str or Codec
        Codec strings of keys and values; plain ``raw`` keeps the model's own dtype. ``query``,
        for keys, needs ``tables``. ``skeleton`` and ``turbo`` are fitted to every page and want
        longer ones.
    sinks : int
        Leading real tokens of every row kept exact.
    backend : str
        Name of a backend; see :func:`kakeya_fast.get_backend`. ``auto`` passes over one that
        lacks the codecs, and logs it.
    page_tokens : int
        Tokens of a page, a multiple of 16.
    attention : str
        ``packed`` reads pages tile by tile. ``dense`` decodes all of a layer for each forward,
        for models that change keys after the cache; there, the tokens of the running call are
        read exactly and left padding counts as tokens. ``auto`` takes ``packed`` wherever the
        model calls attention through the library's registry, and logs when it cannot.
    residual : int
        Recent tokens that are read exactly: a query at index ``q`` reads from bytes the pages
        before that of token ``q - residual``. After ``n`` tokens a row has
        ``max(0, n - sinks - residual) // page_tokens`` packed pages.
    exact_layers : sequence of int
        Model layers, negative ones from the end, that keep exact keys and values, as pages of
        ``raw``. Layers that are the library's own are exact anyway.
    metric : mapping of int to (H, D, D) array, optional
        For keys of a fitted codec: per model layer and KV head the lower Cholesky factor of the
        second moment of the queries; see :func:`kakeya_fast.hf.query_metric`. Layers that it
        does not name are fitted without; it may name exact layers.
    plan : Plan or path, optional
        Codecs by layer and stream, as ``kakeya plan`` writes them; layers that it does not name
        take ``k`` and ``v``, and ``exact_layers`` goes before it.
    tables : path or KeyTables, optional
        For keys of ``query``: what ``kakeya calibrate`` wrote for this model.
    center : bool
        Code keys less their mean: per row and KV head that of the first page, before rotation,
        kept in the cache. For models with large key biases that nobody has calibrated.
    sliding : str
        ``library`` leaves sliding-window layers to the library. ``pack`` packs them as well; whole
        pages leave as the window moves on. Sinks of such a layer are only seen inside the window.

    Returns
    -------
    KakeyaCache

    Raises
    ------
    UsageError
        A codec string or an option that means nothing.
    ShapeError
        A head dim that is not a multiple of 8; a page size that is not a multiple of 16; a
        metric of another shape than the keys.
    Unsupported
        A model in training mode, an encoder-decoder, a model without a KV cache.
    """
    if not isinstance(model, PreTrainedModel):
        raise Unsupported("cache.model.kv", f"{type(model).__name__} is not a PreTrainedModel")
    if model.training:
        raise Unsupported("cache.model.eval", "the model is in training mode; call model.eval()")
    _refuse_without_cache(model)
    if attention not in ("auto", "packed", "dense"):
        raise UsageError("cache.option.range", f"attention={attention!r}: auto, packed or dense")
    config = model.config.get_text_config(decoder=True)
    reach = _reach(model, config, attention)
    codecs = parse_codec(k), parse_codec(v)
    policy = Policy(*codecs, sinks, page_tokens, backend, reach, residual)
    kinds, makers = _plan(config)
    chosen = Plan.read(plan) if isinstance(plan, (str, Path)) else plan
    known = load_tables(tables) if isinstance(tables, (str, Path)) else tables
    turns = _turns(model, policy, reach) if center else None
    policies = layer_policies(policy, kinds, exact_layers, metric, chosen, known, turns)
    if sliding not in ("library", "pack"):
        raise UsageError("cache.option.range", f"sliding={sliding!r}: library or pack")
    if sliding == "pack":
        policies = sliding_policies(policies, kinds, [m.keywords for m in makers], reach)
    packed = [p for p, kind in zip(policies, kinds, strict=True) if kind == FULL or p.window]
    check_tables(packed, known)
    if known is not None:
        known.check(model)
        if reach == "dense":
            raise Unsupported("query.attend.frame", "query needs packed attention")
    layers = _layers(config, kinds, makers, policies, model.device)
    if reach == "packed":
        install(model, config)
    return KakeyaCache(layers, reach, offloading, offload_only_non_sliding, kinds)


def _turns(model: PreTrainedModel, policy: Policy, reach: str) -> dict[int, Rope]:
    """Rotations of all layers, for centred keys.

    Rule: cache.center.option
    """
    if table_kind(policy.k) or table_kind(policy.v) or reach == "dense":
        raise UsageError(
            "cache.center.option",
            f"{policy.k}/{policy.v}, {reach} attention: keys are centred for codecs without "
            "tables, under packed attention",
        )
    return ropes(model)


def _reach(model: PreTrainedModel, config: Any, attention: str) -> Literal["packed", "dense"]:
    if attention == "dense":
        LOG.info("[cache.attend.logged] dense attention, as asked: each forward decodes the cache")
        return "dense"
    reason = takes_registry(model, config)
    if not reason:
        return "packed"
    if attention == "packed":
        raise Unsupported("cache.attend.handle", f'{reason}; use attention="dense"')
    LOG.warning("[cache.attend.logged] dense attention: %s", reason)
    return "dense"


def _refuse_without_cache(model: PreTrainedModel) -> None:
    config, name = model.config, type(model).__name__
    if getattr(config, "is_encoder_decoder", False):
        raise Unsupported("cache.model.kv", f"{name} is an encoder-decoder")
    takes = inspect.signature(model.forward).parameters
    if "past_key_values" not in takes or getattr(config, "is_decoder", None) is False:
        raise Unsupported("cache.model.kv", f"{name} takes no KV cache")


def _plan(config: Any) -> tuple[list[str], list[Callable[[], Any]]]:
    """The library's name for each layer, and how it would make the layer's cache."""
    try:
        types, options = get_layer_types_and_kwargs(config)
        kinds = [DYNAMIC_LAYER_TYPE_MAPPING[kind] for kind in types]
    except (AttributeError, KeyError) as error:
        raise Unsupported("cache.model.kv", f"no cache layers for this model: {error}") from error
    if not any(issubclass(kind, CacheLayerMixin) for kind in kinds):
        raise Unsupported("cache.model.kv", "no layer of this model keeps keys and values")
    return list(types), [partial(k, **given) for k, given in zip(kinds, options, strict=True)]


def _layers(
    config: Any,
    kinds: list[str],
    makers: list[Callable[[], Any]],
    policies: list[Policy],
    device: torch.device,
) -> list[Any]:
    layers: list[Any] = []
    for index, (kind, make, policy) in enumerate(zip(kinds, makers, policies, strict=True)):
        if kind == FULL or policy.window is not None:
            for size in _head_dims(config.per_layer_config[index]):
                policy.open(device, policy.layouts(size, size))
            layers.append(PackedLayer(policy, _readers(config, index)))
        else:
            layers.append(make())
    if not any(isinstance(layer, PackedLayer) for layer in layers):
        LOG.warning("[cache.plan.library] no full-attention layer: nothing of this model is packed")
    return layers


def _head_dims(config: Any) -> list[int]:
    """Size of a layer's vectors, where its config tells before the first token."""
    if getattr(config, "kv_lora_rank", None) is not None:
        return []
    size = getattr(config, "head_dim", None)
    return [size or config.hidden_size // config.num_attention_heads]


def _readers(config: Any, index: int) -> int:
    """Attention layers that read what this layer stores."""
    modes = getattr(config, "kv_sharing_modes", None)
    if modes is None or modes[index] != "store":
        return 1
    kinds = config.layer_types
    shared = zip(modes, kinds, strict=True)
    return 1 + sum(mode == "reuse" and kind == kinds[index] for mode, kind in shared)
