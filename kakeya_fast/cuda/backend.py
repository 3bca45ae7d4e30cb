"""The CUDA backend behind the public door: checks, calls, errors."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.cuda import attend_plan, checks, params
from kakeya_fast.cuda.attend_backend import Attends
from kakeya_fast.cuda.calls import Calls
from kakeya_fast.cuda.launch import (
    CupyLauncher,
    Launcher,
    cuda_device,
    refuse_while_capturing,
)
from kakeya_fast.cuda.pool import check_pool, check_slots, check_values
from kakeya_fast.cuda.status import Direction, check_status, new_status, raise_if_bad
from kakeya_fast.torch_ops.checks import from_numpy
from kakeya_ref.contract import as_pages
from kakeya_ref.errors import KakeyaError, RangeError, ShapeError, Unsupported
from kakeya_ref.types import Basis, PageLayout, Support

FEATURES = frozenset({"decode", "encode"})


class Backend(Attends):
    """Page bodies on an NVIDIA GPU: own kernels, torch tensors in and out, torch's stream.

    The first use of a layout compiles its kernels, a second or so, and keeps them on disk;
    :meth:`prepare` does that ahead of time.

    Rule: backend.profile.exact, num.fp32.no-fma, num.subnormal.kept

    Parameters
    ----------
    device : str or torch.device
        ``cuda`` is torch's current device.
    launcher : Launcher, optional
        What runs the kernels in place of CuPy, on the launcher's device.

    Raises
    ------
    Unsupported
        CuPy, NVRTC or the device is not there; the message says what to install.
    """

    name = "cuda"
    profile = "exact"
    devices = ("cuda",)

    def __init__(
        self, device: str | torch.device = "cuda", *, launcher: Launcher | None = None
    ) -> None:
        launcher = launcher or CupyLauncher(cuda_device(device))
        self.device = launcher.device
        self._calls = Calls(launcher)
        Attends.__init__(self, launcher)

    def __reduce__(self) -> tuple[type[Backend], tuple[str]]:
        return Backend, (str(self.device),)

    def supports(self, layout: PageLayout) -> Support:
        """Every codec that has kernels, on little-endian hosts."""
        reason = params.refusal(layout)
        if not reason and sys.byteorder != "little":
            reason = "pages need a little-endian host"
        if reason:
            return Support(False, frozenset(), reason)
        attends = not attend_plan.refusal_of(layout)
        return Support(True, FEATURES | {"attend"} if attends else FEATURES)

    def before_proof(self, codec_id: str) -> None:
        """Refuse to be tested on a codec while a graph is being captured.

        Rule: backend.graph.prepared
        """
        refuse_while_capturing(self.device, codec_id)

    def prepare(
        self,
        layout: PageLayout,
        dtype: torch.dtype = torch.float32,
        *,
        directions: Iterable[Direction] = ("encode", "decode"),
        basis: Basis = "vectors",
        tables: Any = None,
    ) -> None:
        """Compile and load what calls on a layout need; then they can be captured in a graph.

        Rule: backend.graph.prepared

        Parameters
        ----------
        dtype : torch.dtype
            Of the vectors to be encoded, and of the numbers to be decoded.
        basis : str
            Of the numbers to be decoded.
        tables : Skeleton, optional
            For codecs with tables: those of the calls, in arrays that nobody can write to. They
            stay on the device as long as these arrays live.

        Raises
        ------
        Unsupported, ShapeError, UsageError, Malformed
        """
        self._offered(layout)
        for direction in directions:
            self._calls.prepare(layout, dtype, direction, checks.basis(basis), tables)

    def encode(
        self,
        x: NDArray[Any],
        layout: PageLayout,
        *,
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.uint8]:
        """Page bodies of an array, through the device.

        See :meth:`kakeya_ref.contract.Backend.encode`.

        Rule: encode.input.untouched, encode.batch.independent
        """
        if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float16):
            kind = getattr(x, "dtype", type(x).__name__)
            raise ShapeError("num.input.widen", f"vectors are float32 or float16, not {kind}")
        given = from_numpy(x).to(self.device)
        return self.encode_tensor(given, layout, tables=tables).cpu().numpy()

    def decode(
        self,
        pages: NDArray[np.uint8] | bytes,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.float32]:
        """Numbers of page bodies, through the device.

        See :meth:`kakeya_ref.contract.Backend.decode`.
        """
        body = from_numpy(as_pages(pages, layout)).to(self.device)
        return self.decode_tensor(body, layout, basis=basis, tables=tables).cpu().numpy()

    @torch.no_grad()
    def encode_tensor(
        self, x: Tensor, layout: PageLayout, out: Tensor | None = None, *, tables: Any = None
    ) -> Tensor:
        """Page bodies of a tensor, read in place. Waits for the device, to raise what it found.

        Rule: num.input.widen, num.input.finite, encode.input.strided, backend.error.atomic

        Parameters
        ----------
        x : (N, P, D) float32, float16, bfloat16, or float64 (rounded to float32)
            On this backend's device, any strides.
        out : (N, layout.nbytes) uint8, optional
            Rows may be strided; untouched when an error is raised.
        tables : Skeleton, optional
            Of codecs that have tables, and looked at for no other. Arrays that nobody can write to
            are brought to the device once.

        Returns
        -------
        (N, layout.nbytes) uint8

        Raises
        ------
        ShapeError, RangeError, Unsupported, UsageError, Malformed
        """
        self._offered(layout)
        x = checks.vectors(x, layout, self.device)
        shape = (len(x), layout.nbytes)
        if out is not None:
            checks.out(out, shape, (torch.uint8,), self.device)
        # Into memory of our own: what the kernel refuses is known after it has run.
        done = torch.empty(shape, dtype=torch.uint8, device=self.device)
        words = self.new_status()
        self._encode(x, layout, done, None, words, tables)
        raise_if_bad(words, layout, "encode")
        return done if out is None else out.copy_(done)

    @torch.no_grad()
    def decode_tensor(
        self,
        pages: Tensor,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        dtype: torch.dtype | None = None,
        out: Tensor | None = None,
        tables: Any = None,
    ) -> Tensor:
        """Numbers of page bodies, computed in float32 and rounded to ``dtype`` as they are stored.

        Waits for the device, to raise what it found.

        Rule: decode.basis.known, num.input.device, backend.error.atomic

        Parameters
        ----------
        pages : (N, layout.nbytes) uint8
            On this backend's device, rows may be strided.
        dtype : torch.dtype, default float32
        out : (N, P, D), optional
            float32, float16 or bfloat16, any strides, filled in place of a new ``dtype`` tensor;
            untouched when an error is raised.
        tables : Skeleton, optional
            As in :meth:`encode_tensor`.

        Returns
        -------
        (N, P, D) dtype

        Raises
        ------
        Malformed, ShapeError, Unsupported, UsageError
        """
        self._offered(layout)
        checks.basis(basis)
        body = checks.pages(pages, layout, self.device)
        shape = (len(body), layout.tokens, layout.head_dim)
        words = self.new_status()
        if out is not None:
            checks.out(out, shape, checks.FLOATS, self.device)
            self._calls.decode(body, layout, None, out, basis, words, tables, only_check=True)
            raise_if_bad(words, layout, "decode")
            self._calls.decode(body, layout, None, out, basis, words, tables)
            return out
        dtype = dtype or torch.float32
        kind = dtype if dtype in checks.FLOATS else torch.float32
        done = torch.empty(shape, dtype=kind, device=self.device)
        self._calls.decode(body, layout, None, done, basis, words, tables)
        raise_if_bad(words, layout, "decode")
        return done.to(dtype)

    @torch.no_grad()
    def append(
        self,
        x: Tensor | Sequence[Tensor],
        layout: PageLayout,
        pool: Tensor,
        slots: Tensor,
        *,
        status: Tensor | None = None,
        tables: Any = None,
    ) -> None:
        """Encode pages straight into slots of a pool.

        Rule: backend.pool.fits, backend.graph.sticky, backend.error.atomic

        Parameters
        ----------
        x : (N, P, D) float32, float16, bfloat16, or float64 (rounded to float32)
            On this backend's device, any strides. Or several of these, such as the keys and values
            of all layers: they are put together by one copy, and still encoded by one launch.
        pool : (S, layout.nbytes) uint8
            Rows may be strided, by a multiple of 16 bytes.
        slots : (N,) int64
            Row of each page, on the device, each at most once; -1 for a page to leave out.
        status : (2,) int64, optional
            Words of :meth:`new_status`. With them nothing waits for the device and the call can
            be captured in a graph: the values of ``slots`` are the caller's word, a vector that
            is refused becomes zeros, and the words keep the first one for :meth:`raise_if_bad`.
            Without them everything is checked before the first byte is written.
        tables : Skeleton, optional
            As in :meth:`encode_tensor`; ``of_page`` says which is whose where pages of several
            layers are written at once.

        Raises
        ------
        ShapeError, RangeError, Unsupported, UsageError, Malformed
        """
        self._offered(layout)
        parts = [x] if isinstance(x, Tensor) else x
        parts = [checks.vectors(part, layout, self.device) for part in parts]
        if not parts:
            raise ShapeError("page.shape.exact", "no tensors of pages are given")
        x = parts[0] if len(parts) == 1 else torch.cat(parts)
        check_pool(pool, layout, self.device)
        check_slots(slots, len(x), self.device)
        if status is None:
            check_values(slots, len(pool), once=True)
            status = self.new_status()
            self._encode(x, layout, None, slots, status, tables)
            raise_if_bad(status, layout, "encode")
        check_status(status, self.device)
        self._calls.encode(x, layout, pool, slots, status, tables)

    @torch.no_grad()
    def read(
        self,
        pool: Tensor,
        layout: PageLayout,
        slots: Tensor,
        *,
        basis: Basis = "vectors",
        dtype: torch.dtype = torch.float32,
        out: Tensor | None = None,
        status: Tensor | None = None,
        tables: Any = None,
    ) -> Tensor:
        """Numbers of the pages in slots of a pool.

        Rule: backend.pool.fits, backend.graph.sticky, decode.basis.known

        Parameters
        ----------
        pool : (S, layout.nbytes) uint8
            Rows may be strided, by a multiple of 16 bytes.
        slots : (N,) int64
            On the device. A page of slot -1 leaves ``out`` as it is.
        dtype : torch.dtype
            float32, float16 or bfloat16: of the result where there is no ``out``.
        out : (N, P, D), optional
            Any strides. A new result is zero in pages of slot -1.
        status : (2,) int64, optional
            As for :meth:`append`; a code that names no number becomes +0.
        tables : Skeleton, optional
            As in :meth:`encode_tensor`.

        Returns
        -------
        (N, P, D)

        Raises
        ------
        Malformed, ShapeError, Unsupported, UsageError
        """
        self._offered(layout)
        checks.basis(basis)
        check_pool(pool, layout, self.device)
        check_slots(slots, None, self.device)
        shape = (len(slots), layout.tokens, layout.head_dim)
        if out is None:
            checks.dtype_name(dtype)
            out = torch.zeros(shape, dtype=dtype, device=self.device)
        checks.out(out, shape, checks.FLOATS, self.device)
        if status is None:
            check_values(slots, len(pool), once=False)
            status = self.new_status()
            self._calls.decode(pool, layout, slots, out, basis, status, tables, only_check=True)
            raise_if_bad(status, layout, "decode")
        check_status(status, self.device)
        self._calls.decode(pool, layout, slots, out, basis, status, tables)
        return out

    def new_status(self) -> Tensor:
        """Words for calls that do not wait for the device, saying that nothing is wrong."""
        return new_status(self.device)

    def raise_if_bad(self, status: Tensor, layout: PageLayout, direction: Direction) -> None:
        """Wait for the device and raise the first refusal since the words were new.

        ``status.fill_(-1)`` makes them new again.

        Rule: backend.graph.sticky

        Raises
        ------
        RangeError, Malformed
        """
        check_status(status, self.device)
        raise_if_bad(status, layout, direction)

    def _encode(
        self,
        x: Tensor,
        layout: PageLayout,
        out: Tensor | None,
        slots: Tensor | None,
        words: Tensor,
        tables: Any,
    ) -> None:
        """A call that waits for the device: of two faults the vectors' is named."""
        try:
            self._calls.encode(x, layout, out, slots, words, tables)
        except KakeyaError:
            broken = ~x.isfinite().all(2)
            if broken.any():
                page, token = broken.nonzero()[0].tolist()
                where = f"NaN or infinity in page {page}, token {token}"
                raise RangeError("num.input.finite", where) from None
            raise

    def _offered(self, layout: PageLayout) -> None:
        support = self.supports(layout)
        if not support.ok:
            raise Unsupported("backend.codec.offered", support.reason)
