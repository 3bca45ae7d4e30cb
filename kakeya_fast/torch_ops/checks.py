"""What the torch backend refuses, checked before any page is made."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_ref.errors import Malformed, RangeError, ShapeError, Unsupported, UsageError
from kakeya_ref.types import PageLayout

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
# torch gives a thread no fewer elements than this.
GRAIN = 1 << 15


def reachable(device: str | torch.device) -> torch.device:
    """The device, or a refusal if torch cannot compute on it.

    Rule: backend.name.explicit
    """
    try:
        torch.zeros(1, device=device)
        return torch.device(device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise Unsupported(
            "backend.name.explicit", f"torch does not reach device {str(device)!r}: {error}"
        ) from error


def refuse_flushing(device: torch.device, *, every_thread: bool = False) -> None:
    """Refuse to compute where subnormal numbers become zero (``torch.set_flush_denormal``).

    Rule: num.subnormal.kept

    Parameters
    ----------
    every_thread : bool
        Look at torch's worker threads too: they keep the setting they were started with.

    Raises
    ------
    Unsupported
    """
    count = GRAIN * torch.get_num_threads() if every_thread and device.type == "cpu" else 1
    # Built from bits: a conversion from a Python number could already flush it.
    tiny = torch.ones(count, dtype=torch.int32, device=device).view(torch.float32)
    if not bool(((tiny * 1.0).view(torch.int32) == 1).all()):
        raise Unsupported(
            "num.subnormal.kept",
            f"arithmetic on {device} flushes subnormal numbers to zero; "
            "turn torch.set_flush_denormal off before torch starts its threads",
        )


def from_numpy(a: NDArray[Any]) -> Tensor:
    """A tensor over an array, copied only where torch could not read it in place."""
    if not a.flags.writeable or any(s < 0 for s in a.strides):
        a = np.array(a)
    return torch.from_numpy(a)


def as_vectors(x: Tensor, layout: PageLayout, device: torch.device) -> Tensor:
    """Input of an encoder as finite float32.

    Rule: num.input.widen, num.input.finite, page.shape.exact

    Raises
    ------
    ShapeError
        Not (N, P, D), not a float dtype, or on another device.
    RangeError
        A NaN or an infinity; the message names page and token.
    """
    if not isinstance(x, Tensor) or x.dtype not in FLOATS:
        kind = getattr(x, "dtype", type(x).__name__)
        raise ShapeError("num.input.widen", f"vectors are a float tensor, not {kind}")
    if x.dim() != 3 or x.shape[1:] != (layout.tokens, layout.head_dim):
        raise ShapeError(
            "page.shape.exact",
            f"want (N, {layout.tokens}, {layout.head_dim}) for {layout}, got {tuple(x.shape)}",
        )
    _same_device(x, device)
    wide = x.detach().to(torch.float32)
    finite = wide.isfinite()
    if not finite.all():
        where = first_bad(~finite.all(dim=-1), 0)
        raise RangeError("num.input.finite", f"NaN or infinity in {where}")
    return wide


def as_pages(pages: Tensor, layout: PageLayout, device: torch.device) -> None:
    """Refuse what is not (N, layout.nbytes) uint8 on the device.

    Rule: page.length.exact
    """
    if not isinstance(pages, Tensor) or pages.dtype != torch.uint8:
        raise Malformed("page.length.exact", "pages are a uint8 tensor")
    if pages.dim() != 2 or pages.shape[1] != layout.nbytes:
        raise Malformed(
            "page.length.exact", f"want (N, {layout.nbytes}) for {layout}, got {tuple(pages.shape)}"
        )
    _same_device(pages, device)


def basis(name: str) -> None:
    """Refuse an unknown basis.

    Rule: decode.basis.known
    """
    if name not in ("vectors", "coefficients"):
        raise UsageError("decode.basis.known", f"basis is vectors or coefficients, not {name!r}")


def out(
    target: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None, device: torch.device
) -> None:
    """Refuse an output tensor that does not take the result as it is.

    Rule: page.shape.exact
    """
    fits = target.dtype == dtype if dtype else target.dtype in FLOATS
    if tuple(target.shape) != shape or not fits:
        raise ShapeError(
            "page.shape.exact",
            f"out is {tuple(target.shape)} {target.dtype}, want {shape} {dtype or 'float'}",
        )
    _same_device(target, device)


def first_bad(bad: Tensor, offset: int) -> str:
    """Place of the first true entry of a (N, P) mask, or nothing."""
    if not bad.any():
        return ""
    page, token = bad.nonzero()[0].tolist()
    return f"page {page + offset}, token {token}"


def _same_device(x: Tensor, device: torch.device) -> None:
    """Refuse a tensor that lies elsewhere: moving it in silence would hide a slow path.

    Rule: num.input.device
    """
    if x.device.type != device.type or device.index not in (None, x.device.index):
        raise ShapeError("num.input.device", f"tensor on {x.device}, backend on {device}")
