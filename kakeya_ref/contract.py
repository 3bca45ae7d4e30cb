"""What a backend is. Fast code imports this module and its data types, never the arithmetic."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import Malformed, RangeError, ShapeError
from kakeya_ref.types import Basis, Paged, PageLayout, Support

BACKEND_API = 1


@runtime_checkable
class Backend(Protocol):
    """Anything that can read, and perhaps write, page bodies.

    ``profile`` is ``exact`` (bytes and decoded floats equal the reference's on every input)
    or ``bounded`` (decoded coefficients are exact, the rest is judged by distance).
    """

    name: str
    profile: str

    def supports(self, layout: PageLayout) -> Support:
        """Whether this layout can be read and written, and if not, why."""

    def encode(
        self,
        x: NDArray[Any],
        layout: PageLayout,
        *,
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.uint8]:
        """Page bodies of ``x``.

        Parameters
        ----------
        x : (N, P, D) float32 or float16
            Finite, any strides; bfloat16 arrives widened to float32. Never written to.
        positions : (N, P) int64, optional
            Positions of the tokens in the model; codecs without frames ignore them.
        tables : optional
            What the codec needs besides the vectors, such as a
            :class:`kakeya_ref.skeletons.Skeleton`; codecs without tables ignore them.

        Returns
        -------
        (N, layout.nbytes) uint8

        Raises
        ------
        ShapeError, RangeError, Unsupported
        """

    def decode(
        self,
        pages: NDArray[np.uint8] | bytes,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.float32]:
        """Vectors, or coefficients in the coded basis, of page bodies.

        Parameters
        ----------
        pages : (N, layout.nbytes) uint8, or bytes of length N * layout.nbytes
        tables : optional
            The tables that the pages were encoded with.

        Returns
        -------
        (N, P, D) float32

        Raises
        ------
        Malformed, Unsupported
        """


def as_vectors(x: NDArray[Any], layout: PageLayout) -> NDArray[np.float32]:
    """Input of an encoder, checked and widened exactly to float32.

    Rule: num.input.widen, num.input.finite, page.shape.exact

    Raises
    ------
    ShapeError
        Not (N, P, D), or not float32/float16.
    RangeError
        A NaN or an infinity; the message names page and token.
    """
    if not isinstance(x, np.ndarray) or x.dtype not in (np.float32, np.float16):
        kind = getattr(x, "dtype", type(x).__name__)
        raise ShapeError("num.input.widen", f"vectors are float32 or float16, not {kind}")
    if x.ndim != 3 or x.shape[1:] != (layout.tokens, layout.head_dim):
        raise ShapeError(
            "page.shape.exact",
            f"want (N, {layout.tokens}, {layout.head_dim}) for {layout}, got {x.shape}",
        )
    wide = x.astype(np.float32, copy=False)
    finite = np.isfinite(wide)
    if not finite.all():
        page, token, _ = (int(i) for i in np.argwhere(~finite)[0])
        raise RangeError("num.input.finite", f"NaN or infinity in page {page}, token {token}")
    return wide


def as_pages(pages: NDArray[np.uint8] | bytes, layout: PageLayout) -> NDArray[np.uint8]:
    """Input of a decoder as a (N, nbytes) uint8 array.

    Rule: page.length.exact

    Raises
    ------
    Malformed
        The bytes are not a whole number of page bodies.
    """
    if isinstance(pages, (bytes, bytearray, memoryview)):
        flat = np.frombuffer(pages, dtype=np.uint8)
        if flat.size % layout.nbytes:
            raise Malformed(
                "page.length.exact",
                f"{flat.size} bytes are not a whole number of pages of {layout.nbytes} ({layout})",
            )
        return flat.reshape(-1, layout.nbytes)
    if not isinstance(pages, np.ndarray) or pages.dtype != np.uint8:
        raise Malformed("page.length.exact", "pages are bytes or a uint8 array")
    if pages.ndim != 2 or pages.shape[1] != layout.nbytes:
        raise Malformed(
            "page.length.exact", f"want (N, {layout.nbytes}) for {layout}, got {pages.shape}"
        )
    return pages


def check_attention(
    q: Any,
    bias: Any,
    k_pages: Any,
    v_pages: Any,
    layouts: tuple[PageLayout, PageLayout],
    paged: Paged,
) -> None:
    """Refuse operands of attention that do not fit each other; only shapes are looked at.

    Whether slots lie inside the pools is for those to check who can do so without waiting.

    Rule: attend.operand.fits

    Raises
    ------
    ShapeError
    """
    if q.ndim != 5 or q.shape[-1] != layouts[0].head_dim or q.shape[3] % paged.queries:
        raise ShapeError(
            "attend.operand.fits",
            f"queries (B, H, F, M, {layouts[0].head_dim}), M a multiple of {paged.queries}, "
            f"got {tuple(q.shape)}",
        )
    rows, heads, frames, m, _ = q.shape
    pages = paged.slots.shape[-1]
    wanted = {
        "slots": (paged.slots, (rows, heads, pages)),
        "first": (paged.first, (rows, pages)),
        "length": (paged.length, (rows, pages)),
        "since": (paged.since, (rows, pages)),
        "frame": (paged.frame, (rows, pages)),
        "origin": (paged.origin, (rows,)),
        "bias": (bias, (rows, heads, frames, m)),
        "k_pages": (k_pages, (len(k_pages), layouts[0].nbytes)),
        "v_pages": (v_pages, (len(k_pages), layouts[1].nbytes)),
    }
    for name, (given, shape) in wanted.items():
        if given is not None and tuple(given.shape) != shape:
            raise ShapeError(
                "attend.operand.fits", f"{name} is {shape} here, got {tuple(given.shape)}"
            )
