"""Kernels shared out to numba's threads."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kakeya_fast.numba_cpu import team
from kakeya_fast.numba_cpu.lanes import NONE
from kakeya_ref.errors import Unsupported

# Numbers worth a thread of their own: tens of microseconds, well above the cost of waking one.
GRAIN = 1 << 15
_TINY, _HALF = np.float32(2.0**-148), np.float32(0.5)


def run(kernel: Any, source: NDArray[Any], target: NDArray[Any], *rest: Any) -> list[int]:
    """Run a kernel over all pages; the first vectors (or page) it complains about, or ``NONE``.

    Rule: num.subnormal.kept

    Parameters
    ----------
    kernel : callable
        ``kernel(source, target, *rest, start, stop)`` does pages ``start .. stop`` and returns
        one number or two.

    Raises
    ------
    Unsupported
        A worker thread flushes subnormal numbers.
    """
    pages = len(source)
    if pages == 0:
        return [int(NONE)] * 2
    threads = min(numba.get_num_threads(), pages, max(source.size, target.size) // GRAIN)
    threads = max(1, threads)

    def work(part: int) -> Any:
        # Threads keep the rounding state of the thread that made them, so each is asked.
        if not _TINY * _HALF > 0:
            raise Unsupported(
                "num.subnormal.kept",
                "a worker thread flushes subnormal numbers to zero; "
                "turn torch.set_flush_denormal off before the first call",
            )
        start, stop = (i * pages // threads for i in (part, part + 1))
        return kernel(source, target, *rest, start, stop)

    return np.min(np.reshape(share(threads, work), (threads, -1)), 0).tolist()


def share(workers: int, work: Callable[[int], Any]) -> list[Any]:
    """Results of ``work(0)``, ``work(1)``, …, all but one in other threads, once all are there.

    Those threads are torch's (:mod:`kakeya_fast.numba_cpu.team`), or some of ours that sleep while
    there is nothing to do. Those of numba's own layers wait by spinning, as torch's do: on as many
    cores as there are threads, each would spend its time in the way of the other.
    """
    if workers == 1:
        return [work(0)]
    parallel = team.borrow()
    if parallel is not None:
        return team.share(parallel, workers, work)
    others = [_pool().submit(work, worker) for worker in range(1, workers)]
    try:
        first = work(0)
    finally:
        wait(others)
    return [first, *(other.result() for other in others)]


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, numba.config.NUMBA_NUM_THREADS), "kakeya")


# The threads of a parent do not live on in its child.
os.register_at_fork(after_in_child=_pool.cache_clear)
