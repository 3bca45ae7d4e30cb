"""Kernels shared out to numba's threads."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kakeya_fast.numba_cpu.lanes import NONE
from kakeya_ref.errors import Unsupported

# Numbers worth a thread of their own: tens of microseconds, well above the cost of waking one.
GRAIN = 1 << 15

# Not every threading layer of numba survives two parallel calls at once; each uses all threads.
_one_at_a_time = threading.Lock()


def run(kernel: Any, source: NDArray[Any], target: NDArray[Any], *rest: Any) -> tuple[int, int]:
    """Run a kernel over all pages; the first vectors (or page) it complains about, or ``NONE``.

    Rule: num.subnormal.kept

    Raises
    ------
    Unsupported
        A worker thread flushes subnormal numbers.
    """
    if len(source) == 0:
        return NONE, NONE
    allowed = numba.get_num_threads()
    threads = max(1, min(allowed, len(source), max(source.size, target.size) // GRAIN))
    err = np.full((threads, 3), NONE, dtype=np.int64)
    with _one_at_a_time:
        numba.set_num_threads(threads)
        try:
            kernel(source, target, *rest, err)
        finally:
            numba.set_num_threads(allowed)
    if err[:, 2].any():
        raise Unsupported(
            "num.subnormal.kept",
            "a worker thread flushes subnormal numbers to zero; "
            "turn torch.set_flush_denormal off before the first call",
        )
    return int(err[:, 0].min()), int(err[:, 1].min())


def share(workers: int, work: Callable[[int], Any]) -> None:
    """``work(0)`` here and ``work(1)``, … in other threads, until all have returned.

    These threads sleep while there is nothing to do. Those of numba's own layers wait by spinning,
    as those of torch do, and a decode step alternates between the two: on as many cores as there
    are threads, each would spend its time in the way of the other.
    """
    others = [_pool().submit(work, worker) for worker in range(1, workers)]
    try:
        work(0)
    finally:
        for other in others:
            other.result()


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max(1, numba.config.NUMBA_NUM_THREADS), "kakeya")


# The threads of a parent do not live on in its child.
os.register_at_fork(after_in_child=_pool.cache_clear)
