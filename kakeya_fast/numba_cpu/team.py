"""Torch's own threads, borrowed for a call: a decode step alternates between torch and us.

Threads of OpenMP wait by spinning for some milliseconds after every operation. Threads of ours
beside them would share a core with one that spins; these are awake already.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_forked = False


def _fork() -> None:
    global _forked
    _forked = True


# OpenMP's threads do not live on in a child, and it does not notice.
os.register_at_fork(after_in_child=_fork)


def borrow() -> Callable[[Callable[[], None], int], None] | None:
    """What runs a function of nothing in some of torch's threads; None where it has but one.

    It is told how many at most.
    """
    torch = sys.modules.get("torch")
    if _forked or torch is None or torch.get_num_threads() < 2:
        return None
    return _parallel(torch._C.__file__)


@cache
def _parallel(library: str) -> Callable[[Callable[[], None], int], None] | None:
    # A symbol is looked up in a library and in those that it needs: torch's own OpenMP.
    found = getattr(ctypes.CDLL(library), "GOMP_parallel", None)
    if found is None:
        return None
    found.restype = None
    found.argtypes = [_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]

    def parallel(body: Callable[[], None], threads: int) -> None:
        found(_BODY(lambda _: body()), None, threads, 0)

    return parallel


def share(parallel: Callable[..., None], workers: int, work: Callable[[int], Any]) -> list[Any]:
    """Results of ``work(0)``, ``work(1)``, …, shared out to a team; the first error is raised."""
    results: list[Any] = [None] * workers
    errors: list[BaseException] = []
    turns = itertools.count()

    def body() -> None:
        for worker in turns:
            if worker >= workers:
                return
            try:
                results[worker] = work(worker)
            except BaseException as error:  # C code has no use for it
                errors.append(error)

    parallel(body, min(workers, sys.modules["torch"].get_num_threads()))
    if errors:
        raise errors[0]
    return results
