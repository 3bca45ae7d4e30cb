"""One forward on its way through the layers of a cache: taken in by all of them, or by none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Markable(Protocol):
    """Something that can be put back as it was."""

    def mark(self) -> Any:
        """What :meth:`restore` needs."""

    def restore(self, mark: Any) -> None:
        """Be again as at :meth:`mark`."""


class Step:
    """Remembers how the layers were before the forward that is under way.

    Remembering takes references, not copies; what it keeps alive is less than a page of exact
    tokens per packed layer, and the old tensors of the library's layers, until the last packed
    layer has been read.

    Rule: cache.step.whole
    """

    def __init__(self, last: int = 0) -> None:
        self.last = last
        self._at = -1
        self._marks: list[tuple[Markable, Any]] = []

    def enter(self, index: int, layer: Markable) -> None:
        """Layer ``index`` is about to take tokens; an index that does not rise begins a forward."""
        if index <= self._at:
            self._marks.clear()
        self._at = index
        self._marks.append((layer, layer.mark()))

    def leave(self, index: int) -> None:
        """Layer ``index`` has been read; after the last packed one nothing of ours can fail."""
        if index >= self.last:
            self._marks.clear()

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Put every layer back if the body raises."""
        try:
            yield
        except BaseException:
            for layer, mark in self._marks:
                layer.restore(mark)
            self._marks.clear()
            raise


class Borrowed:
    """A library layer, whose tensors are replaced and never written to."""

    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def mark(self) -> dict[str, Any]:
        """Its attributes."""
        return dict(vars(self.layer))

    def restore(self, mark: dict[str, Any]) -> None:
        """Its attributes as they were."""
        vars(self.layer).clear()
        vars(self.layer).update(mark)
