"""Multi-threaded CPU backend of all codecs, compiled by numba."""

from kakeya_fast.numba_cpu.backend import Backend

__all__ = ["Backend"]
