"""The CUDA kernels on the CPU: the device's source, compiled by the host's C++ compiler."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.cuda import hostbuild, params
from kakeya_ref.contract import as_pages
from kakeya_ref.errors import Malformed, RangeError, ShapeError, Unsupported, UsageError
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
        status = encode(x, params.KINDS[x.dtype.name], layout, out)
        for at, rule in enumerate(("num.input.finite", params.refused(layout.codec.id)[0])):
            if status[at] != NONE:
                page, token = divmod(int(status[at]), layout.tokens)
                what = "too large values" if at else "NaN or infinity"
                raise RangeError(rule, f"{what} in page {page}, token {token}")
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
        status = decode(body, layout, out, params.KINDS["float32"], basis)
        if status[1] != NONE:
            page, token = divmod(int(status[1]), layout.tokens)
            raise Malformed(
                params.refused(layout.codec.id)[1],
                f"page {page}, token {token} holds a code that names no number",
            )
        return out

    def _offered(self, layout: PageLayout) -> None:
        support = self.supports(layout)
        if not support.ok:
            raise Unsupported("backend.codec.offered", support.reason)


def encode(
    x: NDArray[Any], kind: int, layout: PageLayout, out: NDArray[np.uint8], *, check: bool = False
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
    status, words = _status(), params.tables(layout)
    args = (
        x.ctypes.data,
        *(s // x.itemsize for s in x.strides),
        words.ctypes.data,
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
) -> NDArray[np.uint64]:
    """Run a decoder; what it reports, as :func:`encode` does: entry 1 is the first bad vector.

    Parameters
    ----------
    pages : (N, layout.nbytes) uint8
        Contiguous.
    out : (N, P, D)
        Written, in patterns of type ``kind``, unless only checking; any strides.
    """
    status, words = _status(), params.tables(layout)
    args = (
        pages.ctypes.data,
        layout.nbytes,
        None,
        words.ctypes.data,
        out.ctypes.data,
        *(s // out.itemsize for s in out.strides),
        len(pages),
        status.ctypes.data,
    )
    entry = "kakeya_check_pages" if check else "kakeya_decode"
    defines = params.defines(layout, kind, "decode", basis)
    hostbuild.run(layout, defines, entry, len(pages), args)
    return status


def _status() -> NDArray[np.uint64]:
    return np.full(2, params.STATUS_CLEAR, dtype=np.uint64)
