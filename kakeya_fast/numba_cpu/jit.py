"""How kernels are compiled, in one place."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numba
import numpy as np
from numba import njit, types

from kakeya_fast.numba_cpu.cachedir import KernelCache

# The "numpy" error model drops the zero-division branches of Python, which stop vectorisation.
# fastmath stays off: no reassociation, no contraction, subnormals and signed zeros kept.
OPTIONS = {"error_model": "numpy", "fastmath": False, "nogil": True}
# For attention alone, which is bounded and not exact: sums may be reordered and fused.
LOOSE = OPTIONS | {"fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def serial(function: Callable[..., Any]) -> Any:
    """A building block, compiled into the kernels that call it."""
    return njit(**OPTIONS)(function)


def lent(function: Callable[..., Any]) -> Any:
    """A building block that makes no arrays and does not count references to those it is given.

    Counting takes an atomic instruction for every array of a tuple that is handed on: where a
    function works on one page, as long as the work. Its caller holds them.
    """
    return njit(**OPTIONS, _nrt=False)(function)


class Kernel:
    """An entry point, compiled once per element type of its first two arguments.

    Arguments are ``(source, target, ...)``. Arrays are declared strided, and read-only but for
    the target, so that contiguous, strided, frozen and writable arguments share one compiled
    function.

    Parameters
    ----------
    function : callable
    modules : modules, optional
        Others than the function's own from which it calls building blocks.
    """

    def __init__(self, function: Callable[..., Any], *modules: ModuleType) -> None:
        self.function = function
        self.dispatcher = njit(**OPTIONS)(function)
        self.dispatcher._cache = KernelCache(function, modules)
        self._one_at_a_time = threading.Lock()
        self._compiled: set[tuple[np.dtype, np.dtype]] = set()

    def __call__(self, source: np.ndarray, target: np.ndarray, *rest: Any) -> Any:
        key = (source.dtype, target.dtype)
        if key not in self._compiled:
            self._compile(key, source, target, *rest)
        return self.dispatcher(source, target, *rest)

    def _compile(self, key: Any, source: np.ndarray, target: np.ndarray, *rest: Any) -> None:
        with self._one_at_a_time:
            if key in self._compiled:
                return
            self.dispatcher.disable_compile(False)
            given = [_declared(source, True), _declared(target, False)]
            self.dispatcher.compile(tuple(given + [_declared(a, True) for a in rest]))
            self.dispatcher.disable_compile()
            self._compiled.add(key)


def _declared(arg: Any, readonly: bool) -> Any:
    kind = numba.typeof(arg)
    if isinstance(kind, types.Array):
        return types.Array(kind.dtype, kind.ndim, "A", readonly=readonly)
    return kind
