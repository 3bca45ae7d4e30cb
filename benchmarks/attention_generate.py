"""A model on a long context, through ``generate``: packed cache against ``DynamicCache``."""

from __future__ import annotations

import ctypes
import gc
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from benchmarks.damage.settings import make_tables, table_folder
from benchmarks.timing import CLOCKS
from kakeya_fast.hf import build_kakeya_cache
from kakeya_fast.hf.placed import PlacedStore
from kakeya_fast.quality.models import load_model
from kakeya_fast.quality.texts import load_text

CHUNK, ROUNDS = 1024, 3
CODECS = ("scalar:b=4", "scalar:b=4")
# Calibrated keys, beside tables that the damage page was measured with.
CALIBRATED, TABLES = ("query:b=3", "trellis:b=3"), "f32"


@torch.no_grad()
def generation(name: str, context: int, new: int, clock: str) -> dict[str, Any]:
    """Tokens a second and peak memory of both caches, filled from one and the same prefill.

    Peak memory is what the process held at most, above what it held before the cache was made.
    """
    loaded = load_model(name)
    model = loaded.model.eval()
    ids = torch.tensor([loaded.tokens(load_text("manual").text)[:context]])
    filled = prefilled(model, ids[:, : context - 1])
    tables = make_tables(loaded, [TABLES], table_folder())[TABLES]
    calibrated = partial(packed, codecs=CALIBRATED, tables=tables)
    makers = {"dynamic": _dynamic, "packed": packed, "calibrated": calibrated}
    found: dict[str, Any] = {kind: {"tokens_per_second": [], "peak": []} for kind in makers}
    for turn in range(ROUNDS + 1):
        for kind, make in makers.items():
            gc.collect()
            _give_back()
            before = _status("VmRSS")
            Path("/proc/self/clear_refs").write_text("5", "ascii")
            past = make(model, filled)
            # Packing is over; what follows is the decode.
            out, seconds = _timed(model, ids, past, new, clock)
            if turn:  # the first turn compiles
                found[kind]["tokens_per_second"].append(new / seconds)
                found[kind]["peak"].append(_status("VmHWM") - before)
            found[kind]["held"] = _held(past)
            found[kind]["text"] = out[0, context:].tolist()
            del past
    texts = {kind: np.array(found[kind].pop("text")) for kind in makers}
    for kind in makers:
        same = np.append(texts[kind] == texts["dynamic"], False)
        found[kind]["same_first_tokens"] = int(np.argmin(same))
    return found | {
        "model": name,
        "context": context,
        "new": new,
        "codecs": {"packed": list(CODECS), "calibrated": list(CALIBRATED)},
    }


def _dynamic(model: Any, filled: Any) -> Any:
    past = DynamicCache(config=model.config)
    for i, layer in enumerate(filled.layers):
        past.update(layer.keys.clone(), layer.values.clone(), i)
    return past


def prefilled(model: Any, ids: torch.Tensor) -> DynamicCache:
    """What a model keeps of a text, read in chunks."""
    filled = DynamicCache(config=model.config)
    for part in ids.split(CHUNK, 1):
        model(part, past_key_values=filled, logits_to_keep=1)
    return filled


def packed(model: Any, filled: Any, codecs: Any = CODECS, tables: Path | None = None) -> Any:
    """A packed cache of what another one holds."""
    past = build_kakeya_cache(model, *codecs, backend="numba", tables=tables)
    places = torch.arange(filled.get_seq_length())[None]
    for i, layer in enumerate(filled.layers):
        past.update(layer.keys, layer.values, i)
        if isinstance(past.layers[i].state.pages, PlacedStore):
            past.layers[i].state.pages.place(np.zeros(1, np.int64), places, places.shape[1])
        # No attention comes for these tokens: pack them now.
        past.layers[i].state.settle(np.zeros(1, np.int64))
        past.layers[i].crop(0)
    return past


def _timed(model: Any, ids: Any, past: Any, new: int, clock: str) -> tuple[Any, float]:
    options = {"do_sample": False, "max_new_tokens": new, "min_new_tokens": new}
    begin = CLOCKS[clock]()
    out = model.generate(ids, past_key_values=past, **options)
    return out, CLOCKS[clock]() - begin


def _held(past: Any) -> int:
    """Bytes of keys and values that a cache holds."""
    if hasattr(past, "report"):
        return past.report().total
    return sum(x.keys.nbytes + x.values.nbytes for x in past.layers)


def _give_back() -> None:
    """Free what the allocator keeps of former caches, which would count as held before."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _status(field: str) -> int:
    """Bytes, from what the kernel says of this process."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * int(next(x for x in lines if x.startswith(field)).split()[1])
