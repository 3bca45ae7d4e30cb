"""A small backend that conforms: ``raw`` in single and half precision. Copy it and go on.

``python -m kakeya_conformance kakeya_conformance.examples.minimal_backend:Backend``
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.contract import as_pages, as_vectors
from kakeya_ref.errors import Malformed, RangeError, Unsupported, UsageError
from kakeya_ref.types import PageLayout, Support

STORED = {"f32": "<f4", "f16": "<f2"}


class Backend:
    """Numbers as they are; everything else is declined with a reason."""

    name = "minimal"
    profile = "exact"
    version = "1"

    def supports(self, layout: PageLayout) -> Support:
        """Announce what works; a reason for the rest."""
        if layout.codec.id == "raw" and layout.codec["dtype"] in STORED:
            return Support(True, features=frozenset({"decode", "encode"}))
        return Support(False, reason=f"{layout.codec} is not written yet")

    def encode(self, x: NDArray[Any], layout: PageLayout, **ignored: Any) -> NDArray[np.uint8]:
        """(N, P, D) float32 or float16 -> (N, nbytes) uint8."""
        kind = self._stored(layout)
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(as_vectors(x, layout)).astype(kind)
        if not np.isfinite(values).all():
            raise RangeError("raw.range", f"a magnitude does not fit {kind}")
        return np.frombuffer(values.tobytes(), np.uint8).reshape(len(x), layout.nbytes).copy()

    def decode(
        self,
        pages: NDArray[np.uint8] | bytes,
        layout: PageLayout,
        *,
        basis: str = "vectors",
        **ignored: Any,
    ) -> NDArray[np.float32]:
        """(N, nbytes) uint8 or bytes -> (N, P, D) float32."""
        if basis not in ("vectors", "coefficients"):
            raise UsageError("decode.basis.known", f"no basis {basis!r}")
        kind = self._stored(layout)
        body = np.ascontiguousarray(as_pages(pages, layout))
        values = np.frombuffer(body.tobytes(), kind).astype(np.float32)
        if not np.isfinite(values).all():
            raise Malformed("raw.code.finite", "a stored value is NaN or infinite")
        return values.reshape(len(body), layout.tokens, layout.head_dim)

    def _stored(self, layout: PageLayout) -> str:
        answer = self.supports(layout)
        if not answer.ok:
            raise Unsupported("backend.codec.offered", answer.reason)
        return STORED[str(layout.codec["dtype"])]
