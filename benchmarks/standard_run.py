"""One pass of a model over a stretch of tokens, its cache measured at every context on the way.

A cache only ever appends, so a shorter context is a checkpoint of a longer run: same pages, same
bytes as a run that ends there.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.accounting import Historic, block_ranks
from kakeya_fast.hf.layer import PackedLayer

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

COLUMNS = (
    "pages", "codes", "scales", "padding", "spare", "skeletons", "sinks", "tail", "tables",
)  # fmt: skip
ROWS_AT_ONCE = 16


@dataclass(frozen=True)
class Checkpoint:
    """A cache at one context.

    Attributes
    ----------
    tokens : int
    seconds : float
        Wall time of the pass so far.
    peak_rss : int
        Most bytes the process held since the pass began, weights included; 0 where unknown.
    nll : (W,) float32
        Negative log likelihoods of the last tokens of the context.
    top1 : (W,) int64
        Most likely tokens at the same places.
    """

    tokens: int
    seconds: float
    peak_rss: int
    nll: Tensor
    top1: Tensor


def prefill(
    model: PreTrainedModel,
    ids: Sequence[int],
    contexts: Sequence[int],
    cache: Any,
    *,
    chunk: int,
    watch: int,
) -> Iterator[Checkpoint]:
    """Feed ``ids`` in chunks, stopping at every context; the cache is then ready to be measured.

    Chunks bound what attention and logits need at once. They end at every context, so that they
    do not depend on which contexts come later.
    """
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    feed = torch.tensor([list(ids)], device=model.device)
    _forget_peak()
    began, at = time.monotonic(), 0
    for context in sorted(contexts):
        while at < context:
            end = min(at + chunk, context)
            last = min(watch + 1, end - at) if end == context else 1
            kwargs = {"logits_to_keep": last} if keeps else {}
            # Not around the yield: a caller between two contexts is in no inference mode.
            with torch.inference_mode():
                logits = model(feed[:, at:end], past_key_values=cache, **kwargs).logits[0, -last:]
            at = end
        nll, top1 = _score(logits[:-1], feed[0, context - last + 1 : context])
        yield Checkpoint(context, time.monotonic() - began, _peak(), nll, top1)


def _score(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    losses = [
        torch.nn.functional.cross_entropy(
            logits[i : i + ROWS_AT_ONCE].float(), targets[i : i + ROWS_AT_ONCE], reduction="none"
        )
        for i in range(0, len(targets), ROWS_AT_ONCE)
    ]
    return torch.cat(losses), logits.argmax(-1)


def dynamic_rows(cache: Any) -> list[list[int]]:
    """Bytes of numbers and of storage in every layer of a library cache that keeps any.

    The storage of a window is larger by up to a chunk: the library keeps a view of what it saw.
    """
    return [_dense_row(x) for x in cache.layers if getattr(x, "is_initialized", False)]


def _dense_row(layer: Any) -> list[int]:
    held = (layer.keys, layer.values)
    numbers = sum(t.numel() * t.element_size() for t in held)
    return [numbers, sum(t.untyped_storage().nbytes() for t in held)]


def packed_rows(cache: Any) -> list[list[int]]:
    """Bytes of every layer that keeps any: COLUMNS of packed layers, as above for the others."""
    rows = []
    for layer, told in zip(cache.layers, cache.report().per_layer, strict=True):
        if isinstance(layer, PackedLayer) and layer.state is not None:
            pages = int(layer.state.pages.count.sum())
            rows.append([pages, *(getattr(told, name) for name in COLUMNS[1:])])
        elif getattr(layer, "is_initialized", False):
            rows.append(_dense_row(layer))
    return rows


def clean_ranks(cache: Any, full: Sequence[int], preset: Historic) -> dict[str, dict[str, Any]]:
    """Ranks of the blocks of an uncompressed cache, by layer: heads pooled, and head by head.

    Parameters
    ----------
    full : sequence of int
        Places of the full-attention layers among the layers that keep something.
    """
    held = [x for x in cache.layers if getattr(x, "is_initialized", False)]
    found = {}
    for index in full:
        entry = {}
        for stream, x in (("k", held[index].keys), ("v", held[index].values)):
            pooled, heads = block_ranks(x[0].float().cpu().numpy(), preset)
            entry |= {f"{stream}_pooled": pooled, f"{stream}_heads": heads}
        found[str(index)] = entry
    return found


def page_ranks(cache: Any, full: Sequence[int]) -> dict[str, dict[str, list[list[int]]]]:
    """Ranks that the fits of a packed cache chose, by layer and stream: (pages, H) each."""
    held = [x for x in cache.layers if getattr(x, "is_initialized", False)]
    found = {}
    for index in full:
        store = held[index].state.pages
        words = store.words[0, : store.count[0], :, :, 0]
        streams = ["kv"[s] for s in store.columns]
        found[str(index)] = {s: words[:, i].tolist() for i, s in enumerate(streams)}
    return found


def _forget_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        # Not Linux, or not allowed: the peak is then that of the process.
        return


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    [line] = [x for x in lines if x.startswith("VmHWM:")] or ["VmHWM: 0 kB"]
    return int(line.split()[1]) * 1024
