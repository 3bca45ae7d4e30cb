"""Kernels shared out to numba's threads."""

from __future__ import annotations

import threading
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from kakeya_fast.numba_cpu.lanes import NONE
from kakeya_ref.errors import Unsupported

# Numbers worth a thread of their own: tens of microseconds, well above the cost of waking one.
GRAIN = 1 << 15

# Not every threading layer of numba survives two parallel calls at once; each uses all threads.
one_at_a_time = threading.Lock()


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
    with one_at_a_time:
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
