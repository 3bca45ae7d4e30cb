"""What stands in page bytes: every plane read back, codes and gains summed up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.contract import as_pages
from kakeya_ref.errors import Malformed
from kakeya_ref.types import PageLayout, Plane


def describe(data: bytes, layout: PageLayout) -> dict[str, Any]:
    """Summary of page bodies: gains, codes and decoded vectors.

    Rule: page.length.exact, page.plane.split, page.plane.strided

    Raises
    ------
    Malformed
        Not a whole number of bodies, or bytes that no encoder can have written.
    """
    from kakeya_fast import get_backend

    pages = as_pages(data, layout)
    if not len(pages):
        raise Malformed("page.length.exact", f"no bytes; a page of {layout} has {layout.nbytes}")
    vectors = get_backend().decode(pages, layout)
    contents = [_entry(name, *_readable(name, f)) for name, f in fields(pages, layout).items()]
    rms = np.sqrt((vectors.astype(np.float64) ** 2).mean(-1))
    contents.append(_entry("rms of decoded vectors", rms, ""))
    return {
        "codec": str(layout.codec),
        "head_dim": layout.head_dim,
        "tokens": layout.tokens,
        "pages": len(pages),
        "nbytes": pages.size,
        "contents": contents,
        "first_vector": vectors[0, 0].tolist(),
    }


def fields(pages: NDArray[np.uint8], layout: PageLayout) -> dict[str, NDArray[Any]]:
    """Every field of every page by name (``scales``, ``codes``, …), (N, rows, row) unsigned.

    Rule: page.plane.split, page.plane.strided
    """
    out: dict[str, NDArray[Any]] = {}
    for plane in layout.planes:
        name = plane.name.rstrip("0123456789")
        part = _unpack(pages[:, plane.offset : plane.offset + plane.nbytes], plane)
        shifted = part.astype(np.uint64) << np.uint64(plane.shift)
        out[name] = out[name] | shifted if name in out else shifted
    return out


def _unpack(raw: NDArray[np.uint8], plane: Plane) -> NDArray[Any]:
    n = len(raw)
    if plane.width >= 8:
        dtype = np.dtype(f"<u{plane.width // 8}")
        return np.ascontiguousarray(raw).view(dtype).reshape(n, plane.rows, plane.row)
    rows = raw.reshape(n, plane.rows, -1)
    mask = (1 << plane.width) - 1
    return np.concatenate([rows >> s & mask for s in range(0, 8, plane.width)], axis=-1)


def _readable(name: str, codes: NDArray[Any]) -> tuple[NDArray[Any], str]:
    if name == "scales":
        gains = np.where(codes > 0, 2.0 ** ((codes.astype(np.float64) - 128) / 8), 0.0)
        return gains, f"gains; bytes {codes.min()}..{codes.max()}, {(codes == 0).sum()} zero"
    if name in ("lo", "step"):
        return codes.astype("<u2").view(np.float16).astype(np.float64), "fp16"
    return codes, f"entropy {_entropy(codes):.3f} bits"


def _entropy(codes: NDArray[Any]) -> float:
    _, counts = np.unique(codes, return_counts=True)
    p = counts / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0


def _entry(what: str, values: NDArray[Any], note: str) -> dict[str, Any]:
    wide = values.astype(np.float64)
    return {
        "what": what,
        "count": values.size,
        "least": float(wide.min()),
        "most": float(wide.max()),
        "mean": float(wide.mean()),
        "note": note,
    }
