"""From a name to a backend: ``module:attr`` or an entry point of group ``kakeya.backends``."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from kakeya_ref.contract import Backend
from kakeya_ref.errors import Unsupported, UsageError

GROUP = "kakeya.backends"
METHODS = ("supports", "encode", "decode")


def load_backend(target: str | object) -> tuple[Backend, str]:
    """A backend and the name under which a fresh process can load it again.

    Parameters
    ----------
    target : str or object
        ``module:attr``, an entry-point name, or a backend: an instance, a class, or a factory.

    Returns
    -------
    (backend, target)
        ``target`` is empty when the backend cannot be named.

    Raises
    ------
    UsageError
        Nothing loads under that name, what loads is no backend, or it cannot be made here.
    """
    if not isinstance(target, str):
        return _instance(target, repr(target)), _nameable(target)
    spec = _entry_point(target) if ":" not in target else target
    module_name, _, attr = spec.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attr.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UsageError("backend.name.explicit", f"cannot load {target!r}: {error}") from error
    return _instance(found, target), target


def _entry_point(name: str) -> str:
    known = {point.name: point.value for point in entry_points(group=GROUP)}
    if name not in known:
        raise UsageError(
            "backend.name.explicit",
            f"{name!r} is neither module:attr nor an entry point of {GROUP} ({sorted(known)})",
        )
    return known[name]


def _instance(found: Any, shown: str) -> Backend:
    made = isinstance(found, type) or (callable(found) and not hasattr(found, "encode"))
    try:
        backend = found() if made else found
    except Unsupported as error:
        raise UsageError("backend.name.explicit", f"{shown} cannot be made: {error}") from error
    missing = [m for m in METHODS if not callable(getattr(backend, m, None))]
    if missing:
        raise UsageError("backend.name.explicit", f"{shown} has no {', '.join(missing)}")
    loaded: Backend = backend
    return loaded


def _nameable(target: object) -> str:
    """``module:qualname`` when importing that gives the same class or function back."""
    kind = target if hasattr(target, "__qualname__") else type(target)
    module, name = getattr(kind, "__module__", ""), getattr(kind, "__qualname__", "")
    if module == "__main__" or "<" in name:
        return ""
    # An instance may have been built with arguments; only a default one can be rebuilt.
    if kind is not target and getattr(target, "__dict__", None):
        return ""
    return f"{module}:{name}"
