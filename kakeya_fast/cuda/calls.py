"""From tensors to kernels: which kernel, its arguments as the ABI wants them, its tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kakeya_fast.cuda.checks import dtype_name
from kakeya_fast.cuda.compile import Unit, unit
from kakeya_fast.cuda.launch import NULL, Args, Launcher
from kakeya_fast.cuda.tables import Beside, Tables
from kakeya_ref.registry import table_kind
from kakeya_ref.types import Basis, PageLayout


class Calls:
    """Kernel calls on tensors that have been checked; nothing here waits for the device."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._tables = Tables(launcher.device)

    def prepare(
        self,
        layout: PageLayout,
        dtype: torch.dtype,
        direction: str,
        basis: Basis,
        tables: Any = None,
    ) -> None:
        """Compile and load the kernels, and start each once on no pages; put tables in place.

        The driver loads code at the first launch, which a graph capture does not allow.
        """
        if tables is not None and table_kind(layout.codec):
            self._tables.beside(layout, tables, _pages(tables), direction)
        chosen, words = unit(layout, dtype_name(dtype), direction, basis), self._tables(layout)
        nowhere = (NULL, 0, 0, 0)
        if direction == "encode":
            args: Args = (*nowhere, words.data_ptr(), NULL, NULL, 0, NULL, 0, NULL)
        else:
            args = (NULL, 0, NULL, words.data_ptr(), NULL, *nowhere, 0, NULL)
        for entry in chosen.entries:
            self._launcher.run(chosen, entry, layout, 0, args)

    def encode(
        self,
        x: Tensor,
        layout: PageLayout,
        out: Tensor | None,
        slots: Tensor | None,
        status: Tensor,
        tables: Any = None,
    ) -> None:
        """Write page bodies to ``out``; without ``out``, only look for refusals."""
        chosen = unit(layout, dtype_name(x.dtype), "encode")
        beside = self._tables.beside(layout, tables, len(x), "encode")
        args = encode_args(x, beside, out, slots, status)
        self._run(chosen, chosen.entries[out is None], layout, len(x), args)

    def decode(
        self,
        pages: Tensor,
        layout: PageLayout,
        slots: Tensor | None,
        out: Tensor,
        basis: Basis,
        status: Tensor,
        tables: Any = None,
        *,
        only_check: bool = False,
    ) -> None:
        """Write numbers to ``out``; or only look for refusals."""
        chosen = unit(layout, dtype_name(out.dtype), "decode", basis)
        beside = self._tables.beside(layout, tables, len(out), "decode")
        args = decode_args(pages, slots, beside, out, status)
        self._run(chosen, chosen.entries[only_check], layout, len(out), args)

    def _run(self, chosen: Unit, entry: str, layout: PageLayout, pages: int, args: Args) -> None:
        if pages:
            self._launcher.run(chosen, entry, layout, pages, args)


def encode_args(
    x: Tensor, beside: Beside, out: Tensor | None, slots: Tensor | None, status: Tensor
) -> Args:
    """Arguments of ``kakeya_encode`` and ``kakeya_check_input``.

    Parameters
    ----------
    x : (N, P, D)
        Any strides.
    out : (rows, layout.nbytes) uint8
        A row for every page, or a pool with ``slots``; none when only checking.
    """
    return (
        x.data_ptr(),
        *x.stride(),
        *map(_pointer, beside),
        *_rows(out),
        _pointer(slots),
        len(x),
        status.data_ptr(),
    )


def decode_args(
    pages: Tensor, slots: Tensor | None, beside: Beside, out: Tensor, status: Tensor
) -> Args:
    """Arguments of ``kakeya_decode`` and ``kakeya_check_pages``.

    Parameters
    ----------
    pages : (rows, layout.nbytes) uint8
    out : (N, P, D)
        Any strides.
    """
    return (
        *_rows(pages),
        _pointer(slots),
        *map(_pointer, beside),
        out.data_ptr(),
        *out.stride(),
        len(out),
        status.data_ptr(),
    )


def _rows(rows: Tensor | None) -> tuple[int, int]:
    return (NULL, 0) if rows is None else (rows.data_ptr(), rows.stride(0))


def _pointer(x: Tensor | None) -> int:
    return NULL if x is None else x.data_ptr()


def _pages(tables: Any) -> int:
    """How many pages tables could be for."""
    of = getattr(tables, "of_page", None)
    return len(getattr(tables, "bodies", ()) if of is None else of)
