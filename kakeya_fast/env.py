"""Every environment variable and every path this package reads, in one place."""

from __future__ import annotations

import os
from pathlib import Path


def backend() -> str:
    """Backend that replaces ``auto``: ``KAKEYA_BACKEND``; empty when not set.

    Rule: backend.auto.logged
    """
    return os.environ.get("KAKEYA_BACKEND", "").strip()


def cache_dir() -> Path:
    """Folder for compiled and downloaded things: ``KAKEYA_CACHE_DIR`` or ``~/.cache/kakeya``.

    Not created here: only what writes makes folders.
    """
    chosen = os.environ.get("KAKEYA_CACHE_DIR", "").strip()
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "kakeya"
