"""Passages measured by several processes, each with a model and a thread of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from typing import Any

from kakeya_fast.quality.models import Loaded, load_model
from kakeya_fast.quality.protocol import Options, Score, measure_passage
from kakeya_fast.quality.setting import Setting
from kakeya_fast.quality.texts import Passage

Job = tuple[Passage, Sequence[Setting]]
# One thread a process: that many processes share the cores already.
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

_mine: dict[str, Any] = {}


def measure(
    loaded: Loaded,
    jobs: Sequence[Job],
    options: Options,
    metrics: Mapping[str, Any],
    workers: int,
    step: Callable[[], None],
) -> Iterator[list[Score]]:
    """Scores of every job, in the order of the jobs; ``step`` is called once per forward pass.

    Processes are spawned, since a fork would share locks and threads of the numeric libraries.
    Each needs the memory of the model once more.
    """
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    given = (loaded.source, loaded.dtype, str(loaded.model.device), options, metrics)
    pool = ProcessPoolExecutor(min(workers, len(jobs)), get_context("spawn"), _open, given)
    try:
        for scores, passes in pool.map(_measure, jobs):
            for _ in range(passes):
                step()
            yield scores
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _open(
    source: str, dtype: str, device: str, options: Options, metrics: Mapping[str, Any]
) -> None:
    import torch

    torch.set_num_threads(1)
    loaded = load_model(source, device=device, dtype=dtype)
    _mine.update(model=loaded.model, options=options, metrics=metrics)


def _measure(job: Job) -> tuple[list[Score], int]:
    passes = count()
    scores = measure_passage(
        _mine["model"], *job, _mine["options"], metrics=_mine["metrics"], step=passes.__next__
    )
    return scores, next(passes)
