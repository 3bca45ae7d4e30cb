"""What the numba backend refuses before any page is made, and inputs as bit patterns."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.numba_cpu.half import BF16, F16, F32
from kakeya_fast.numba_cpu.lanes import COEFFICIENTS, VECTORS
from kakeya_ref.errors import Malformed, ShapeError, UsageError
from kakeya_ref.types import PageLayout

BASES = {"vectors": VECTORS, "coefficients": COEFFICIENTS}


def array_bits(x: NDArray[Any], layout: PageLayout) -> tuple[NDArray[Any], int]:
    """Bit patterns of an array of vectors, not copied, and their type.

    Rule: num.input.widen, page.shape.exact

    Raises
    ------
    ShapeError
        Not (N, P, D), or not float32/float16.
    """
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float16):
        kind = getattr(x, "dtype", type(x).__name__)
        raise ShapeError("num.input.widen", f"vectors are float32 or float16, not {kind}")
    _shape(x, layout)
    if x.dtype == np.float32:
        return x.view(np.uint32), F32
    return x.view(np.uint16), F16


def tensor_bits(x: Any, layout: PageLayout) -> tuple[NDArray[Any], int]:
    """Bit patterns of a CPU tensor of vectors, not copied unless float64, and their type.

    Rule: num.input.widen, num.input.device, page.shape.exact

    Raises
    ------
    ShapeError
        Not (N, P, D), not a float dtype, or on another device.
    """
    import torch

    floats = (*kinds(), torch.float64)
    if not isinstance(x, torch.Tensor) or x.dtype not in floats:
        kind = getattr(x, "dtype", type(x).__name__)
        raise ShapeError("num.input.widen", f"vectors are a float tensor, not {kind}")
    _shape(x, layout)
    _on_cpu(x)
    x = x.detach()
    if x.dtype == torch.float64:
        x = x.to(torch.float32)
    kind = kinds()[x.dtype]
    # NumPy has no bfloat16; integers of the same width carry the patterns.
    return x.view(torch.uint32 if kind == F32 else torch.uint16).numpy(), kind


def tensor_pages(pages: Any, layout: PageLayout) -> NDArray[np.uint8]:
    """A CPU tensor of page bodies as an array, not copied.

    Rule: page.length.exact, num.input.device

    Raises
    ------
    Malformed, ShapeError
    """
    import torch

    if not isinstance(pages, torch.Tensor) or pages.dtype != torch.uint8:
        raise Malformed("page.length.exact", "pages are a uint8 tensor")
    if pages.dim() != 2 or pages.shape[1] != layout.nbytes:
        raise Malformed(
            "page.length.exact", f"want (N, {layout.nbytes}) for {layout}, got {tuple(pages.shape)}"
        )
    _on_cpu(pages)
    return pages.detach().numpy()


def out(target: Any, shape: tuple[int, ...], dtypes: Container[Any]) -> None:
    """Refuse an output tensor that does not take the result as it is.

    Rule: page.shape.exact, num.input.device
    """
    if tuple(target.shape) != shape or target.dtype not in dtypes:
        raise ShapeError(
            "page.shape.exact", f"out is {tuple(target.shape)} {target.dtype}, want {shape}"
        )
    _on_cpu(target)


def basis(name: str) -> int:
    """Kernel mode of a basis; an unknown one is refused.

    Rule: decode.basis.known
    """
    if name not in BASES:
        raise UsageError("decode.basis.known", f"basis is vectors or coefficients, not {name!r}")
    return BASES[name]


def kinds() -> dict[Any, int]:
    """Element type of each torch dtype that kernels read and write."""
    import torch

    return {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16}


def _shape(x: Any, layout: PageLayout) -> None:
    if x.ndim != 3 or tuple(x.shape[1:]) != (layout.tokens, layout.head_dim):
        raise ShapeError(
            "page.shape.exact",
            f"want (N, {layout.tokens}, {layout.head_dim}) for {layout}, got {tuple(x.shape)}",
        )


def _on_cpu(x: Any) -> None:
    if x.device.type != "cpu":
        raise ShapeError("num.input.device", f"tensor on {x.device}, backend on cpu")
