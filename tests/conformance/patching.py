"""Tools of the mutants: a reference with some of its functions replaced while it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import numpy as np

from kakeya_ref.backend import ReferenceBackend

LOCK = threading.RLock()


class Mutant(ReferenceBackend):
    """A reference with one fault.

    ``rule`` is the rule it breaks, ``codecs`` those on which the exam runs it, ``patches`` the
    (module, name, replacement) that are in force during its own calls only, so that the
    suite's reference stays right.
    """

    rule: ClassVar[str]
    codecs: ClassVar[tuple[str, ...]] = ("scalar",)
    patches: ClassVar[tuple[tuple[Any, str, Any], ...]] = ()

    def encode(self, x, layout, **options):
        with patched(self.patches):
            return super().encode(x, layout, **options)

    def decode(self, pages, layout, **options):
        with patched(self.patches):
            return super().decode(pages, layout, **options)


@contextmanager
def patched(patches: tuple[tuple[Any, str, Any], ...]) -> Iterator[None]:
    """Replace module attributes, and put them back."""
    with LOCK:
        kept = [(module, name, getattr(module, name)) for module, name, _ in patches]
        try:
            for module, name, replacement in patches:
                setattr(module, name, replacement)
            yield
        finally:
            for module, name, original in kept:
                setattr(module, name, original)


class OtherNumpy:
    """NumPy with a few functions of another temper."""

    def __init__(self, **replaced: Any) -> None:
        self._replaced = replaced

    def __getattr__(self, name: str) -> Any:
        return self._replaced.get(name) or getattr(np, name)
