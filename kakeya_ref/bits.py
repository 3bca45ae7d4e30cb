"""Fields of any width as planes of bytes, and a page body as its planes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.types import PageLayout, Plane

U8 = NDArray[np.uint8]
U64 = NDArray[np.uint64]


def pack_plane(fields: U64, plane: Plane) -> U8:
    """Bytes of one plane of every page.

    Rule: page.plane.strided, page.plane.split, page.byte.little-endian

    Parameters
    ----------
    fields : (N, rows * row) uint64
        Whole fields; the plane takes its own bits.

    Returns
    -------
    (N, plane.nbytes) uint8

    Notes
    -----
    Level: bits. Below a byte, byte ``j`` of a row holds fields ``j``, ``j + S``, ``j + 2 S``, …
    from its lowest bits up, ``S`` being the bytes of a row: unpacking then needs only whole-row
    loads, shifts and masks.

    Examples
    --------
    >>> plane = Plane("codes4", 0, 4, 4, 1, 8)
    >>> pack_plane(np.arange(8, dtype=np.uint64)[None], plane).tobytes().hex()
    '40516273'
    """
    n, w = len(fields), plane.width
    part = (fields >> np.uint64(plane.shift)) & np.uint64((1 << w) - 1)
    if w >= 8:
        return np.ascontiguousarray(part.astype(f"<u{w // 8}")).view(np.uint8).reshape(n, -1)
    per_byte = 8 // w
    rows = part.reshape(n, plane.rows, per_byte, plane.row // per_byte)
    shifts = (np.arange(per_byte) * w).astype(np.uint64)[:, None]
    packed: U8 = (rows << shifts).sum(axis=2).astype(np.uint8).reshape(n, -1)
    return packed


def unpack_plane(data: U8, plane: Plane) -> U64:
    """Inverse of :func:`pack_plane`: the plane's bits, shifted to their place in the field.

    Rule: page.plane.strided, page.plane.split, page.byte.little-endian

    Returns
    -------
    (N, rows * row) uint64
    """
    n, w = len(data), plane.width
    if w >= 8:
        part = np.ascontiguousarray(data).view(f"<u{w // 8}").astype(np.uint64)
    else:
        per_byte = 8 // w
        rows = data.reshape(n, plane.rows, 1, plane.row // per_byte).astype(np.uint64)
        shifts = (np.arange(per_byte) * w).astype(np.uint64)[:, None]
        part = ((rows >> shifts) & np.uint64((1 << w) - 1)).reshape(n, -1)
    return part.reshape(n, -1) << np.uint64(plane.shift)


def write_page(layout: PageLayout, fields: dict[str, U64], n: int) -> U8:
    """Page bodies from fields by name (``scales``, ``codes``, …); padding is zero.

    Rule: page.plane.aligned, page.padding.zero, page.header.none
    """
    body = np.zeros((n, layout.nbytes), dtype=np.uint8)
    for plane in layout.planes:
        values = fields[field_name(plane)].reshape(n, plane.rows * plane.row)
        body[:, plane.offset : plane.offset + plane.nbytes] = pack_plane(values, plane)
    return body


def read_page(layout: PageLayout, body: U8) -> dict[str, U64]:
    """Fields of page bodies by name; padding is not looked at.

    Rule: page.plane.aligned, page.padding.zero
    """
    fields: dict[str, U64] = {}
    for plane in layout.planes:
        part = unpack_plane(body[:, plane.offset : plane.offset + plane.nbytes], plane)
        name = field_name(plane)
        fields[name] = fields[name] | part if name in fields else part
    return fields


def field_name(plane: Plane) -> str:
    """Name of the field a plane is part of: ``codes2`` is part of ``codes``."""
    return plane.name.rstrip("0123456789")
