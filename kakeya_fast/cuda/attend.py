"""Attention over packed pages: operands checked, kernels chosen, work space kept."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kakeya_fast.cuda import attend_plan as plan
from kakeya_fast.cuda import attend_values, checks, params
from kakeya_fast.cuda.compile import Unit
from kakeya_fast.cuda.launch import NULL, Args, Launcher, refuse_while_capturing
from kakeya_ref.errors import ShapeError, Unsupported
from kakeya_ref.types import PageLayout

RULE = "attend.operand.fits"
WARP = 32
COLUMNS = ("first", "length", "since", "frame")
KNOWN = 512  # sets of pages that have been looked at: those of every layer of a model


class Attention:
    """One kind of call: codecs, shapes and options are fixed, contexts grow up to ``pages``.

    Compiles and loads its kernel when made, and holds the work space; a call launches that one
    kernel, after one that lays out queries where frames have their own, waits for nothing and
    allocates nothing where ``out`` and ``lse`` are given, so it can be captured in a graph.
    Lengths are read from device memory. Calls that overlap in time need objects of their own.

    Rule: attend.memory.bounded, backend.graph.prepared

    Parameters
    ----------
    launcher : Launcher
    layouts : two PageLayout
        Of K and of V.
    batch, heads, rows : int
        ``B``, ``H`` and ``M``.
    pages : int
        Most pages of a row: ``N``.
    dtype : torch.dtype
        Of the queries.
    softcap, window, bias : bool
        Whether calls have them.
    frames : int
        Most frames of a row that have queries of their own, ``F``; 0 where all pages are read with
        the same queries.
    tuned : Tuning, optional
    splits : int, optional
        Blocks that share the pages of one KV head; chosen to fill the device if not given.

    Raises
    ------
    Unsupported
    """

    def __init__(
        self,
        launcher: Launcher,
        layouts: tuple[PageLayout, PageLayout],
        *,
        batch: int,
        heads: int,
        rows: int,
        pages: int,
        dtype: torch.dtype,
        softcap: bool = False,
        window: bool = False,
        bias: bool = False,
        frames: int = 0,
        tuned: plan.Tuning | None = None,
        splits: int | None = None,
    ) -> None:
        reason = plan.refusal(layouts)
        if reason:
            raise Unsupported(RULE, reason)
        device = launcher.device
        refuse_while_capturing(device, "attention")
        kind = params.KINDS[checks.dtype_name(dtype)]
        flags = {"softcap": softcap, "window": window, "bias": bias, "framed": frames > 0}
        tuned = tuned or plan.tuning(layouts, rows, launcher.shared, framed=frames > 0)
        self.numbers = plan.numbers(layouts, kind, rows, tuned, **flags)
        self._launcher, self._layouts, self._dtype = launcher, layouts, dtype
        self._shared = self.numbers.shared
        self.shape, self.frames = (batch, heads, rows, pages), frames
        self._known: dict[int, tuple[tuple[weakref.ref[Tensor], ...], Args]] = {}
        self.groups = -(-rows // self.numbers.rows)
        blocks = batch * heads * self.groups
        room = launcher.processors * tuned.resident
        self.splits = splits or plan.splits(self.numbers, blocks, pages, room)
        with torch.inference_mode(False):
            words = attend_values.tables(*layouts).view(np.int32)
            self._tables = torch.from_numpy(words.copy()).to(device)
            size = blocks * self.splits * self.numbers.partial
            self._work = torch.empty(size, dtype=torch.float32, device=device)
            size = blocks * frames * self.numbers.queries
            self._turned = torch.empty(size, dtype=torch.uint8, device=device)
            self._tickets = torch.zeros(blocks, dtype=torch.int32, device=device)
            self._nobody = torch.zeros(batch, dtype=torch.int32, device=device)
        entries = (plan.ENTRY, plan.TURN) if frames else (plan.ENTRY,)
        self.unit = Unit("attend.cu", self.numbers.defines(tuned.resident), entries)
        launcher.load(self.unit)

    def __call__(
        self,
        q: Tensor,
        k_pages: Tensor,
        v_pages: Tensor,
        paged: Any,
        scaling: float,
        *,
        bias: Tensor | None = None,
        bands: Tensor | None = None,
        softcap: float | None = None,
        window: int | None = None,
        count: Tensor | None = None,
        other: tuple[Tensor, Tensor] | None = None,
        out: Tensor | None = None,
        lse: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The partial of all tokens of the pages that each query sees.

        Rule: attend.basis.once, attend.logit, attend.visible.page, attend.visible.window,
        attend.operand.fits, query.attend.frame

        Parameters
        ----------
        q : (B, H, F, M, D), or (B, H, M, D) without frames
            In the coded basis of K, of the object's dtype. Queries and bias of frames may be
            strided, but for the last axis of queries.
        k_pages, v_pages : (S, nbytes) uint8
            Pools of page bodies, rows strided by multiples of 16 bytes.
        paged : kakeya_ref.types.Paged
            Of int32 tensors on the device, ``origin`` int64. That frames lie below F is
            the caller's word.
        bias : (B, H, F, M) or (B, H, M) float32, where the object has it
        bands : (H, D / 8, 4) int32
            For keys of ``query``; see :func:`kakeya_fast.cuda.attend_values.bands`.
        count : (B,) int32, optional
            Pages of each row; those from there on are not looked at.
        other : (B, H, M, E) and (B, H, M) float32, optional
            A partial over other tokens, in the coded basis of V, that is merged into the result.
        out, lse : optional
            Filled in place of new tensors.

        Returns
        -------
        out : (B, H, M, E) float32, in the coded basis of V
        lse : (B, H, M) float32

        Raises
        ------
        ShapeError
        """
        batch, heads, rows, _ = self.shape
        device, n = self._launcher.device, self.numbers
        framed = self.frames > 0
        frames = q.shape[2] if framed else 1
        if q.dim() == 4:
            q = q[:, :, None]
        _same(q, (batch, heads, frames, rows, n.d), self._dtype, device, "q", inner=framed)
        given = tuple(x is not None for x in (softcap, window, bias, paged.frame))
        if given != tuple(map(bool, (n.softcap, n.window, n.bias, n.framed))):
            raise ShapeError(RULE, "softcap, window, bias and frames are fixed when made")
        if frames > max(1, self.frames):
            raise ShapeError(RULE, f"{frames} frames, made for {self.frames}")
        if n.kc == plan.BANDS:
            _same(bands, (heads, n.d // 8, 4), torch.int32, device, "bands")
        operands = self._operands(k_pages, v_pages, paged)
        _same(paged.origin, (batch,), torch.int64, device, "origin")
        if count is not None:
            _same(count, (batch,), torch.int32, device, "count")
        if bias is not None:
            bias = bias[:, :, None] if bias.dim() == 3 else bias
            _same(bias, (batch, heads, frames, rows), torch.float32, device, "bias", strided=framed)
        shape, made = (batch, heads, rows), (batch, heads, rows, n.dv)
        others: Args = (NULL, NULL)
        if other is not None:
            _same(other[0], made, torch.float32, device, "other")
            _same(other[1], shape, torch.float32, device, "other")
            others = other[0].data_ptr(), other[1].data_ptr()
        if out is None:
            out = torch.empty(made, dtype=torch.float32, device=device)
        else:
            _same(out, made, torch.float32, device, "out")
        if lse is None:
            lse = torch.empty(shape, dtype=torch.float32, device=device)
        else:
            _same(lse, shape, torch.float32, device, "lse")
        args = (
            *operands,
            *(_at(count), paged.origin.data_ptr(), q.data_ptr(), *q.stride()[:4]),
            *(_at(bias), *((0,) * 4 if bias is None else bias.stride())),
            *(_at(paged.frame), frames, self._turned.data_ptr(), _at(bands)),
            *(self._tables.data_ptr(), _bits(scaling), _bits(softcap or 0.0), window or 0),
            *(paged.slots.shape[2], heads, rows, paged.queries, self.splits),
            *(self._work.data_ptr(), self._tickets.data_ptr()),
            *others,
            *(out.data_ptr(), lse.data_ptr()),
        )
        start, blocks = self._launcher.start, heads * self.groups
        if n.framed:
            start(self.unit, plan.TURN, (frames, blocks, batch), n.warps * WARP, 0, args)
        grid = (self.splits, blocks, batch)
        start(self.unit, plan.ENTRY, grid, n.warps * WARP, self._shared, args)
        return out, lse

    def _operands(self, k_pages: Tensor, v_pages: Tensor, paged: Any) -> Args:
        """Arguments about pages and their table; looked at once for the same tensors."""
        columns = [getattr(paged, name) for name in COLUMNS]
        tensors = [k_pages, v_pages, paged.slots, *(x for x in columns if x is not None)]
        known = self._known.get(id(k_pages))
        if known and all(ref() is x for ref, x in zip(known[0], tensors, strict=True)):
            return known[1]
        batch, heads, _, pages = self.shape
        device = self._launcher.device
        for pool, layout in zip((k_pages, v_pages), self._layouts, strict=True):
            fits = isinstance(pool, Tensor) and pool.dtype == torch.uint8 and pool.dim() == 2
            if not fits or pool.shape[1] != layout.nbytes:
                raise ShapeError(RULE, f"pages of {layout} are (S, {layout.nbytes}) uint8")
            checks.same_device(pool, device)
            if not checks.in_place(pool):
                raise ShapeError(RULE, f"rows of pages start at multiples of {checks.ALIGN} bytes")
        now = paged.slots.shape[2]
        _same(paged.slots, (batch, heads, now), torch.int32, device, "slots", inner=True)
        for name, x in zip(COLUMNS, columns, strict=True):
            if x is not None:
                _same(x, (batch, now), torch.int32, device, name)
        if now > pages:
            raise ShapeError(RULE, f"{now} pages, made for {pages}")
        args = (
            *(k_pages.data_ptr(), k_pages.stride(0), v_pages.data_ptr(), v_pages.stride(0)),
            *(paged.slots.data_ptr(), paged.slots.stride(0), paged.slots.stride(1)),
            *(paged.first.data_ptr(), paged.length.data_ptr(), paged.since.data_ptr(), now),
        )
        if len(self._known) >= KNOWN:
            self._known.clear()
        self._known[id(k_pages)] = tuple(map(weakref.ref, tensors)), args
        return args


def _same(
    x: Tensor,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
    name: str,
    *,
    inner: bool = False,
    strided: bool = False,
) -> None:
    """Refuse an operand that is not what the kernel reads.

    Strides are 1 in the last axis if ``inner``, and any if ``strided``.
    """
    if not isinstance(x, Tensor) or x.dtype != dtype or tuple(x.shape) != tuple(shape):
        found = (tuple(x.shape), x.dtype) if isinstance(x, Tensor) else type(x).__name__
        raise ShapeError(RULE, f"{name}: want {tuple(shape)} {dtype}, got {found}")
    checks.same_device(x, device)
    if not (strided or x.is_contiguous() or (inner and (x.shape[-1] < 2 or x.stride(-1) == 1))):
        raise ShapeError(RULE, f"{name} is not contiguous")


def _at(x: Tensor | None) -> int:
    return NULL if x is None else x.data_ptr()


@lru_cache(maxsize=256)
def _bits(x: float) -> int:
    return int(np.float32(x).view(np.uint32))
