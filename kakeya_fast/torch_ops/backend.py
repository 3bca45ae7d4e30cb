"""The torch backend behind the public door: checks, chunks, errors."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kakeya_fast.torch_ops import checks, tabled
from kakeya_fast.torch_ops.core import CODECS, PageCore
from kakeya_ref.contract import as_pages, as_vectors
from kakeya_ref.errors import Malformed, RangeError, Unsupported
from kakeya_ref.registry import table_kind
from kakeya_ref.types import Basis, PageLayout, Support

# Numbers handled at once: the temporaries of a chunk stay in cache, and memory stays bounded.
CHUNK = 1 << 18
# A device has room, and each operation costs a launch.
DEVICE_CHUNK = 1 << 21


class Backend:
    """All codecs with plain torch operations.

    ``profile`` is ``exact`` on the CPU, where torch's element-wise fp32 operations are IEEE and
    their order is fixed here. On other devices it is ``bounded``: the same operations run, but
    nothing in torch promises how a device's compiler contracts or rounds them.

    Rule: backend.profile.declared, num.fp32.no-fma, num.subnormal.kept

    Parameters
    ----------
    device : str or torch.device

    Raises
    ------
    Unsupported
        torch does not reach the device, or arithmetic there flushes subnormal numbers.
    """

    name = "torch"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = checks.reachable(device)
        self.profile = "exact" if self.device.type == "cpu" else "bounded"
        checks.refuse_flushing(self.device, every_thread=True)
        self._core = lru_cache(maxsize=64)(lambda layout: PageCore(layout, self.device))

    def __reduce__(self) -> tuple[type[Backend], tuple[str]]:
        return Backend, (str(self.device),)

    def supports(self, layout: PageLayout) -> Support:
        """All but codecs whose tables are fitted to each block, on little-endian hosts."""
        if table_kind(layout.codec) and layout.codec.id not in tabled.CODECS:
            reason = f"{layout.codec.id} needs tables, which torch code does not read; numba does"
            return Support(False, frozenset(), reason)
        if layout.codec.id not in (*CODECS, *tabled.CODECS):
            return Support(False, frozenset(), f"no torch code for codec {layout.codec.id}")
        if sys.byteorder != "little":
            return Support(False, frozenset(), "pages need a little-endian host")
        return Support(True)

    def encode(
        self,
        x: NDArray[Any],
        layout: PageLayout,
        *,
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.uint8]:
        """Page bodies of an array; see :meth:`kakeya_ref.contract.Backend.encode`."""
        tensor = checks.from_numpy(as_vectors(x, layout)).to(self.device)
        return self._encode(tensor, layout, None, tables).cpu().numpy()

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
        tensor = checks.from_numpy(as_pages(pages, layout)).to(self.device)
        return self.decode_tensor(tensor, layout, basis=basis, tables=tables).cpu().numpy()

    @torch.no_grad()
    def encode_tensor(
        self, x: Tensor, layout: PageLayout, out: Tensor | None = None, *, tables: Any = None
    ) -> Tensor:
        """Page bodies of a tensor.

        Rule: num.input.widen, num.input.finite, encode.input.untouched

        Parameters
        ----------
        x : (N, P, D) float32, float16, bfloat16, or float64 (rounded to float32)
            On this backend's device, any strides.
        out : (N, layout.nbytes) uint8, optional
            Written in place, rows may be strided; untouched when an error is raised.
        tables : kakeya_ref.skeletons.Skeleton, optional
            NumPy arrays also here; codecs without tables do not look at them.

        Returns
        -------
        (N, layout.nbytes) uint8

        Raises
        ------
        ShapeError, RangeError, Unsupported
        """
        return self._encode(checks.as_vectors(x, layout, self.device), layout, out, tables)

    @torch.no_grad()
    def decode_tensor(
        self,
        pages: Tensor,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        dtype: torch.dtype = torch.float32,
        out: Tensor | None = None,
        tables: Any = None,
    ) -> Tensor:
        """Numbers of page bodies, computed in float32 and rounded to ``dtype`` once, at the end.

        Parameters
        ----------
        pages : (N, layout.nbytes) uint8
            On this backend's device, rows may be strided.
        out : (N, P, D), optional
            Written in place instead of a new ``dtype`` tensor; untouched when an error is raised.
        tables : kakeya_ref.skeletons.Skeleton, optional
            As in :meth:`encode_tensor`.

        Returns
        -------
        (N, P, D) dtype

        Raises
        ------
        Malformed, ShapeError, Unsupported, UsageError
        """
        checks.basis(basis)
        checks.as_pages(pages, layout, self.device)
        self._check(layout)
        shape = (len(pages), layout.tokens, layout.head_dim)
        if out is not None:
            checks.out(out, shape, None, self.device)
        done = torch.empty(shape, dtype=dtype if out is None else out.dtype, device=self.device)
        step = self._step(layout)
        if layout.codec.id in tabled.CODECS:
            tabled.decode(pages, layout, tables, step, basis == "vectors", done)
            return done if out is None else out.copy_(done)
        core = self._core(layout)
        decode = core.vectors if basis == "vectors" else core.coefficients
        for first in range(0, len(pages), step):
            y, bad = decode(pages[first : first + step])
            where = checks.first_bad(bad, first)
            if where:
                raise Malformed(core.codec.decode_rule, f"{core.codec.decode_fault}: {where}")
            done[first : first + step] = y
        return done if out is None else out.copy_(done)

    def _encode(self, x: Tensor, layout: PageLayout, out: Tensor | None, tables: Any) -> Tensor:
        self._check(layout)
        if out is not None:
            checks.out(out, (len(x), layout.nbytes), torch.uint8, self.device)
        step = self._step(layout)
        if layout.codec.id in tabled.CODECS:
            done = tabled.encode(x, layout, tables, step)
            return done if out is None else out.copy_(done)
        core = self._core(layout)
        done = torch.empty((len(x), layout.nbytes), dtype=torch.uint8, device=self.device)
        for first in range(0, len(x), step):
            body, bad = core.encode(x[first : first + step])
            where = checks.first_bad(bad, first)
            if where:
                raise RangeError(core.codec.encode_rule, f"{core.codec.encode_fault}: {where}")
            done[first : first + step] = body
        return done if out is None else out.copy_(done)

    def _step(self, layout: PageLayout) -> int:
        """Pages handled at once."""
        chunk = CHUNK if self.device.type == "cpu" else DEVICE_CHUNK
        return max(1, chunk // (layout.tokens * layout.head_dim))

    def _check(self, layout: PageLayout) -> None:
        support = self.supports(layout)
        if not support.ok:
            raise Unsupported("backend.codec.offered", support.reason)
        checks.refuse_flushing(self.device)
