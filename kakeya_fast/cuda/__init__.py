"""The codecs as CUDA C++: on NVIDIA devices, and the same code compiled for the host."""

from __future__ import annotations

from typing import Any

__all__ = ["Backend"]


def __getattr__(name: str) -> Any:
    # Loaded on demand: the host build needs neither torch nor CuPy.
    if name == "Backend":
        from kakeya_fast.cuda.backend import Backend

        return Backend
    raise AttributeError(name)
