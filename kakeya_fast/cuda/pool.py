"""What a pool of pages and a list of slots must be before kernels write there.

Rule: backend.pool.fits
"""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_fast.cuda import checks
from kakeya_ref.errors import ShapeError
from kakeya_ref.types import PageLayout

RULE = "backend.pool.fits"
# A slot of a batch of fixed size that has no page this time; nothing is read or written.
SKIP = -1


def check_pool(pool: Tensor, layout: PageLayout, device: torch.device) -> None:
    """Refuse a pool that cannot hold page bodies of a layout in place.

    Parameters
    ----------
    pool : (S, layout.nbytes) uint8
        Rows may be strided, by a multiple of 16 bytes and from an address that is one.

    Raises
    ------
    ShapeError
    """
    if not isinstance(pool, Tensor) or pool.dtype != torch.uint8:
        raise ShapeError(RULE, "a pool is a uint8 tensor")
    if pool.dim() != 2 or pool.shape[1] != layout.nbytes:
        raise ShapeError(RULE, f"want (S, {layout.nbytes}) for {layout}, got {tuple(pool.shape)}")
    checks.same_device(pool, device)
    if not checks.in_place(pool):
        raise ShapeError(RULE, f"rows of a pool start at multiples of {checks.ALIGN} bytes")
    if len(pool) > 1 and pool.stride(0) < layout.nbytes:
        raise ShapeError(RULE, "rows of a pool overlap")


def check_slots(slots: Tensor, pages: int | None, device: torch.device) -> None:
    """Refuse slots of another number, type or place; their values are not looked at.

    Parameters
    ----------
    slots : (N,) int64
        Contiguous, on the device.

    Raises
    ------
    ShapeError
    """
    if not isinstance(slots, Tensor) or slots.dtype != torch.int64:
        kind = getattr(slots, "dtype", type(slots).__name__)
        raise ShapeError(RULE, f"slots are an int64 tensor, not {kind}")
    if slots.dim() != 1 or pages not in (None, len(slots)) or not slots.is_contiguous():
        raise ShapeError(RULE, f"want {pages} slots side by side, got {tuple(slots.shape)}")
    checks.same_device(slots, device)


def check_values(slots: Tensor, size: int, *, once: bool) -> None:
    """Wait for the device and refuse slots outside the pool, and repeated ones if ``once``.

    Raises
    ------
    ShapeError
    """
    host = slots.cpu()
    bad = (host < SKIP) | (host >= size)
    if bad.any():
        page = int(bad.nonzero()[0])
        raise ShapeError(RULE, f"slot {int(host[page])} of page {page} is not in 0..{size - 1}")
    used = host[host != SKIP]
    if once and len(used.unique()) != len(used):
        raise ShapeError(RULE, "two pages would be written to one slot")
