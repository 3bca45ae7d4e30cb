"""One pass of a model over a stretch of tokens, and all caches filled from it.

A cache only ever appends, so a shorter context is a checkpoint of a longer run: same pages, same
bytes as a run that ends there.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks.standard.accounting import Historic, pooled_ranks
from kakeya_fast.hf.layer import PackedLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COLUMNS = (
    "pages", "codes", "scales", "padding", "spare", "skeletons", "sinks", "tail", "tables",
)  # fmt: skip


def prefill(
    model: PreTrainedModel, ids: Sequence[int], contexts: Sequence[int], cache: Any, chunk: int
) -> Iterator[tuple[int, int]]:
    """Feed ``ids`` in chunks; (begin, end) after each. One ends at every context.

    Chunks bound what attention and logits need at once. Those that end at a context are cut the
    same way whatever contexts come later.
    """
    keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
    options = {"logits_to_keep": 1} if keeps else {}
    feed, at = torch.tensor([list(ids)], device=model.device), 0
    for context in sorted(contexts):
        while at < context:
            begin, at = at, min(at + chunk, context)
            # Not around the yield: a caller between two chunks is in no inference mode.
            with torch.inference_mode():
                model(feed[:, begin:at], past_key_values=cache, **options)
            yield begin, at


def fill(cache: Any, clean: Any, begin: int) -> None:
    """Give a packed cache the tokens of an uncompressed one from ``begin`` on, and pack them."""
    for index, (layer, source) in enumerate(zip(cache.layers, clean.layers, strict=True)):
        if isinstance(layer, PackedLayer):
            layer.update(source.keys[:, :, begin:], source.values[:, :, begin:])
            layer.state.settle(np.zeros(1, np.int64))
            layer.crop(0)
        else:
            # The library's own layer keeps the same in both caches.
            cache.layers[index] = source


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
    """Ranks of the blocks of an uncompressed cache as the predecessor took them, by layer.

    Parameters
    ----------
    full : sequence of int
        Places of the full-attention layers among the layers that keep something.
    """
    held = [x for x in cache.layers if getattr(x, "is_initialized", False)]
    return {
        str(index): {
            stream: pooled_ranks(x[0].float().cpu().numpy(), preset)
            for stream, x in (("k", held[index].keys), ("v", held[index].values))
        }
        for index in full
    }


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


def forget_peak() -> None:
    """Count the most memory held from here on."""
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:
        # Not Linux, or not allowed: the peak is then that of the process.
        return


def peak_rss() -> int:
    """Most bytes the process held since then, weights and caches included; 0 where unknown."""
    try:
        lines = Path("/proc/self/status").read_text("ascii").splitlines()
    except OSError:
        return 0
    [line] = [x for x in lines if x.startswith("VmHWM:")] or ["VmHWM: 0 kB"]
    return int(line.split()[1]) * 1024
