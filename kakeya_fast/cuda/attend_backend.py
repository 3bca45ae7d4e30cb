"""The part of the CUDA backend that attends over packed pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kakeya_fast.cuda.attend import Attention
from kakeya_fast.cuda.launch import Launcher
from kakeya_ref.contract import check_attention
from kakeya_ref.errors import ShapeError, Unsupported
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
        self._launcher = launcher
        self._made: dict[tuple[Any, ...], Attention] = {}
        # The same without a hash of layouts, which takes longer than what the caller does else.
        self._brief: dict[tuple[Any, ...], tuple[tuple[PageLayout, PageLayout], Attention]] = {}

    def prepare_attend(
        self,
        layouts: tuple[PageLayout, PageLayout],
        shape: tuple[int, int, int],
        pages: int,
        dtype: torch.dtype,
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
        **flags
            ``softcap``, ``window``, ``bias``: whether calls have them.

        Raises
        ------
        Unsupported
        """
        # In powers of two: a context that grows needs few of them.
        pages = 1 << max(0, pages - 1).bit_length()
        brief = (id(layouts), shape, pages, dtype, *(k for k, on in flags.items() if on))
        known = self._brief.get(brief)
        if known and known[0] is layouts:
            return known[1]
        key = (layouts, *shape, pages, dtype, *sorted(k for k, on in flags.items() if on))
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

        Raises
        ------
        ShapeError, Unsupported
        """
        if any(options.pop("known", ())):
            raise Unsupported("attend.operand.fits", "no attention kernel reads tables")
        if paged.frame is not None:
            return self._by_frames(q, k_pages, v_pages, layouts, paged, scaling, **options)
        flags = {k: options.get(k) is not None for k in ("softcap", "window", "bias")}
        shape = q.shape[0], q.shape[1], q.shape[-2]
        made = self.prepare_attend(layouts, shape, paged.slots.shape[2], q.dtype, **flags)
        return made(q, k_pages, v_pages, paged, scaling, **options)

    def _by_frames(
        self,
        q: Tensor,
        k_pages: Tensor,
        v_pages: Tensor,
        layouts: tuple[PageLayout, PageLayout],
        paged: Any,
        scaling: float,
        *,
        bias: Tensor | None = None,
        other: tuple[Tensor, Tensor] | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor]:
        """A launch for each frame, over its pages alone, that merges what came before."""
        for frame in range(q.shape[2]):
            slots = torch.where(paged.frame[:, None] == frame, paged.slots, -1)
            last = frame == q.shape[2] - 1
            other = self.attend_tensor(
                q[:, :, frame].contiguous(),
                *(k_pages, v_pages, layouts, replace(paged, slots=slots, frame=None), scaling),
                bias=None if bias is None else bias[:, :, frame].contiguous(),
                other=other,
                **{k: x for k, x in options.items() if last or k not in ("out", "lse")},
            )
        return other


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
