"""Where compiled kernels are kept: a user cache directory, never the package."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from numba import config

from kakeya_fast.env import cache_dir


def kernel_dir() -> Path:
    """Directory of compiled kernels, under :func:`kakeya_fast.env.cache_dir`.

    The last component is a hash of these sources: numba looks only at the file a kernel starts
    in, so an edit in a file it calls would otherwise leave a stale kernel behind.
    """
    digest = hashlib.sha256()
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return cache_dir() / f"numba-{digest.hexdigest()[:16]}"


@contextmanager
def kernel_cache() -> Iterator[None]:
    """Functions decorated inside cache in :func:`kernel_dir`; numba's own setting is put back."""
    before = config.CACHE_DIR
    config.CACHE_DIR = str(kernel_dir())
    try:
        yield
    finally:
        config.CACHE_DIR = before
