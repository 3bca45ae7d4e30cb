"""Both protocols: what the model feels when its layers read what the codec returned.

One engine, one set of passages. In-forward, every packed layer stores what the damaged forward
made; :mod:`kakeya_fast.quality.snapshot` defines the other protocol. Each passage is teacher-forced
through the model in chunks, once with the uncompressed cache and once per setting with a packed
cache; the baseline logits of a chunk are computed once and shared by all settings. Attention of
every layer reads decoded pages for every completed page; sinks and the unfilled page are exact.
Compared per token, from ``warmup`` tokens on: KL(base || packed), the change of the negative log
likelihood of the true next token, and whether the most likely token is the same. Until a query
reads a page, a setting cannot differ from the base: those chunks are handed over, not run again.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.texts import Passage
from kakeya_ref.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache, PreTrainedModel

    from kakeya_fast.hf import KakeyaCache, PackedLayer
    from kakeya_fast.quality.metric import Metric

ROWS_AT_ONCE = 16
# Of a cache report; the metric is a cost of the encoder, beside the total.
PARTS = ("codes", "scales", "padding", "skeletons", "spare", "sinks", "tail", "tables", "metric")


@dataclass(frozen=True)
class Options:
    """How the passages are run; everything here is written into the result file."""

    chunk: int = 512
    warmup: int = 64
    sinks: int = 4
    page_tokens: int = 32
    backend: str = "auto"


DEFAULTS = Options()


@dataclass(frozen=True)
class Score:
    """One setting on one passage: sums over ``tokens`` counted tokens, and bytes really kept."""

    setting: str
    passage: int
    start: int
    tokens: int
    base_nll: float
    dnll: float
    kl: float
    agree: int
    sizes: dict[str, float]


def measure_passage(
    model: PreTrainedModel,
    passage: Passage,
    settings: Sequence[Setting],
    options: Options = DEFAULTS,
    *,
    metrics: Mapping[str, Metric] | None = None,
    step: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Scores of every setting on one passage; ``step`` is called after each forward pass.

    Parameters
    ----------
    metrics : mapping from the name of a text to its metric
        For the settings that ask for one; see :mod:`kakeya_fast.quality.metric`.

    Raises
    ------
    UsageError
        The passage is not longer than the warm-up (``quality.warmup.short``).
    """
    import torch
    from transformers import DynamicCache

    if len(passage.ids) < options.warmup + 2:
        raise UsageError(
            "quality.warmup.short",
            f"{len(passage.ids)} tokens leave nothing after a warm-up of {options.warmup}",
        )
    base_cache = DynamicCache(config=model.config)
    caches = [open_cache(model, s, options, metrics or {}, base_cache) for s in settings]
    ids = torch.tensor([passage.ids], device=model.device)
    base_nll = 0.0
    tokens = 0
    totals = [[0.0, 0.0, 0] for _ in settings]
    with torch.inference_mode():
        for begin, end in _chunks(len(passage.ids), options.chunk):
            skip = max(0, options.warmup - begin)
            # The last position predicts a token that is not there.
            stop = min(end, len(passage.ids) - 1) - begin
            targets = ids[0, begin + skip + 1 : begin + stop + 1]
            feed = ids[:, begin:end]
            base = _log_probs(_logits(model, feed, base_cache, skip, stop))
            base_nll -= float(base.gather(1, targets[:, None]).double().sum())
            step()
            tokens += len(targets)
            for setting, cache, total in zip(settings, caches, totals, strict=True):
                if end <= _all_exact(setting, options):
                    hand_over(base_cache, cache, begin)
                    total[2] += len(targets)
                else:
                    packed = _logits(model, feed, cache, skip, stop)
                    for row, amount in enumerate(compare(base, packed, targets)[1:]):
                        total[row] += amount
                step()
    at = (passage.index, passage.start, tokens, base_nll)
    return [
        Score(str(s), *at, dnll, kl, int(agree), sizes(c, s.exact))
        for s, c, (dnll, kl, agree) in zip(settings, caches, totals, strict=True)
    ]


def open_cache(
    model: PreTrainedModel,
    setting: Setting,
    options: Options,
    metrics: Mapping[str, Metric],
    clean: DynamicCache,
) -> KakeyaCache:
    """The empty cache of a setting; under the snapshot protocol it stores what ``clean`` stores."""
    from kakeya_fast.hf import build_kakeya_cache
    from kakeya_fast.quality.snapshot import SnapshotCache

    cache = build_kakeya_cache(
        model,
        k=setting.k,
        v=setting.v,
        sinks=options.sinks,
        page_tokens=setting.page_tokens(options.page_tokens),
        backend=options.backend,
        residual=setting.residual,
        exact_layers=setting.exact,
        metric=metrics[setting.metric] if setting.metric else None,
        plan=setting.plan or None,
        tables=setting.tables or None,
        sliding=setting.sliding,
    )
    if setting.protocol == "snapshot":
        return SnapshotCache(cache, clean, set(coded_layers(cache, setting.exact)))
    return cache


def coded_layers(cache: KakeyaCache, exact: Sequence[int]) -> list[int]:
    """Indices of the layers that a cache codes: packed, and not kept exact."""
    from kakeya_fast.hf import PackedLayer

    kept = {i % len(cache.layers) for i in exact}
    packed = [i for i, layer in enumerate(cache.layers) if isinstance(layer, PackedLayer)]
    return [i for i in packed if i not in kept]


def compare(base: Tensor, packed: Tensor, targets: Tensor) -> tuple[int, float, float, int]:
    """Tokens, summed ΔNLL, summed KL(base || packed) in nats, and number of equal top-1 tokens.

    Parameters
    ----------
    base : (T, vocab) float32
        Log probabilities.
    packed : (T, vocab) floating
        Logits; worked on in blocks of rows, as vocabularies are large.
    targets : (T,) int64
        The true next tokens.
    """
    dnll = kl = 0.0
    agree = 0
    for rows in range(0, len(targets), ROWS_AT_ONCE):
        part = slice(rows, rows + ROWS_AT_ONCE)
        p, q = base[part], _log_probs(packed[part])
        want = targets[part, None]
        dnll += float((p.gather(1, want) - q.gather(1, want)).double().sum())
        agree += int((p.argmax(-1) == q.argmax(-1)).sum())
        kl += float((p.exp() * (p - q)).sum(-1).double().sum())
    return len(targets), dnll, kl, agree


def hand_over(clean: DynamicCache, cache: KakeyaCache, begin: int) -> None:
    """Give a packed cache what the uncompressed one took in from token ``begin`` on."""
    from kakeya_fast.hf import PackedLayer

    for index, (layer, source) in enumerate(zip(cache.layers, clean.layers, strict=True)):
        if isinstance(layer, PackedLayer):
            layer.update(source.keys[:, :, begin:], source.values[:, :, begin:])
        else:
            cache.layers[index] = copy.deepcopy(source)


def _all_exact(setting: Setting, options: Options) -> int:
    """Tokens from the beginning whose queries read no page: exact whatever the codec."""
    if setting.sliding == "pack":  # the uncompressed layer may have let some of them go
        return 0
    return options.sinks + setting.page_tokens(options.page_tokens) + setting.residual


def _logits(model: PreTrainedModel, feed: Tensor, cache: Any, skip: int, stop: int) -> Tensor:
    """Logits (stop - skip, vocab) of these positions; no others are computed where that is told."""
    count, options = feed.shape[1], {}
    if "logits_to_keep" in inspect.signature(model.forward).parameters:
        options["logits_to_keep"] = max(1, count - skip)
    logits = model(feed, past_key_values=cache, **options).logits[0]
    first = count - len(logits)
    return logits[max(0, skip - first) : max(0, stop - first)]


def _log_probs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _chunks(length: int, size: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, length, size):
        yield begin, min(begin + size, length)


def sizes(cache: KakeyaCache, exact: Sequence[int] = ()) -> dict[str, float]:
    """Bytes that a packed cache holds, by its own count; the ratio is that of packed layers.

    ``page_bits`` are true bits per element of the full pages of coded layers, with their tables
    and what the page table says of each of them beyond its place; absent without a page.
    ``bits_exact_bf16`` are bits per element of all packed layers, if what is exact were kept in
    bf16: a model in float32 keeps its exact tokens and layers at twice that.

    Rule: rate.bytes.true, rate.sequence.parts
    """
    told = cache.report().as_dict()
    elements, kept = _pages([cache.layers[i] for i in coded_layers(cache, exact)])
    every = told["dense"] // 2
    found = {
        "true_bytes": told["packed"],
        "bf16_bytes": told["dense"],
        "ratio_vs_bf16": told["ratio"],
        "bits_per_element": told["bits_per_element"],
        "bits_exact_bf16": (8 * kept + 16 * (every - elements)) / every if every else 0.0,
        "unpacked_layers_bytes": told["other"],
        **{f"{part}_bytes": told[part] for part in PARTS},
    }
    return found | ({"page_bits": 8 * kept / elements} if elements else {})


def _pages(layers: Sequence[PackedLayer]) -> tuple[int, int]:
    """Elements in the pages of these packed layers, and bytes of pages, tables and choices."""
    elements = kept = 0
    for state in (layer.state for layer in layers if layer.state is not None):
        for stream in (0, 1):
            for layout, count in state.pages.held(stream).items():
                elements += count * layout.tokens * layout.head_dim
                kept += count * layout.nbytes
        # Where tables are fitted: their bytes, and rank and number of outliers of each page.
        words = getattr(state.pages, "words", None)
        kept += state.pages.skeletons_nbytes + (0 if words is None else words.nbytes)
    return elements, kept
