"""Fast backends of the Kakeya format and what is built on them.

Importing this package loads no optional dependency: backends are imported when asked for.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from kakeya_fast.dispatch import available_backends, get_backend

try:
    __version__ = version("kakeya-kv")
except PackageNotFoundError:  # a bare checkout
    __version__ = "0+unknown"

__all__ = ["__version__", "available_backends", "get_backend"]
