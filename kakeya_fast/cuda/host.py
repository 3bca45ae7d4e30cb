"""The CUDA kernels on the CPU: the device's source, compiled by the host's C++ compiler."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.cuda import books, hostbuild, params
from kakeya_ref.contract import as_pages
from kakeya_ref.errors import (
    KakeyaError,
    Malformed,
    RangeError,
    ShapeError,
    Unsupported,
    UsageError,
)
from kakeya_ref.registry import table_kind
from kakeya_ref.types import Basis, PageLayout, Support

NONE = params.STATUS_CLEAR


class Backend:
    """All codecs that have CUDA kernels, one warp after the other on the calling thread.

    Made for checking the kernels where there is no GPU: slower than ``numba``, never chosen
    by ``auto``.

    Rule: backend.profile.exact, num.fp32.no-fma, num.subnormal.kept

    Raises
    ------
    Unsupported
        There is no C++ compiler.
    """

    name = "cuda-host"
    profile = "exact"
    devices = ("cpu",)

    def __init__(self) -> None:
        hostbuild.library()

    def supports(self, layout: PageLayout) -> Support:
        """Every codec that has kernels, on little-endian hosts."""
        reason = params.refusal(layout)
        if sys.byteorder != "little":
            reason = "pages need a little-endian host"
        return Support(False, frozenset(), reason) if reason else Support(True)

    def encode(
        self,
        x: NDArray[Any],
        layout: PageLayout,
        *,
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.uint8]:
        """Page bodies of an array; see :meth:`kakeya_ref.contract.Backend.encode`.

        Rule: encode.input.untouched, encode.input.strided, encode.batch.independent
        """
        self._offered(layout)
        if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float16):
            kind = getattr(x, "dtype", type(x).__name__)
            raise ShapeError("num.input.widen", f"vectors are float32 or float16, not {kind}")
        if x.ndim != 3 or x.shape[1:] != (layout.tokens, layout.head_dim):
            want = f"(N, {layout.tokens}, {layout.head_dim})"
            raise ShapeError("page.shape.exact", f"want {want} for {layout}, got {x.shape}")
        out = np.empty((len(x), layout.nbytes), dtype=np.uint8)
        try:
            status = encode(x, params.KINDS[x.dtype.name], layout, out, tables=tables)
        except KakeyaError:
            # Of two faults the vectors' is named, as the reference does.
            if np.isfinite(x).all():
                raise
            status = np.array([np.flatnonzero(~np.isfinite(x).all(2))[0], NONE], np.uint64)
        if status[0] != NONE:
            page, token = divmod(int(status[0]), layout.tokens)
            raise RangeError("num.input.finite", f"NaN or infinity in page {page}, token {token}")
        if status[1] != NONE:
            rule, page, token = _refused(status, layout, "encode")
            raise RangeError(rule, f"values of page {page}, token {token} are too large")
        return out

    def decode(
        self,
        pages: NDArray[np.uint8] | bytes,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.float32]:
        """Numbers of page bodies; see :meth:`kakeya_ref.contract.Backend.decode`.

        Rule: decode.basis.known
        """
        self._offered(layout)
        if basis not in ("vectors", "coefficients"):
            raise UsageError(
                "decode.basis.known", f"basis is vectors or coefficients, not {basis!r}"
            )
        body = np.ascontiguousarray(as_pages(pages, layout))
        out = np.empty((len(body), layout.tokens, layout.head_dim), dtype=np.float32)
        status = decode(body, layout, out, params.KINDS["float32"], basis, tables=tables)
        if status[1] != NONE:
            rule, page, token = _refused(status, layout, "decode")
            raise Malformed(rule, f"bytes of page {page}, token {token} name no number")
        return out

    def _offered(self, layout: PageLayout) -> None:
        support = self.supports(layout)
        if not support.ok:
            raise Unsupported("backend.codec.offered", support.reason)


def encode(
    x: NDArray[Any],
    kind: int,
    layout: PageLayout,
    out: NDArray[np.uint8],
    *,
    check: bool = False,
    tables: Any = None,
) -> NDArray[np.uint64]:
    """Run an encoder on patterns of a type; what it reports.

    Parameters
    ----------
    x : (N, P, D)
        Items of 2 or 4 bytes, any strides.
    kind : int
        One of ``params.KINDS``.
    out : (N, layout.nbytes) uint8
        Written, unless only checking.

    Returns
    -------
    (2,) uint64
        First vector that is not finite, first that is too large; else ``STATUS_CLEAR``.
    """
    if any(s % x.itemsize for s in x.strides):
        x = np.ascontiguousarray(x)
    status, (words, which) = _status(), _beside(tables, layout, len(x), "encode")
    args = (
        x.ctypes.data,
        *(s // x.itemsize for s in x.strides),
        words.ctypes.data,
        None if which is None else which.ctypes.data,
        out.ctypes.data,
        layout.nbytes,
        None,
        len(x),
        status.ctypes.data,
    )
    entry = "kakeya_check_input" if check else "kakeya_encode"
    hostbuild.run(layout, params.defines(layout, kind, "encode"), entry, len(x), args)
    return status


def decode(
    pages: NDArray[np.uint8],
    layout: PageLayout,
    out: NDArray[Any],
    kind: int,
    basis: Basis = "vectors",
    *,
    check: bool = False,
    tables: Any = None,
) -> NDArray[np.uint64]:
    """Run a decoder; what it reports, as :func:`encode` does: entry 1 is the first bad vector.

    Parameters
    ----------
    pages : (N, layout.nbytes) uint8
        Contiguous.
    out : (N, P, D)
        Written, in patterns of type ``kind``, unless only checking; any strides.
    """
    status, (words, which) = _status(), _beside(tables, layout, len(pages), "decode")
    args = (
        pages.ctypes.data,
        layout.nbytes,
        None,
        words.ctypes.data,
        None if which is None else which.ctypes.data,
        out.ctypes.data,
        *(s // out.itemsize for s in out.strides),
        len(pages),
        status.ctypes.data,
    )
    entry = "kakeya_check_pages" if check else "kakeya_decode"
    defines = params.defines(layout, kind, "decode", basis)
    hostbuild.run(layout, defines, entry, len(pages), args)
    return status


def _beside(
    tables: Any, layout: PageLayout, pages: int, direction: str
) -> tuple[NDArray[np.uint32], NDArray[np.int64] | None]:
    """Constants and tables of a call, and which of these each page is read with."""
    if not table_kind(layout.codec) or not pages:
        return params.tables(layout), None
    known = books.checked(tables, layout, pages)
    return books.book(known, layout, direction), books.listed(known, pages)


def _refused(
    status: NDArray[np.uint64], layout: PageLayout, direction: str
) -> tuple[str, int, int]:
    return params.refusal_at(layout.codec.id, int(status[1]), layout.tokens, direction)


def _status() -> NDArray[np.uint64]:
    return np.full(2, params.STATUS_CLEAR, dtype=np.uint64)
