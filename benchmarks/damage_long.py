"""Damage by position in a long context, and how long generation stays the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from transformers import DynamicCache

from kakeya_fast.quality.generate import generate
from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.protocol import Options, compare, open_cache
from kakeya_fast.quality.setting import Setting

CHUNK = 512
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_mine: dict[str, Any] = {}


def spread_out(
    loaded: Loaded, work: Callable[..., Any], jobs: Sequence[tuple[Any, ...]], workers: int
) -> Iterator[Any]:
    """Results of ``work(loaded, *job)``, in order, from that many processes of one thread."""
    if workers < 2:
        yield from (work(loaded, *job) for job in jobs)
        return
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    given = (loaded.source, str(loaded.model.device))
    with ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _open, given) as pool:
        futures = [pool.submit(_call, work, job) for job in jobs]
        yield from (future.result() for future in futures)


def _open(source: str, device: str) -> None:
    torch.set_num_threads(1)
    _mine["loaded"] = load_model(source, device=device)


def _call(work: Callable[..., Any], job: tuple[Any, ...]) -> Any:
    return work(_mine["loaded"], *job)


@torch.inference_mode()
def by_chunk(
    loaded: Loaded, index: int, ids: Sequence[int], settings: Sequence[str]
) -> dict[str, Any]:
    """Sums of every chunk of 512 tokens of a passage: tokens, ΔNLL, KL, agreement."""
    model, text = loaded.model, torch.tensor([list(ids)], device=loaded.model.device)
    clean = DynamicCache(config=model.config)
    caches = [open_cache(model, Setting.parse(s), Options(), {}, clean) for s in settings]
    found: dict[str, list[list[float]]] = {s: [] for s in settings}
    for begin in range(0, len(ids) - 1, CHUNK):
        end = min(begin + CHUNK, len(ids))
        stop = min(end, len(ids) - 1) - begin
        feed, targets = text[:, begin:end], text[0, begin + 1 : begin + stop + 1]
        base = _logits(model, feed, clean, stop).float().log_softmax(-1)
        for setting, cache in zip(settings, caches, strict=True):
            packed = _logits(model, feed, cache, stop)
            found[setting].append([float(x) for x in compare(base, packed, targets)])
    return {"passage": index, "chunks": found}


def _logits(model: Any, feed: Any, cache: Any, stop: int) -> Any:
    return model(feed, past_key_values=cache, use_cache=True).logits[0, :stop]


def agreement(
    loaded: Loaded, index: int, ids: Sequence[int], count: int, settings: Sequence[str]
) -> dict[str, Any]:
    """Greedy tokens after a prompt that equal those of the uncompressed run, from the first on."""
    model = loaded.model
    want = generate(model, ids, DynamicCache(config=model.config), count).tokens
    found = {}
    for setting in settings:
        cache = open_cache(model, Setting.parse(setting), Options(), {}, None)  # type: ignore[arg-type]
        got = generate(model, ids, cache, count).tokens
        same = [a == b for a, b in zip(want, got, strict=True)]
        found[setting] = same.index(False) if False in same else count
    return {"prompt": index, "agreed": found}
