"""Jobs shared out to processes that each hold a model; results as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from typing import Any

ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def spread(
    jobs: Sequence[Any],
    work: Callable[[Any], Any],
    ready: Callable[..., None],
    given: tuple[Any, ...],
    workers: int,
) -> Iterator[Any]:
    """``work(job)`` of every job, in no order.

    Parameters
    ----------
    work, ready
        Functions of a module: ``ready(*given)`` is called once in every process.
    workers : int
        With 1, all is done here.
    """
    if workers < 2:
        ready(*given)
        yield from map(work, jobs)
        return
    # One thread a process: that many processes share the cores already.
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    # Spawned, since a fork would share locks and threads of the numeric libraries.
    with ProcessPoolExecutor(workers, get_context("spawn"), ready, given) as pool:
        for done in as_completed([pool.submit(work, job) for job in jobs]):
            yield done.result()
