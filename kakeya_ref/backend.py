"""The reference behind the public backend door."""

from __future__ import annotations

from types import ModuleType
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from kakeya_ref import attention
from kakeya_ref.bits import read_page, write_page
from kakeya_ref.codecs import d4, e8, fp8, int, query, raw, scalar, skeleton, trellis, turbo
from kakeya_ref.contract import as_pages, as_vectors
from kakeya_ref.errors import UsageError
from kakeya_ref.registry import table_kind
from kakeya_ref.skeletons import Skeleton, as_skeleton
from kakeya_ref.types import Basis, PageLayout, Support

CODECS: dict[str, ModuleType] = {
    "raw": raw,
    "fp8": fp8,
    "int": int,
    "scalar": scalar,
    "d4": d4,
    "e8": e8,
    "trellis": trellis,
    "query": query,
    "skeleton": skeleton,
    "turbo": turbo,
}


class ReferenceBackend:
    """Readable, slow, and by definition right wherever spec and vectors are silent."""

    name = "ref"
    profile = "exact"

    def supports(self, layout: PageLayout) -> Support:
        """The reference reads and writes every registered codec, and attends where it may."""
        # Pages with a table each have no basis that a query could be taken to.
        own = table_kind(layout.codec) == "skeleton"
        return Support(True, frozenset({"decode", "encode"} | (set() if own else {"attend"})))

    def encode(
        self,
        x: NDArray[Any],
        layout: PageLayout,
        *,
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.uint8]:
        """Page bodies of vectors; see :meth:`kakeya_ref.contract.Backend.encode`.

        Rule: rate.bytes.true, encode.batch.independent, encode.input.untouched
        """
        wide = as_vectors(x, layout)
        if len(wide) == 0:
            return np.zeros((0, layout.nbytes), dtype=np.uint8)
        known = _tables(tables, layout, wide)
        fields = CODECS[layout.codec.id].encode(wide, layout, *known)
        return write_page(layout, fields, len(wide))

    def decode(
        self,
        pages: NDArray[np.uint8] | bytes,
        layout: PageLayout,
        *,
        basis: Basis = "vectors",
        positions: NDArray[np.int64] | None = None,
        tables: Any = None,
    ) -> NDArray[np.float32]:
        """Vectors or coefficients of page bodies; see :meth:`kakeya_ref.contract.Backend.decode`.

        Rule: decode.bytes.only, decode.basis.known
        """
        if basis not in get_args(Basis):
            raise UsageError("decode.basis.known", f"want one of {get_args(Basis)}, got {basis!r}")
        body = as_pages(pages, layout)
        if len(body) == 0:
            return np.zeros((0, layout.tokens, layout.head_dim), dtype=np.float32)
        codec, known = CODECS[layout.codec.id], _tables(tables, layout, body)
        y: NDArray[np.float32] = codec.coefficients(read_page(layout, body), layout, *known)
        if basis == "vectors":
            y = codec.vectors(y, layout, *known)
        return y

    def attend(
        self,
        q: NDArray[Any],
        k_pages: NDArray[np.uint8],
        v_pages: NDArray[np.uint8],
        *given: Any,
        **options: Any,
    ) -> attention.Partial:
        """A partial of attention; see :func:`kakeya_ref.attention.attend`."""
        return attention.attend(self.decode, q, k_pages, v_pages, *given, **options)


def _tables(tables: Any, layout: PageLayout, pages: NDArray[Any]) -> tuple[Skeleton, ...]:
    """The tables that the codec takes, checked; none for codecs that need none."""
    return (as_skeleton(tables, layout, len(pages)),) if table_kind(layout.codec) else ()
