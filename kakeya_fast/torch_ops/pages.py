"""Fields of any width as planes of bytes, and page bodies as their planes."""

from __future__ import annotations

import torch
from torch import Tensor

from kakeya_ref.types import PageLayout, Plane


def field_name(plane: Plane) -> str:
    """Name of the field a plane carries bits of: ``codes2`` and ``codes1`` make ``codes``."""
    return plane.name.rstrip("0123456789")


def write_page(layout: PageLayout, fields: dict[str, Tensor]) -> Tensor:
    """Page bodies of whole fields, padding zero.

    Rule: page.plane.aligned, page.padding.zero, page.header.none

    Parameters
    ----------
    fields : name -> (N, rows * row) integers, or floats as wide as their plane

    Returns
    -------
    (N, layout.nbytes) uint8
    """
    parts: list[Tensor] = []
    end = 0
    for plane in layout.planes:
        body = pack(fields[field_name(plane)], plane)
        if plane.offset > end:
            parts.append(body.new_zeros(len(body), plane.offset - end))
        parts.append(body)
        end = plane.offset + plane.nbytes
    if layout.nbytes > end:
        parts.append(parts[0].new_zeros(len(parts[0]), layout.nbytes - end))
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]


def pack(fields: Tensor, plane: Plane) -> Tensor:
    """Bytes of one plane.

    Rule: page.plane.strided, page.plane.split, page.byte.little-endian

    Returns
    -------
    (N, plane.nbytes) uint8
    """
    n, w = len(fields), plane.width
    if w >= 8:
        size = w // 8
        if fields.element_size() > size:
            # Narrowing an integer keeps its low bits, and the host is little endian.
            wide = (fields >> plane.shift).contiguous().view(torch.uint8)
            return wide.reshape(n, -1, fields.element_size())[:, :, :size].reshape(n, -1)
        return fields.contiguous().view(torch.uint8).reshape(n, -1)
    part = ((fields >> plane.shift) & ((1 << w) - 1)).to(torch.uint8)
    part = part.reshape(n, plane.rows, 8 // w, plane.row * w // 8)
    byte = part[:, :, 0]
    for m in range(1, 8 // w):
        byte = byte | (part[:, :, m] << (m * w))
    return byte.reshape(n, -1)


def read_field(layout: PageLayout, pages: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """One field of page bodies; padding is not looked at.

    Rule: page.plane.strided, page.plane.split, page.padding.zero

    Parameters
    ----------
    pages : (N, layout.nbytes) uint8
    dtype : wide enough for every bit of the field, or the float that fills it

    Returns
    -------
    (N, rows, row) dtype
    """
    whole: Tensor | None = None
    for plane in layout.planes:
        if field_name(plane) == name:
            part = unpack(pages[:, plane.offset : plane.offset + plane.nbytes], plane, dtype)
            whole = part if whole is None else whole | part
    if whole is None:
        raise KeyError(f"{layout} has no field {name}")
    return whole


def unpack(data: Tensor, plane: Plane, dtype: torch.dtype) -> Tensor:
    """Inverse of :func:`pack`: the plane's bits at their place in the field.

    Rule: page.plane.strided, page.plane.split, page.byte.little-endian

    Returns
    -------
    (N, plane.rows, plane.row) dtype
    """
    n, w = len(data), plane.width
    shape = (n, plane.rows, plane.row)
    if dtype.is_floating_point:
        return data.contiguous().view(dtype).reshape(shape)
    if w >= 8:
        size = w // 8
        cells = data.reshape(n, plane.rows * plane.row, size)
        part = cells[:, :, 0].to(dtype)
        for i in range(1, size):
            part = part | (cells[:, :, i].to(dtype) << (8 * i))
    else:
        rows = data.reshape(n, plane.rows, 1, plane.row * w // 8)
        mask = (1 << w) - 1
        part = torch.cat([(rows >> (m * w)) & mask for m in range(8 // w)], dim=2).to(dtype)
    part = part.reshape(shape)
    return part << plane.shift if plane.shift else part
