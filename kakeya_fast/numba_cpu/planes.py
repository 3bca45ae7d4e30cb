"""Planes of packed bytes: fields of any width, strided inside a row.

A plane is a row of the ``(planes, 3)`` int64 table made by :func:`plane_table`.
"""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.jit import serial
from kakeya_ref.types import PageLayout


def plane_table(layout: PageLayout, name: str) -> np.ndarray:
    """Offset, width and shift of the planes of a field.

    Rule: page.plane.split, page.plane.aligned

    Returns
    -------
    (planes, 3) int64
        No planes for a field that needs no bits; it packs to nothing and unpacks to zeros.
    """
    rows = [
        (p.offset, p.width, p.shift) for p in layout.planes if p.name.rstrip("0123456789") == name
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


@serial
def pack_lanes(codes, planes, page, p0, merged):
    """Write the codes of V tokens from ``p0``, one row of ``D`` fields per token.

    Rule: page.plane.strided, page.plane.split

    Parameters
    ----------
    codes : (D, V) uint8
    page : (nbytes,) uint8
    merged : (D, V) uint8
        Scratch.
    """
    d, lanes = codes.shape
    for k in range(len(planes)):
        offset, width, shift = planes[k, 0], planes[k, 1], np.uint8(planes[k, 2])
        row = d * width // 8
        mask = np.uint8((1 << width) - 1)
        for m in range(8 // width):
            up = np.uint8(m * width)
            for j in range(row):
                for v in range(lanes):
                    part = ((codes[m * row + j, v] >> shift) & mask) << up
                    merged[j, v] = part if m == 0 else merged[j, v] | part
        for v in range(lanes):
            begin = offset + (p0 + v) * row
            target = page[begin : begin + row]
            for j in range(row):
                target[j] = merged[j, v]


@serial
def unpack_lanes(page, planes, p0, codes, merged):
    """Inverse of :func:`pack_lanes`."""
    d, lanes = codes.shape
    for k in range(len(planes)):
        offset, width, shift = planes[k, 0], planes[k, 1], np.uint8(planes[k, 2])
        row = d * width // 8
        mask = np.uint8((1 << width) - 1)
        for v in range(lanes):
            begin = offset + (p0 + v) * row
            source = page[begin : begin + row]
            for j in range(row):
                merged[j, v] = source[j]
        for m in range(8 // width):
            down = np.uint8(m * width)
            for j in range(row):
                for v in range(lanes):
                    part = ((merged[j, v] >> down) & mask) << shift
                    codes[m * row + j, v] = part if k == 0 else codes[m * row + j, v] | part


@serial
def pack_row(fields, planes, page):
    """Write one row of ``R`` wide fields.

    Rule: page.plane.strided, page.plane.split, page.byte.little-endian

    Parameters
    ----------
    fields : (R,) int64
    page : (nbytes,) uint8
    """
    count = len(fields)
    for k in range(len(planes)):
        offset, width, shift = planes[k, 0], planes[k, 1], planes[k, 2]
        target = page[offset : offset + count * width // 8]
        if width >= 8:
            size = width // 8
            for b in range(size):
                for j in range(count):
                    target[j * size + b] = np.uint8((fields[j] >> (shift + 8 * b)) & 255)
        else:
            row = count * width // 8
            mask = (1 << width) - 1
            for m in range(8 // width):
                part = fields[m * row : (m + 1) * row]
                for j in range(row):
                    bits = np.uint8(((part[j] >> shift) & mask) << (m * width))
                    target[j] = bits if m == 0 else target[j] | bits


@serial
def unpack_row(page, planes, fields):
    """Inverse of :func:`pack_row`."""
    count = len(fields)
    fields[:] = 0
    for k in range(len(planes)):
        offset, width, shift = planes[k, 0], planes[k, 1], planes[k, 2]
        source = page[offset : offset + count * width // 8]
        if width >= 8:
            size = width // 8
            for b in range(size):
                for j in range(count):
                    fields[j] |= np.int64(source[j * size + b]) << (shift + 8 * b)
        else:
            row = count * width // 8
            mask = (1 << width) - 1
            for m in range(8 // width):
                part = fields[m * row : (m + 1) * row]
                for j in range(row):
                    part[j] |= ((np.int64(source[j]) >> (m * width)) & mask) << shift
