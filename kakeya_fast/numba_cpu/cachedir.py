"""Where compiled kernels are kept: a user cache directory, never the package."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile

from kakeya_fast.env import cache_dir

PACKAGE = __name__.rpartition(".")[0]
_IMPORT = re.compile(rf"^from {re.escape(PACKAGE)}(\.\w+)? import (\([^)]*\)|.*)", re.MULTILINE)


def kernel_dir(*modules: str) -> Path:
    """Directory of the compiled kernels that start in these modules of the package.

    Its name is a hash of their sources and of all they import from the package, so an edit
    leaves no stale kernel behind, and leaves alone what does not depend on it. Neither the place
    of the package nor the age of its files counts: checkouts with the same text share kernels.
    """
    digest = hashlib.sha256()
    for name in sorted(_closure(modules)):
        digest.update(_source(name).encode())
    return cache_dir() / f"numba-{digest.hexdigest()[:16]}"


def _closure(modules: tuple[str, ...]) -> set[str]:
    """These modules and what they import from the package, directly or not."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += _imports(name)
    return found


@cache
def _source(name: str) -> str:
    return Path(__file__).with_name(f"{name}.py").read_text("utf-8")


@cache
def _imports(name: str) -> list[str]:
    """Modules of the package that a module imports."""
    found = []
    for module, names in _IMPORT.findall(_source(name)):
        found += [module[1:]] if module else re.findall(r"\w+", names)
    return found


class _Locator:
    """Numba's question where a function is kept, answered with :func:`kernel_dir`."""

    def __init__(self, modules: tuple[str, ...]) -> None:
        self.path = kernel_dir(*modules)

    def ensure_cache_path(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self.path)

    def get_source_stamp(self) -> str:
        return self.path.name

    def get_disambiguator(self) -> str:
        return ""


class _Impl(CompileResultCacheImpl):
    def __init__(self, function: Callable[..., Any], locator: _Locator) -> None:
        self._locator_classes = [SimpleNamespace(from_function=lambda *_: locator)]
        super().__init__(function)


class KernelCache(FunctionCache):
    """Compiled versions of one function, an index each.

    Numba's own index counts the versions of a function, and two processes that compile different
    ones at the same time would give them the same number.
    """

    def __init__(self, function: Callable[..., Any], modules: tuple[ModuleType, ...] = ()) -> None:
        names = (function.__module__, *(m.__name__ for m in modules))
        locator = _Locator(tuple(name.rpartition(".")[2] for name in names))
        self._impl_class = partial(_Impl, locator=locator)
        super().__init__(function)

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """The version for a signature; None where there is none yet."""
        self._choose(sig)
        return super().load_overload(sig, target_context)

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep the version for a signature."""
        self._choose(sig)
        super().save_overload(sig, data)

    def _choose(self, sig: Any) -> None:
        name = f"{self._impl.filename_base}{hashlib.sha256(str(sig).encode()).hexdigest()[:8]}"
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = IndexDataCacheFile(self._cache_path, name, stamp)
