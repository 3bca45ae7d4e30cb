"""From tensors to kernels: which kernel, its arguments as the ABI wants them, its tables."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from kakeya_fast.cuda import params
from kakeya_fast.cuda.checks import dtype_name
from kakeya_fast.cuda.compile import Unit, unit
from kakeya_fast.cuda.launch import NULL, Args, Launcher, refuse_while_capturing
from kakeya_ref.types import Basis, PageLayout


class Calls:
    """Kernel calls on tensors that have been checked; nothing here waits for the device."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._tables = Tables(launcher.device)

    def prepare(self, layout: PageLayout, dtype: torch.dtype, direction: str, basis: Basis) -> None:
        """Compile and load the kernels, and start each once on no pages.

        The driver loads code at the first launch, which a graph capture does not allow.
        """
        chosen, tables = unit(layout, dtype_name(dtype), direction, basis), self._tables(layout)
        nowhere = (NULL, 0, 0, 0)
        if direction == "encode":
            args: Args = (*nowhere, tables.data_ptr(), NULL, 0, NULL, 0, NULL)
        else:
            args = (NULL, 0, NULL, tables.data_ptr(), *nowhere, 0, NULL)
        for entry in chosen.entries:
            self._launcher.run(chosen, entry, layout, 0, args)

    def encode(
        self,
        x: Tensor,
        layout: PageLayout,
        out: Tensor | None,
        slots: Tensor | None,
        status: Tensor,
    ) -> None:
        """Write page bodies to ``out``; without ``out``, only look for refusals."""
        chosen = unit(layout, dtype_name(x.dtype), "encode")
        args = encode_args(x, self._tables(layout), out, slots, status)
        self._run(chosen, chosen.entries[out is None], layout, len(x), args)

    def decode(
        self,
        pages: Tensor,
        layout: PageLayout,
        slots: Tensor | None,
        out: Tensor,
        basis: Basis,
        status: Tensor,
        *,
        only_check: bool = False,
    ) -> None:
        """Write numbers to ``out``; or only look for refusals."""
        chosen = unit(layout, dtype_name(out.dtype), "decode", basis)
        args = decode_args(pages, slots, self._tables(layout), out, status)
        self._run(chosen, chosen.entries[only_check], layout, len(out), args)

    def _run(self, chosen: Unit, entry: str, layout: PageLayout, pages: int, args: Args) -> None:
        if pages:
            self._launcher.run(chosen, entry, layout, pages, args)


def encode_args(
    x: Tensor, tables: Tensor, out: Tensor | None, slots: Tensor | None, status: Tensor
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
        tables.data_ptr(),
        *_rows(out),
        _pointer(slots),
        len(x),
        status.data_ptr(),
    )


def decode_args(
    pages: Tensor, slots: Tensor | None, tables: Tensor, out: Tensor, status: Tensor
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
        tables.data_ptr(),
        out.data_ptr(),
        *out.stride(),
        len(out),
        status.data_ptr(),
    )


def _rows(rows: Tensor | None) -> tuple[int, int]:
    return (NULL, 0) if rows is None else (rows.data_ptr(), rows.stride(0))


def _pointer(x: Tensor | None) -> int:
    return NULL if x is None else x.data_ptr()


class Tables:
    """Constants that kernels read, one copy per layout on a device.

    Never dropped: a captured graph keeps their addresses.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._kept: dict[PageLayout, Tensor] = {}

    def __call__(self, layout: PageLayout) -> Tensor:
        """Words of a layout: (n,) int32.

        Raises
        ------
        UsageError
            Not at hand, and a graph is being captured on this stream.
        """
        found = self._kept.get(layout)
        if found is None:
            refuse_while_capturing(self.device, str(layout))
            words = np.ascontiguousarray(params.tables(layout)).view(np.int32)
            found = self._kept.setdefault(layout, torch.from_numpy(words.copy()).to(self.device))
        return found
