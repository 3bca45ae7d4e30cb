"""One forward on its way through the layers of a cache: taken in by all of them, or by none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from kakeya_ref.errors import RangeError


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
        self._watched: list[tuple[Tensor, Tensor, int]] = []

    def watch(self, k: Tensor, v: Tensor, at: int) -> None:
        """Look at these tokens, from cache index ``at`` on, when the forward has come through."""
        self._watched.append((k, v, at))

    def look(self) -> None:
        """Refuse what is not finite among the tokens that are watched.

        Rule: num.input.finite

        Raises
        ------
        RangeError
        """
        watched, self._watched = self._watched, []
        if not watched:
            return
        # Largest magnitudes, of all at once: NaN and infinity come through.
        tensors = [x for k, v, _ in watched for x in (k, v)]
        if not torch.stack(torch._foreach_norm(tensors, torch.inf)).isfinite().all():
            for k, v, at in watched:
                check_finite(k, v, at)

    def enter(self, index: int, layer: Markable) -> None:
        """Layer ``index`` is about to take tokens; an index that does not rise begins a forward."""
        if index <= self._at:
            self.look()
            self._marks.clear()
        self._at = index
        self._marks.append((layer, layer.mark()))

    def leave(self, index: int) -> None:
        """Layer ``index`` has been read; after the last packed one nothing of ours can fail."""
        if index >= self.last:
            self.look()
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
            self._watched.clear()
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


def check_finite(k: Tensor, v: Tensor, at: int) -> None:
    """Refuse keys and values (B, H, q, D) of cache indices from ``at`` on that are not finite.

    Rule: num.input.finite

    Raises
    ------
    RangeError
    """
    for name, x in (("keys", k), ("values", v)):
        # NaN and infinity come through a maximum, which is less work than a look at every number.
        if x.numel() and not x.abs().amax().isfinite():
            row, _, token, _ = torch.nonzero(~torch.isfinite(x))[0].tolist()
            raise RangeError(
                "num.input.finite",
                f"NaN or infinity in the {name} of row {row}, token {at + token}; if the model is "
                "sound, its attention implementation was changed after the cache was built, or "
                'does not come through the registry (use attention="dense")',
            )
