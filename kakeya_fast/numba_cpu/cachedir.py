"""Where compiled kernels are kept: a user cache directory, never the package."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numba import config


def cache_dir() -> Path:
    """Directory of compiled kernels: under ``NUMBA_CACHE_DIR``, else ``XDG_CACHE_HOME``, else
    ``~/.cache``.

    The last component is a hash of these sources: numba looks only at the file a kernel starts
    in, so an edit in a file it calls would otherwise leave a stale kernel behind.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    base = Path(chosen) if chosen else home / "kakeya"
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return base / f"numba-{digest.hexdigest()[:16]}"


@contextmanager
def kernel_cache() -> Iterator[None]:
    """Functions decorated inside cache in :func:`cache_dir`; numba's own setting is put back."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(cache_dir())
    try:
        yield
    finally:
        config.CACHE_DIR = before
