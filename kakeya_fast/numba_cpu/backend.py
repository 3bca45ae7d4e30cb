"""The numba backend behind the public door: checks, threads, errors."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kakeya_fast.numba_cpu import (
    attend,
    checks,
    fp8,
    lattice,
    minmax,
    query,
    raw,
    scalar,
    tabled,
    trellis,
)
from kakeya_fast.numba_cpu.half import F32
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, NONE
from kakeya_fast.numba_cpu.threads import run
from kakeya_ref.contract import as_pages, check_attention
from kakeya_ref.errors import Malformed, RangeError, ShapeError, Unsupported
from kakeya_ref.types import Basis, Paged, PageLayout, Support

TABLE = ("slots", "first", "length", "since", "origin", "frame")


class Codec(NamedTuple):
    """Kernels of a codec without tables and the rules its values or bytes can break."""

    kernels: ModuleType
    too_large: str
    malformed: str


CODECS: dict[str, Codec] = {
    "raw": Codec(raw, "raw.range", "raw.code.finite"),
    "fp8": Codec(fp8, "fp8.scale.up", "fp8.code.nan"),
    "int": Codec(minmax, "int.range.f16", "int.params.finite"),
    "scalar": Codec(scalar, "scale.byte.range", "scale.byte.grid"),
    "d4": Codec(lattice, "scale.byte.range", "d4.index.range"),
    "e8": Codec(lattice, "scale.byte.range", "e8.index.range"),
    "trellis": Codec(trellis, "scale.byte.range", "scale.byte.grid"),
}

ATTENDED = {*CODECS, "query"}


class Backend:
    """All codecs as compiled loops over pages, shared out to threads.

    Their number is numba's (``NUMBA_NUM_THREADS``, ``numba.set_num_threads``); results do not
    depend on it. The first call of a codec compiles for some seconds and is then cached on disk
    (:mod:`kakeya_fast.numba_cpu.cachedir`).

    Rule: backend.profile.exact, num.fp32.no-fma, num.subnormal.kept
    """

    name = "numba"
    profile = "exact"
    merges = True  # calls of attention take a partial of other tokens, and tables as tensors

    def supports(self, layout: PageLayout) -> Support:
        """Every registered codec, on little-endian hosts."""
        if layout.codec.id not in CODECS | tabled.CODECS:
            return Support(False, frozenset(), f"no numba code for codec {layout.codec.id}")
        if sys.byteorder != "little":
            return Support(False, frozenset(), "pages need a little-endian host")
        features = {"encode", "decode"} | ({"attend"} if layout.codec.id in ATTENDED else set())
        return Support(True, frozenset(features))

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
        bits, kind = checks.array_bits(x, layout)
        return self._encode(bits, kind, layout, tables)

    def decode(
        self,
        pages: NDArray[np.uint8] | bytes,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.float32]:
        """Numbers of page bodies; see :meth:`kakeya_ref.contract.Backend.decode`."""
        mode = checks.basis(basis)
        body = as_pages(pages, layout)
        out = np.empty((len(body), layout.tokens, layout.head_dim), dtype=np.float32)
        self._decode_into(out.view(np.uint32), body, layout, mode, F32, tables)
        return out

    def encode_tensor(
        self, x: Any, layout: PageLayout, out: Any = None, *, tables: Any = None
    ) -> Any:
        """Page bodies of a CPU tensor, read in place.

        Rule: num.input.widen, num.input.finite, num.input.device, backend.error.atomic

        Parameters
        ----------
        x : (N, P, D) float32, float16, bfloat16, or float64 (rounded to float32)
            Any strides.
        out : (N, layout.nbytes) uint8, optional
            Rows may be strided; untouched when an error is raised.
        tables : kakeya_ref.skeletons.Skeleton, optional
            NumPy arrays also here; codecs without tables do not look at them.

        Returns
        -------
        (N, layout.nbytes) uint8

        Raises
        ------
        ShapeError, RangeError, Unsupported
        """
        import torch

        bits, kind = checks.tensor_bits(x, layout)
        if out is not None:
            checks.out(out, (len(x), layout.nbytes), (torch.uint8,))
        done = torch.from_numpy(self._encode(bits, kind, layout, tables))
        return done if out is None else out.copy_(done)

    def decode_tensor(
        self,
        pages: Any,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        dtype: Any = None,
        out: Any = None,
        tables: Any = None,
    ) -> Any:
        """Numbers of page bodies, computed in float32 and rounded to ``dtype`` as they are stored.

        Rule: decode.basis.known, num.input.device, backend.error.atomic

        Parameters
        ----------
        pages : (N, layout.nbytes) uint8
            CPU tensor, rows may be strided.
        dtype : torch.dtype, default float32
        out : (N, P, D), optional
            float32, float16 or bfloat16, filled in place of a new ``dtype`` tensor; untouched
            when an error is raised.
        tables : kakeya_ref.skeletons.Skeleton, optional
            As in :meth:`encode_tensor`.

        Returns
        -------
        (N, P, D) dtype

        Raises
        ------
        Malformed, ShapeError, Unsupported, UsageError
        """
        import torch

        mode = checks.basis(basis)
        body = checks.tensor_pages(pages, layout)
        shape = (len(body), layout.tokens, layout.head_dim)
        if out is not None:
            checks.out(out, shape, checks.kinds())
            dtype = out.dtype
            if layout.codec.id in CODECS:
                # All pages are checked before the first number is written.
                bits, kind = checks.tensor_bits(out, layout)
                self._decode_into(bits, body, layout, CHECK_ONLY, kind)
                self._decode_into(bits, body, layout, mode, kind)
                return out
        dtype = dtype or torch.float32
        done = torch.empty(shape, dtype=dtype if dtype in checks.kinds() else torch.float32)
        bits, kind = checks.tensor_bits(done, layout)
        self._decode_into(bits, body, layout, mode, kind, tables)
        # Where checking is as much work as decoding, a copy costs less than doing both.
        return done.to(dtype) if out is None else out.copy_(done)

    def attend(
        self,
        q: NDArray[Any],
        k_pages: NDArray[np.uint8],
        v_pages: NDArray[np.uint8],
        layouts: tuple[PageLayout, PageLayout],
        paged: Paged,
        scaling: float,
        *,
        bias: NDArray[Any] | None = None,
        softcap: float | None = None,
        window: int | None = None,
        known: Any = (None, None),
        other: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None,
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """A partial of attention over packed pages; see ``spec/attention.md``.

        Threads share the pages; the result does not depend on their number but in rounding.

        Rule: attend.operand.fits, attend.basis.once, attend.input.untouched

        Parameters
        ----------
        q : (B, H, F, M, D)
        k_pages, v_pages : (S, nbytes) uint8
            Rows may be strided.
        paged : Paged
        bias : (B, H, F, M), optional
        known : two sequences of H kakeya_ref.skeletons.Skeleton, or None
            Tables of the KV heads, for keys of ``query``; a sequence that is given again is known.
        other : (B, H, M, E) and (B, H, M), optional
            A partial over other tokens, to be merged.

        Returns
        -------
        out : (B, H, M, E) float32, lse : (B, H, M) float32

        Raises
        ------
        Malformed, ShapeError, Unsupported, UsageError
        """
        check_attention(q, bias, k_pages, v_pages, layouts, paged)
        kernels = []
        for layout, ours in zip(layouts, (ATTENDED, CODECS), strict=True):
            if layout.codec.id not in ours or not self.supports(layout).ok:
                raise Unsupported("backend.codec.offered", f"no attention over pages of {layout}")
            kernels.append(CODECS[layout.codec.id].kernels if layout.codec.id in CODECS else query)
        tables = None
        if layouts[0].codec.id not in CODECS:
            tables = tabled.of_heads(known[0], layouts[0], q.shape[1])
        wide = [None if x is None else np.asarray(x, dtype=np.float32) for x in (q, bias)]
        out, lse, bad = attend.run(
            *(*wide, k_pages, v_pages, layouts, tuple(kernels)),
            *(paged, scaling, softcap, window, other, tables),
        )
        *bad, slot, frame = bad
        for what, found, there in (("slots", slot, k_pages), ("frames", frame, q[0, 0])):
            if found < NONE:
                raise ShapeError("attend.operand.fits", f"{what} up to {len(there) - 1} are there")
        for slot, layout in zip(bad, layouts, strict=True):
            if slot < NONE:
                rule = CODECS[layout.codec.id].malformed
                raise Malformed(rule, f"slot {slot} holds a code that names no number")
        return out, lse

    def attend_tensor(
        self,
        q: Any,
        k_pages: Any,
        v_pages: Any,
        layouts: tuple[PageLayout, PageLayout],
        paged: Paged,
        scaling: float,
        *,
        bias: Any = None,
        other: Any = None,
        **options: Any,
    ) -> tuple[Any, Any]:
        """:meth:`attend` of CPU tensors, ``q`` also (B, H, M, D). Results are float32.

        ``paged`` holds tensors or NumPy arrays.
        """
        import torch

        q = q[:, :, None] if q.dim() == 4 else q
        arrays = [None if x is None else x.detach().float().numpy() for x in (q, bias)]
        pages = k_pages.detach().numpy(), v_pages.detach().numpy()
        given = {n: np.asarray(x) for n in TABLE if (x := getattr(paged, n)) is not None}
        if other is not None:
            options["other"] = tuple(x.detach().numpy() for x in other)
        table = replace(paged, **given)
        found = self.attend(arrays[0], *pages, layouts, table, scaling, bias=arrays[1], **options)
        return tuple(torch.from_numpy(x) for x in found)

    def _encode(
        self, bits: NDArray[Any], kind: int, layout: PageLayout, tables: Any
    ) -> NDArray[np.uint8]:
        codec = self._codec(layout)
        if codec is None:
            return tabled.encode(bits, kind, layout, tables)
        out = np.empty((len(bits), layout.nbytes), dtype=np.uint8)
        broken, large = run(codec.kernels.encode, bits, out, codec.kernels.plan(layout), kind)
        if broken < NONE:
            where = "page {}, token {}".format(*divmod(broken, layout.tokens))
            raise RangeError("num.input.finite", f"NaN or infinity in {where}")
        if large < NONE:
            where = "page {}, token {}".format(*divmod(large, layout.tokens))
            raise RangeError(codec.too_large, f"values of {where} are too large for {layout}")
        return out

    def _decode_into(
        self,
        out: NDArray[Any],
        body: NDArray[np.uint8],
        layout: PageLayout,
        mode: int,
        kind: int,
        tables: Any = None,
    ) -> None:
        codec = self._codec(layout)
        if codec is None:
            tabled.decode_into(out, kind, body, layout, tables, mode)
            return
        bad, *_ = run(codec.kernels.decode, body, out, codec.kernels.plan(layout), kind, mode)
        if bad < NONE:
            raise Malformed(codec.malformed, f"page {bad} holds a code that names no number")

    def _codec(self, layout: PageLayout) -> Codec | None:
        """Kernels and rules of a codec; none for one with tables, whose calls are ``tabled``'s."""
        support = self.supports(layout)
        if not support.ok:
            raise Unsupported("backend.codec.offered", support.reason)
        return CODECS.get(layout.codec.id)
