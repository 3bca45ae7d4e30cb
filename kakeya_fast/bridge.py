"""Tensors in and out for backends that only know arrays."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from kakeya_ref.errors import Malformed, ShapeError
from kakeya_ref.types import PageLayout, Support


def with_tensors(backend: Any) -> Any:
    """The backend itself if it takes tensors, else one that converts for it."""
    return backend if hasattr(backend, "encode_tensor") else TensorBridge(backend)


class TensorBridge:
    """A backend of arrays with the tensor methods added, through host memory.

    Everything else is the backend's own.
    """

    def __init__(self, backend: Any) -> None:
        self.inner = backend

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # absent only while being copied
            raise AttributeError(name)
        return getattr(self.inner, name)

    def supports(self, layout: PageLayout) -> Support:
        """What passes through host memory: pages in and out, no more."""
        told: Support = self.inner.supports(layout)
        return replace(told, features=told.features & {"encode", "decode"})

    def encode_tensor(
        self, x: Any, layout: PageLayout, out: Any = None, *, tables: Any = None
    ) -> Any:
        """Page bodies of a float tensor (N, P, D); see the torch backend.

        Rule: num.input.widen

        Parameters
        ----------
        tables : optional
            As for arrays: a :class:`kakeya_ref.skeletons.Skeleton` where the codec needs one.
        """
        import torch

        if not isinstance(x, torch.Tensor) or not x.dtype.is_floating_point:
            raise ShapeError("num.input.widen", "vectors are a float tensor")
        wide = x.detach().to("cpu", torch.float32).numpy()
        body = self.inner.encode(wide, layout, tables=tables)
        return _give(torch.from_numpy(body).to(x.device), out)

    def decode_tensor(
        self,
        pages: Any,
        layout: PageLayout,
        *,
        basis: str = "vectors",
        dtype: Any = None,
        out: Any = None,
        tables: Any = None,
    ) -> Any:
        """Numbers of page bodies (N, nbytes); see the torch backend and :meth:`encode_tensor`."""
        import torch

        if not isinstance(pages, torch.Tensor):
            raise Malformed("page.length.exact", "pages are a uint8 tensor")
        y = self.inner.decode(pages.cpu().numpy(), layout, basis=basis, tables=tables)
        return _give(torch.from_numpy(y).to(pages.device, dtype or torch.float32), out)


def _give(result: Any, out: Any) -> Any:
    if out is None:
        return result
    if out.shape != result.shape:
        raise ShapeError(
            "page.shape.exact", f"out is {tuple(out.shape)}, want {tuple(result.shape)}"
        )
    return out.copy_(result)
