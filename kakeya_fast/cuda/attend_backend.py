"""The part of the CUDA backend that attends over packed pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kakeya_fast.cuda import attend_plan
from kakeya_fast.cuda.attend import Attention
from kakeya_fast.cuda.launch import Launcher
from kakeya_fast.cuda.tables import Tables
from kakeya_ref.contract import check_attention
from kakeya_ref.errors import ShapeError
from kakeya_ref.types import PageLayout

BRIEF = 512
TABLE = ("slots", "first", "length", "since", "frame")


class Attends:
    """The part of the CUDA backend that attends over pages.

    Keeps one :class:`Attention` for each kind of call, made at its first use.

    Attributes
    ----------
    merges : bool
        Block tables are tensors of the device, and calls take a partial to be merged.
    """

    merges = True

    def __init__(self, launcher: Launcher) -> None:
        self._launcher, self._tables = launcher, Tables(launcher.device)
        self._made: dict[tuple[Any, ...], Attention] = {}
        # The same without a hash of layouts, which takes longer than what the caller does else.
        self._brief: dict[tuple[Any, ...], tuple[tuple[PageLayout, PageLayout], Attention]] = {}

    def prepare_attend(
        self,
        layouts: tuple[PageLayout, PageLayout],
        shape: tuple[int, int, int],
        pages: int,
        dtype: torch.dtype,
        *,
        frames: int = 0,
        **flags: bool,
    ) -> Attention:
        """What carries out :meth:`attend_tensor` of one kind, compiled and with work space.

        Rule: backend.graph.prepared

        Parameters
        ----------
        shape : B, H, M
        pages : int
            Most pages of a row, rounded up to a power of two.
        dtype : torch.dtype
            Of the queries.
        frames : int
            Most frames of a row, likewise; 0 where all pages are read with the same queries.
        **flags
            ``softcap``, ``window``, ``bias``: whether calls have them.

        Raises
        ------
        Unsupported
        """
        # In powers of two: a context that grows needs few of them.
        pages, frames = (x and 1 << (x - 1).bit_length() for x in (max(1, pages), frames))
        brief = (id(layouts), shape, pages, frames, dtype, *(k for k, on in flags.items() if on))
        known = self._brief.get(brief)
        if known and known[0] is layouts:
            return known[1]
        key = (layouts, *shape, pages, frames, dtype, *sorted(k for k, on in flags.items() if on))
        if key not in self._made:
            batch, heads, rows = shape
            self._made[key] = Attention(
                self._launcher,
                layouts,
                batch=batch,
                heads=heads,
                rows=rows,
                pages=pages,
                dtype=dtype,
                frames=frames,
                **flags,
            )
        if len(self._brief) >= BRIEF:
            self._brief.clear()
        self._brief[brief] = layouts, self._made[key]
        return self._made[key]

    def attend(self, q: Any, *given: Any, **options: Any) -> Any:
        """A partial of attention on arrays; see :meth:`attend_tensor`."""
        return attend_arrays(self.attend_tensor, self._launcher.device, q, *given, **options)

    def attend_tensor(
        self,
        q: Tensor,
        k_pages: Tensor,
        v_pages: Tensor,
        layouts: tuple[PageLayout, PageLayout],
        paged: Any,
        scaling: float,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """A partial of attention over packed pages; operands as for :class:`Attention`.

        Does not wait for the device.

        Parameters
        ----------
        known : two sequences of H kakeya_ref.skeletons.Skeleton, or None
            Tables of the KV heads, for keys of ``query``; looked at and brought to the device once,
            if nobody can write to their arrays.

        Raises
        ------
        Malformed, ShapeError, Unsupported, UsageError
        """
        known = options.pop("known", (None, None))
        if layouts[0].codec.id == attend_plan.CALIBRATED:
            options["bands"] = self._tables.bands(layouts[0], known[0], q.shape[1])
        flags = {k: options.get(k) is not None for k in ("softcap", "window", "bias")}
        frames = 0 if paged.frame is None else q.shape[2]
        if not frames:  # kernels take strided ones of frames alone
            q = q.contiguous()
            if flags["bias"]:
                options["bias"] = options["bias"].contiguous()
        shape, pages = (q.shape[0], q.shape[1], q.shape[-2]), paged.slots.shape[2]
        made = self.prepare_attend(layouts, shape, pages, q.dtype, frames=frames, **flags)
        return made(q, k_pages, v_pages, paged, scaling, **options)


def attend_arrays(
    attend: Callable[..., tuple[Tensor, Tensor]],
    device: torch.device,
    q: Any,
    k_pages: Any,
    v_pages: Any,
    layouts: tuple[PageLayout, PageLayout],
    paged: Any,
    scaling: float,
    **options: Any,
) -> tuple[Any, Any]:
    """The same on NumPy arrays: queries become float32, results come back as arrays."""

    check_attention(q, options.get("bias"), k_pages, v_pages, layouts, paged)
    if paged.slots.size and int(paged.slots.max()) >= len(k_pages):
        raise ShapeError("attend.operand.fits", f"slots end before {len(k_pages)}")
    frame = paged.frame
    if frame is not None and frame.size and not (0 <= frame.min() <= frame.max() < q.shape[2]):
        raise ShapeError("attend.operand.fits", f"frames end before {q.shape[2]}")

    def there(x: Any, dtype: Any) -> Tensor | None:
        return None if x is None else torch.from_numpy(np.array(x, dtype)).to(device)

    table = replace(
        paged,
        **{name: there(getattr(paged, name), np.int32) for name in TABLE},
        origin=there(paged.origin, np.int64),
    )
    options["bias"] = there(options.get("bias"), np.float32)
    given = there(q, np.float32), there(k_pages, np.uint8), there(v_pages, np.uint8)
    out, lse = attend(*given, layouts, table, scaling, **options)
    return out.cpu().numpy(), lse.cpu().numpy()
