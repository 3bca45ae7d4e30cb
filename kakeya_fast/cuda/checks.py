"""What the CUDA backend refuses before anything is launched."""

from __future__ import annotations

from collections.abc import Container

import torch
from torch import Tensor

from kakeya_ref.errors import Malformed, ShapeError, UsageError
from kakeya_ref.types import PageLayout

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
BASES = ("vectors", "coefficients")
# Kernels load and store 16 bytes at once; every plane of a page starts at a multiple of it.
ALIGN = 16


def vectors(x: Tensor, layout: PageLayout, device: torch.device) -> Tensor:
    """Input of an encoder, not copied unless float64.

    Rule: num.input.widen, num.input.device, page.shape.exact

    Raises
    ------
    ShapeError
        Not (N, P, D), not a float dtype, or on another device.
    """
    if not isinstance(x, Tensor) or x.dtype not in (*FLOATS, torch.float64):
        kind = getattr(x, "dtype", type(x).__name__)
        raise ShapeError("num.input.widen", f"vectors are a float tensor, not {kind}")
    if x.dim() != 3 or tuple(x.shape[1:]) != (layout.tokens, layout.head_dim):
        raise ShapeError(
            "page.shape.exact",
            f"want (N, {layout.tokens}, {layout.head_dim}) for {layout}, got {tuple(x.shape)}",
        )
    same_device(x, device)
    return x.detach().to(torch.float32) if x.dtype == torch.float64 else x.detach()


def pages(body: Tensor, layout: PageLayout, device: torch.device) -> Tensor:
    """Input of a decoder, copied only where kernels could not load it in place.

    Rule: page.length.exact, num.input.device

    Raises
    ------
    Malformed, ShapeError
    """
    if not isinstance(body, Tensor) or body.dtype != torch.uint8:
        raise Malformed("page.length.exact", "pages are a uint8 tensor")
    if body.dim() != 2 or body.shape[1] != layout.nbytes:
        raise Malformed(
            "page.length.exact", f"want (N, {layout.nbytes}) for {layout}, got {tuple(body.shape)}"
        )
    same_device(body, device)
    return body.detach() if in_place(body) else body.detach().clone().contiguous()


def in_place(rows: Tensor) -> bool:
    """Whether kernels can use the rows of a uint8 tensor where they lie."""
    aligned = rows.data_ptr() % ALIGN == 0 and (len(rows) < 2 or rows.stride(0) % ALIGN == 0)
    return aligned and (rows.shape[1] < 2 or rows.stride(1) == 1)


def out(
    target: Tensor, shape: tuple[int, ...], dtypes: Container[torch.dtype], device: torch.device
) -> None:
    """Refuse an output tensor that does not take the result as it is.

    Rule: page.shape.exact, num.input.device
    """
    if not isinstance(target, Tensor):
        raise ShapeError("page.shape.exact", f"out is a tensor, not {type(target).__name__}")
    if tuple(target.shape) != shape or target.dtype not in dtypes:
        raise ShapeError(
            "page.shape.exact", f"out is {tuple(target.shape)} {target.dtype}, want {shape}"
        )
    if any(n > 1 and step == 0 for n, step in zip(target.shape, target.stride(), strict=True)):
        raise ShapeError("page.shape.exact", "numbers of out overlap")
    same_device(target, device)


def basis(name: str) -> str:
    """Refuse an unknown basis.

    Rule: decode.basis.known
    """
    if name not in BASES:
        raise UsageError("decode.basis.known", f"basis is vectors or coefficients, not {name!r}")
    return name


def same_device(x: Tensor, device: torch.device) -> None:
    """Refuse a tensor that lies elsewhere: moving it in silence would hide a slow path.

    Rule: num.input.device
    """
    if x.device != device:
        raise ShapeError("num.input.device", f"tensor on {x.device}, backend on {device}")


def dtype_name(dtype: torch.dtype) -> str:
    """``float32`` of ``torch.float32``; other types than kernels read and write are refused.

    Rule: num.input.widen
    """
    if dtype not in FLOATS:
        raise ShapeError(
            "num.input.widen", f"kernels take float32, float16 or bfloat16, not {dtype}"
        )
    return str(dtype).removeprefix("torch.")
