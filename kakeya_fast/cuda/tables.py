"""What kernels read beside pages and vectors, kept on the device: constants and tables."""

from __future__ import annotations

from typing import Any, NamedTuple
from weakref import ref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.cuda import attend_values, books, params
from kakeya_fast.cuda.launch import refuse_while_capturing
from kakeya_ref.errors import ShapeError
from kakeya_ref.registry import table_kind
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import PageLayout


class Beside(NamedTuple):
    """Words of constants and tables; which table each page is read with, where that is listed."""

    words: Tensor
    which: Tensor | None = None


class Tables:
    """Constants that kernels read, one copy per layout on a device, and tables of calls.

    Constants are never dropped: a captured graph keeps their addresses. Tables whose arrays nobody
    can write to stay as long as these arrays live, and are brought over once; others are brought
    over for each call, which cannot be captured then.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: dict[PageLayout, Tensor] = {}
        self._lent: dict[tuple[Any, ...], tuple[tuple[Any, ...], Tensor]] = {}

    def __call__(self, layout: PageLayout) -> Tensor:
        """Words of a layout: (n,) int32.

        Raises
        ------
        UsageError
            Not at hand, and a graph is being captured on this stream.
        """
        found = self._kept.get(layout)
        if found is None:
            refuse_while_capturing(self.device, str(layout))
            words = params.tables(layout).view(np.int32)
            found = self._kept.setdefault(layout, self._bring(words))
        return found

    def beside(self, layout: PageLayout, tables: Any, pages: int, direction: str) -> Beside:
        """What a call on so many pages reads.

        Rule: codec.table.given, codec.table.shape, backend.graph.prepared

        Raises
        ------
        UsageError, Malformed, ShapeError
            The tables; or they are not at hand while a graph is being captured.
        """
        if not table_kind(layout.codec) or not pages:
            return Beside(self(layout))
        known = books.checked(tables, layout, pages)
        arrays = tuple(a for a in (known.bodies, known.analysis) if a is not None)
        words = self._borrow(
            (layout, direction),
            arrays,
            lambda: books.book(known, layout, direction).view(np.int32),
            f"tables of {layout}",
        )
        which = books.listed(known, pages)
        if which is None:
            return Beside(words)
        return Beside(words, self._borrow(("which",), (known.of_page,), lambda: which, "tables"))

    def bands(self, layout: PageLayout, known: Any, heads: int) -> Tensor:
        """Words of the bands of the keys of each head: (H, D / 8, 4) int32.

        Rule: codec.table.given, codec.table.shape, attend.operand.fits

        Raises
        ------
        UsageError, Malformed, ShapeError
        """
        if known is None:
            books.checked(None, layout, 1)
        if len(known) != heads:
            raise ShapeError("attend.operand.fits", f"{len(known)} tables for {heads} KV heads")
        for each in known:
            if not isinstance(each, Skeleton):
                books.checked(each, layout, 1)  # says what it wants

        def make() -> NDArray[np.int32]:
            tables = [books.checked(each, layout, 1) for each in known]
            return attend_values.bands(tables, layout).view(np.int32)

        # A decode step asks for every layer: what is at hand is not looked at again.
        bodies = tuple(each.bodies for each in known)
        return self._borrow((layout, "bands"), bodies, make, f"tables of {layout}")

    def _borrow(
        self, key: tuple[Any, ...], arrays: tuple[NDArray[Any], ...], make: Any, what: str
    ) -> Tensor:
        """The device's copy of what is made of arrays."""
        key = (*key, *map(id, arrays))
        found = self._lent.get(key)
        if found is not None and all(r() is a for r, a in zip(found[0], arrays, strict=True)):
            return found[1]
        refuse_while_capturing(self.device, what)
        made = self._bring(make())
        if all(map(frozen, arrays)):
            refs = tuple(ref(a, lambda _: self._lent.pop(key, None)) for a in arrays)
            self._lent[key] = (refs, made)
        return made

    def _bring(self, array: NDArray[Any]) -> Tensor:
        # Outside of inference mode: the copy may outlive it.
        with torch.inference_mode(False):
            return torch.from_numpy(np.array(array)).to(self.device)


def frozen(array: NDArray[Any]) -> bool:
    """Whether nobody can write to an array: neither to it nor to what it is a view of."""
    if array.flags.writeable:
        return False
    base = array.base
    if isinstance(base, np.ndarray):
        return frozen(base)
    return base is None or isinstance(base, bytes)
