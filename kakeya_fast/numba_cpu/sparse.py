"""The few largest numbers: of every lane, or of a whole page."""

from __future__ import annotations

import numpy as np

from kakeya_fast.numba_cpu.half import MAGNITUDE
from kakeya_fast.numba_cpu.jit import serial


@serial
def largest_of_lanes(x, rank, kept, size, top, at, places):
    """Places of the ``kept`` largest magnitudes of every lane, ascending; ties to the lowest.

    Rule: skeleton.place.largest

    Parameters
    ----------
    x : (at least rank, V) float32
    size : as x, float32
        Scratch.
    top : (V,) float32
        Scratch.
    at : (V,) int32
        Scratch.
    places : (V, kept + 1) int64
        Written; the last column means nothing.
    """
    lanes = x.shape[1]
    for i in range(rank):
        for v in range(lanes):
            # Below every magnitude: taken.
            size[i, v] = np.float32(-1) if kept == rank else abs(x[i, v])
    for _ in range(kept if kept < rank else 0):
        for v in range(lanes):
            top[v], at[v] = size[0, v], 0
        for i in range(1, rank):
            for v in range(lanes):
                above = size[i, v] > top[v]
                top[v] = size[i, v] if above else top[v]
                at[v] = np.int32(i) if above else at[v]
        for v in range(lanes):
            size[at[v], v] = np.float32(-1)
    for v in range(lanes):
        n = 0
        for i in range(rank):
            places[v, n] = i
            n += 1 if size[i, v] < np.float32(0) else 0


@serial
def largest_of_page(words, histogram, places):
    """Places of the largest magnitudes of a page, ascending; ties go to the lowest place.

    Rule: turbo.out.largest

    Parameters
    ----------
    words : (n,) uint32
        Bits of finite float32 numbers; the order of magnitudes is that of their bits.
    histogram : (2048,) int64
        Scratch.
    places : (out,) int64
        Written.
    """
    smallest, left = np.uint32(0), len(places)
    # The bits of the smallest magnitude to take, from the top: 11, 11 and 9 of them.
    for shift, bits in ((20, 11), (9, 11), (0, 9)):
        histogram[:] = 0
        mask = np.uint32((1 << bits) - 1)
        for i in range(len(words)):
            size = np.uint32(words[i] & MAGNITUDE)
            if size >> np.uint32(shift + bits) == smallest:
                histogram[np.uint32(size >> np.uint32(shift)) & mask] += 1
        digit = np.int64(mask)
        while histogram[digit] < left:
            left -= histogram[digit]
            digit -= 1
        smallest = np.uint32((smallest << np.uint32(bits)) | np.uint32(digit))
    n = 0
    for i in range(len(words)):
        size = np.uint32(words[i] & MAGNITUDE)
        if size > smallest or (size == smallest and left > 0):
            left -= 1 if size == smallest else 0
            places[n] = i
            n += 1
