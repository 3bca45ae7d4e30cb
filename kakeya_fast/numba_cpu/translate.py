"""Codes of a page become whole numbers, by vector loops or by plain ones with the same results."""

from __future__ import annotations

from functools import cache

import numpy as np

from kakeya_fast.numba_cpu import codes
from kakeya_fast.numba_cpu.codes import ROW, WALKED, WIDEST
from kakeya_fast.numba_cpu.jit import lent
from kakeya_fast.numba_cpu.simd import AVX2, in_fours, place
from kakeya_ref.tables import trellis_labels

TILE = 32  # tokens that are done at once, at most
_bits, _apart, _paired = codes.of_bits, codes.of_planes, codes.of_planes_paired


def tables(numbers: np.ndarray) -> np.ndarray:
    """Tables (n / 16, 64) uint8 of int16 numbers, a multiple of sixteen."""
    bytes_of = numbers.astype(np.int16).view(np.uint8).reshape(-1, 16, 2)
    return np.concatenate([bytes_of[..., k] for k in (0, 0, 1, 1)], axis=1)


@cache
def ways() -> np.ndarray:
    """What :func:`translate` needs besides tables: (8, 64) uint8.

    Row 0: what the newest four low bits of a window add to a label, and the four before, the newest
    bit highest. Row ``n``: which two bytes hold each of eight codes of ``n`` bits, the second one
    first, and what lifts the code to the top of both.

    Rule: trellis.label.linear, query.row.bits
    """
    out = np.zeros((WIDEST + 1, ROW), np.uint8)
    labels = np.asarray(trellis_labels(), np.uint8)
    newest = [int(f"{i:04b}"[::-1], 2) for i in range(16)]
    out[0] = np.concatenate([labels[[i << s for i in newest]] for s in (0, 0, 4, 4)])
    for n in range(1, WIDEST + 1):
        at = n * np.arange(8)
        two = np.stack([at // 8 + 1, at // 8], 1).astype(np.uint8).ravel()
        lift = (1 << at % 8).astype(np.uint16).view(np.uint8)
        out[n] = np.concatenate([two, two, lift, lift])
    return out


@lent
def of_bits(x, p, width, state, at, tokens, out):
    """Numbers of the codes of a tile that are rows of bits, ``width`` of them in every eight.

    Parameters
    ----------
    x : (words and 16 bytes more,) uint64
        A page.
    p : kakeya_fast.numba_cpu.walked.Plan
    state : (:func:`room`,) uint64
    at : int
        Byte where the codes of the first token begin.
    tokens : int
        A multiple of 4.
    out : int16
        Written, in the places of :func:`kakeya_fast.numba_cpu.simd.place`.
    """
    state[: 3 * tokens] = np.uint64(0)
    for g in range(len(width)):
        n = width[g]
        if n == 0:
            break
        first = p.start[n]
        if AVX2:
            _bits(x, p.ways, p.tables, state, out, g, at, p.row, n, first, tokens, p.size)
        else:
            _plain_bits(x, p, state, g, at, n, tokens, out)
        at += n


@lent
def of_planes(x, p, n, state, t0, tokens, paired, out):
    """Numbers of the codes of a tile, from token ``t0`` on, of ``n`` bits in the planes of a page.

    As :func:`of_bits`; or, paired, placed by :func:`kakeya_fast.numba_cpu.simd.in_fours`.
    """
    first = p.start[n]
    if not AVX2:
        _plain_planes(x, p, n, t0, tokens, paired, out)
    elif paired:
        _paired(x, p.ways, p.tables, state, out, p.fields, t0, n, first, tokens, p.size)
    else:
        _apart(x, p.ways, p.tables, state, out, p.fields, t0, n, first, tokens, p.size)


@lent
def room(p):
    """Words that a tile needs beside its numbers."""
    words = np.int64(0)
    for k in range(len(p.fields)):
        words += p.fields[k, 0]
    return TILE * max(words, 3)


@lent
def _plain(p, code, n, window, at, out):
    """Write the number of one code; the low bits of the last eight codes, the newest highest."""
    if n <= WALKED:
        window = window >> 1 | (code & 1) << 7
        label = p.ways[0, window >> 4] ^ p.ways[0, 32 + (window & 15)]
        code = code >> 1 << 4 | np.int64(label)
    row, column = p.start[n] + (code >> 4), code & 15
    low, high = p.tables[row, column], p.tables[row, 32 + column]
    out[at] = np.int16(np.uint16(low) | np.uint16(np.uint16(high) << np.uint16(8)))
    return window


@lent
def _plain_bits(x, p, state, g, at, n, tokens, out):
    octets = x.view(np.uint8)
    for t in range(tokens):
        window = np.int64(state[t])
        for i in range(8):
            begin, skip = at + t * p.row + n * i // 8, n * i % 8
            two = np.int64(octets[begin]) << 8 | np.int64(octets[begin + 1])
            code = two >> (16 - n - skip) & ((1 << n) - 1)
            window = _plain(p, code, n, window, place(t, 8 * g + i, p.size), out)
        state[t] = np.uint64(window)


@lent
def _plain_planes(x, p, n, t0, tokens, paired, out):
    groups = p.size // 8
    for t in range(tokens):
        window = np.int64(0)
        for i in range(p.size):
            g, code = i // 8, np.int64(0)
            for k in range(len(p.fields)):
                word = x[p.fields[k, 3 + g] + (t0 + t) * p.fields[k, 0]]
                byte = word >> np.uint64(p.fields[k, 3 + groups + g] + i % 8 * 8)
                code |= (np.int64(byte) & p.fields[k, 1] & 255) << p.fields[k, 2]
            to = place(t, i, p.size)
            if paired:
                to = in_fours(t, i, p.size)
            window = _plain(p, code, n, window, to, out)
