"""Storage of packed pages whose size depends on the data: a body and a table for every head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.hf.fits import Fitter, layout_of
from kakeya_fast.hf.pages import ENCODE
from kakeya_fast.hf.table import PageTable
from kakeya_ref.fitting import Fit
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import Basis, PageLayout

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Block:
    """One page of one KV head and stream; never changed, so rows may share it.

    Attributes
    ----------
    body : (nbytes,) uint8
        Page body, on the device.
    table : (1, nbytes) uint8 or None
        Table body, on the host, where backends look for it.
    """

    body: Tensor
    table: U8 | None


# The blocks of all KV heads of a page: those of K, those of V.
Page = tuple[tuple[Block, ...], tuple[Block, ...]]


class BlockStore(PageTable):
    """Packed pages of one layer, where at least one stream has a codec with a table.

    The same interface as :class:`kakeya_fast.hf.pages.PageStore`. Rank and outliers of a page
    are two words of the page table; its layout follows from them. Rows that were made from one
    row share its pages, which are held, and counted, once.

    Rule: cache.page.never-reencoded, cache.table.causal, page.table.position

    Attributes
    ----------
    blocks : list over rows of lists over slots of Page
    words : (B, slots, F, H, 2) uint16
        Rank, and outliers over 8, of the pages of the F streams with a table.
    shared : two dicts
        Per stream: the table that later pages of a row will use, where the codec shares it.
    """

    def __init__(
        self, batch: int, heads: int, fitters: tuple[Fitter, Fitter], device: torch.device
    ) -> None:
        super().__init__(batch)
        self.fitters, self.heads, self.device = fitters, heads, device
        self.blocks: list[list[Page]] = [[] for _ in range(batch)]
        self.columns = [s for s in (0, 1) if fitters[s].fitted]
        self.words = np.zeros((batch, 0, len(self.columns), heads, 2), np.uint16)
        self.shared: tuple[dict[int, Fit], dict[int, Fit]] = ({}, {})

    @property
    def table_nbytes(self) -> int:
        """Bytes of the table itself."""
        return super().table_nbytes + self.words.nbytes

    @property
    def skeletons_nbytes(self) -> int:
        """Bytes of the distinct table bodies, and of what encoding later pages needs of them."""
        arrays = [block.table for stream in (0, 1) for block in self._distinct(stream)]
        for fit in (fit for shared in self.shared for fit in shared.values()):
            arrays += [fit.tables.bodies, fit.tables.analysis]
        return sum({id(a): a.nbytes for a in arrays if a is not None}.values())

    @property
    def spare_nbytes(self) -> int:
        """Every body is as long as its page."""
        return 0

    def append(
        self,
        first: NDArray[np.int64],
        pages: NDArray[np.int64],
        exact: tuple[Tensor, Tensor],
        offset: int,
        backend: Any,
    ) -> None:
        """Fit and encode whole pages and enter them in the table; all of them, or none.

        Parameters and errors as of :meth:`kakeya_fast.hf.pages.PageStore.append`.

        Raises
        ------
        RangeError
            A value that the codec or its table cannot carry; nothing has changed.
        """
        if not pages.any():
            return
        size = self.fitters[0].layout.tokens
        shared = (dict(self.shared[0]), dict(self.shared[1]))
        new: list[list[Page]] = [[] for _ in pages]
        words: list[list[Any]] = [[] for _ in pages]
        work = [(row, int(first[row]) - offset + n * size) for row, n in _each(pages)]
        for done in range(0, len(work), ENCODE):
            some = work[done : done + ENCODE]
            coded = []
            for x, fitter, known in zip(exact, self.fitters, shared, strict=True):
                part = torch.stack([x[row, :, at : at + size] for row, at in some])
                fits = fitter.choose(part, [row for row, _ in some], known)
                coded.append((_encode(part.flatten(0, 1), fits, backend), fits))
            for i, (row, _) in enumerate(some):
                own = slice(i * self.heads, (i + 1) * self.heads)
                new[row].append((tuple(coded[0][0][own]), tuple(coded[1][0][own])))
                words[row].append([[f.word for f in coded[s][1][own]] for s in self.columns])
        # From here on nothing can fail.
        before, self.shared = self.count, shared
        self._enter(first, pages, size)
        grown = self.first.shape[1] - self.words.shape[1]
        self.words = np.pad(self.words, ((0, 0), (0, grown), (0, 0), (0, 0), (0, 0)))
        self.blocks = [old + more for old, more in zip(self.blocks, new, strict=True)]
        for row, at in enumerate(before):
            if words[row]:
                self.words[row, at : at + len(words[row])] = words[row]

    def decode(self, a: int, b: int, stream: int, backend: Any, basis: Basis = "vectors") -> Tensor:
        """Numbers of slots ``a..b`` of every row; zeros where a row has no page.

        Returns
        -------
        (B, H, (b - a) * P, D) float32
        """
        like = self.fitters[stream].layout
        shape = (len(self.blocks), self.heads, b - a, like.tokens, like.head_dim)
        out = torch.zeros(shape, dtype=torch.float32, device=self.device)
        groups: dict[PageLayout, dict[int, tuple[Block, list[Any]]]] = {}
        for row, slot, head, block in self._each_block(stream, a, b):
            group = groups.setdefault(self._layout(stream, row, slot, head), {})
            group.setdefault(id(block), (block, []))[1].append((row, head, slot - a))
        for layout, group in groups.items():
            blocks = [block for block, _ in group.values()]
            tables = _stacked([block.table for block in blocks])
            options = {} if tables is None else {"tables": Skeleton(tables)}
            bodies = torch.stack([block.body for block in blocks])
            numbers = backend.decode_tensor(bodies, layout, basis=basis, **options)
            places = [(i, *at) for i, (_, found) in enumerate(group.values()) for at in found]
            which, *at = torch.tensor(places, device=self.device).T
            out[tuple(at)] = numbers[which]
        return out.flatten(2, 3)

    def select(self, rows: Tensor) -> None:
        """Take these rows of the batch, in this order; a row that is taken twice is shared."""
        host = rows.cpu().numpy()
        self._take(host)
        self.words = self.words[host]
        self.blocks = [self.blocks[row] for row in host]
        k, v = ({i: s[r] for i, r in enumerate(host) if r in s} for s in self.shared)
        self.shared = (k, v)
        self._narrow()

    def to(self, device: torch.device | str) -> None:
        """Move the bodies; rows that share a page still share it."""
        moved: dict[int, Block] = {}
        for stream in (0, 1):
            for block in self._distinct(stream):
                body = block.body.to(device, non_blocking=True)
                moved[id(block)] = block if body is block.body else replace(block, body=body)
                self.device = body.device
        self.blocks = [
            [(tuple(moved[id(x)] for x in k), tuple(moved[id(x)] for x in v)) for k, v in pages]
            for pages in self.blocks
        ]

    def held(self, stream: int) -> Counter[PageLayout]:
        """How many distinct page bodies of which layout are held."""
        found: dict[int, PageLayout] = {}
        for row, slot, head, block in self._each_block(stream, 0, self.used):
            found[id(block)] = self._layout(stream, row, slot, head)
        return Counter(found.values())

    def _narrow(self) -> None:
        super()._narrow()
        self.words = self.words[:, : self.first.shape[1]].copy()
        self.blocks = [pages[:n] for pages, n in zip(self.blocks, self.count, strict=True)]
        # Without its first page a sequence begins anew.
        k, v = ({i: fit for i, fit in s.items() if self.count[i]} for s in self.shared)
        self.shared = (k, v)

    def _layout(self, stream: int, row: int, slot: int, head: int) -> PageLayout:
        fitter = self.fitters[stream]
        if not fitter.fitted:
            return fitter.layout
        rank, eighths = self.words[row, slot, self.columns.index(stream), head]
        return layout_of(fitter.codec, int(rank), 8 * int(eighths), fitter.layout)

    def _each_block(self, stream: int, a: int, b: int) -> Iterator[tuple[int, int, int, Block]]:
        for row, pages in enumerate(self.blocks):
            for slot in range(a, min(b, len(pages))):
                for head, block in enumerate(pages[slot][stream]):
                    yield row, slot, head, block

    def _distinct(self, stream: int) -> list[Block]:
        return list({id(x): x for *_, x in self._each_block(stream, 0, self.used)}.values())


def _each(pages: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    for row, count in enumerate(pages):
        for n in range(count):
            yield row, n


def _encode(x: Tensor, fits: list[Any], backend: Any) -> list[Block]:
    """Blocks of pages (N, P, D), one call for all of one layout."""
    blocks: list[Block | None] = [None] * len(fits)
    groups: dict[PageLayout, list[int]] = {}
    for i, chosen in enumerate(fits):
        groups.setdefault(chosen.layout, []).append(i)
    for layout, at in groups.items():
        tables = [fits[i].tables for i in at]
        bodies = _stacked([t and t.bodies for t in tables])
        options = {}
        if bodies is not None:
            analysis = _stacked([t.analysis for t in tables])
            options = {"tables": Skeleton(bodies, analysis)}
        pages = backend.encode_tensor(x[at], layout, **options)
        for i, body, known in zip(at, pages, tables, strict=True):
            # Cloned: a part of the result would keep all of it alive.
            with torch.inference_mode(False):
                blocks[i] = Block(body.clone(), None if known is None else known.bodies)
    return blocks


def _stacked(parts: list[Any]) -> Any:
    """Arrays of the pages of one call, one after the other; one for all where it is the same."""
    return parts[0] if all(part is parts[0] for part in parts) else np.concatenate(parts)
