"""The in-forward protocol: what the model feels when every layer reads what the codec returned.

One engine, one set of passages. Each passage is teacher-forced through the model in chunks,
once with the uncompressed cache and once per setting with a packed cache; the baseline logits
of a chunk are computed once and shared by all settings. Attention of every layer reads decoded
pages for every completed page; sinks and the unfilled page are exact. Compared per token, from
``warmup`` tokens on: KL(base || packed), the change of the negative log likelihood of the true
next token, and whether the most likely token is the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from kakeya_fast.quality.texts import Passage
from kakeya_ref.errors import UsageError
from kakeya_ref.registry import parse_codec

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Setting:
    """Codec strings of keys and values."""

    k: str
    v: str

    @classmethod
    def parse(cls, text: str) -> Setting:
        """``codec`` for both streams, or ``codec/codec`` for keys and values.

        Examples
        --------
        >>> Setting.parse("scalar:b=4/e8")
        Setting(k='scalar', v='e8')
        """
        k, _, v = text.partition("/")
        return cls(str(parse_codec(k)), str(parse_codec(v or k)))

    def __str__(self) -> str:
        return self.k if self.k == self.v else f"{self.k}/{self.v}"


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
    step: Callable[[], None] = lambda: None,
) -> list[Score]:
    """Scores of every setting on one passage; ``step`` is called after each forward pass.

    Raises
    ------
    UsageError
        The passage is not longer than the warm-up (``quality.warmup.short``).
    """
    import torch
    from transformers import DynamicCache

    from kakeya_fast.hf import build_kakeya_cache

    if len(passage.ids) < options.warmup + 2:
        raise UsageError(
            "quality.warmup.short",
            f"{len(passage.ids)} tokens leave nothing after a warm-up of {options.warmup}",
        )
    caches = [
        build_kakeya_cache(
            model,
            k=s.k,
            v=s.v,
            sinks=options.sinks,
            page_tokens=options.page_tokens,
            backend=options.backend,
        )
        for s in settings
    ]
    base_cache = DynamicCache(config=model.config)
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
            base = _log_probs(model(feed, past_key_values=base_cache).logits[0, skip:stop])
            base_nll -= float(base.gather(1, targets[:, None]).double().sum())
            step()
            tokens += len(targets)
            for cache, total in zip(caches, totals, strict=True):
                packed = model(feed, past_key_values=cache).logits[0, skip:stop]
                for row, amount in enumerate(compare(base, packed, targets)[1:]):
                    total[row] += amount
                step()
    at = (passage.index, passage.start, tokens, base_nll)
    return [
        Score(str(s), *at, dnll, kl, int(agree), sizes(c))
        for s, c, (dnll, kl, agree) in zip(settings, caches, totals, strict=True)
    ]


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


def _log_probs(logits: Tensor) -> Tensor:
    return logits.float().log_softmax(-1)


def _chunks(length: int, size: int) -> Iterator[tuple[int, int]]:
    for begin in range(0, length, size):
        yield begin, min(begin + size, length)


def sizes(cache: Any) -> dict[str, float]:
    """Bytes that a packed cache holds, by its own count; the ratio is that of packed layers.

    Rule: rate.bytes.true, rate.sequence.parts
    """
    told = cache.report().as_dict()
    parts = ("codes", "scales", "padding", "spare", "sinks", "tail", "tables")
    return {
        "true_bytes": told["packed"],
        "bf16_bytes": told["dense"],
        "ratio_vs_bf16": told["ratio"],
        "bits_per_element": told["bits_per_element"],
        "unpacked_layers_bytes": told["other"],
        **{f"{part}_bytes": told[part] for part in parts},
    }
