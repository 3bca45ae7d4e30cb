"""Kernels of codec ``raw``: the numbers themselves, in one of three types."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from kakeya_fast.numba_cpu.half import BF16, F16, F32, INFINITE, MAGNITUDE, narrow, widen
from kakeya_fast.numba_cpu.jit import Kernel
from kakeya_fast.numba_cpu.lanes import CHECK_ONLY, NONE, copy
from kakeya_ref.types import PageLayout


class Plan(NamedTuple):
    """Constants of one layout."""

    stored: int  # type of the stored numbers
    nbytes: int


@lru_cache(maxsize=64)
def plan(layout: PageLayout) -> Plan:
    """Constants of a layout."""
    return Plan({"f32": F32, "f16": F16, "bf16": BF16}[layout.codec["dtype"]], layout.nbytes)


def _encode_pages(x, out, p, kind, start, stop):
    """Rule: raw.range, num.input.finite, num.round.half-even."""
    _, tokens, d = x.shape
    page = np.zeros(p.nbytes, np.uint8)
    words, halves = page.view(np.uint32), page.view(np.uint16)
    broken, refused = NONE, NONE
    for n in range(start, stop):
        for t in range(tokens):
            largest, stored = np.uint32(0), np.uint32(0)
            if p.stored == 0:
                row = words[t * d : (t + 1) * d]
                for i in range(d):
                    u = widen(np.uint32(x[n, t, i]), kind)
                    largest = max(largest, np.uint32(u & MAGNITUDE))
                    row[i] = u
            else:
                short = halves[t * d : (t + 1) * d]
                for i in range(d):
                    u = widen(np.uint32(x[n, t, i]), kind)
                    largest = max(largest, np.uint32(u & MAGNITUDE))
                    short[i] = np.uint16(narrow(u, p.stored))
                    again = widen(np.uint32(short[i]), p.stored)
                    stored = max(stored, np.uint32(again & MAGNITUDE))
            if largest >= INFINITE:
                broken = min(broken, n * tokens + t)
            elif stored >= INFINITE:
                refused = min(refused, n * tokens + t)
        copy(page, out[n])
    return broken, refused


def _decode_pages(pages, out, p, kind, mode, start, stop):
    """Rule: raw.code.finite."""
    _, tokens, d = out.shape
    page = np.empty(p.nbytes, np.uint8)
    halves = page.view(np.uint16)
    words = np.empty(tokens * d, np.uint32) if p.stored != 0 else page.view(np.uint32)
    for n in range(start, stop):
        copy(pages[n], page)
        if p.stored != 0:
            for i in range(tokens * d):
                words[i] = widen(np.uint32(halves[i]), p.stored)
        largest = np.uint32(0)
        for i in range(tokens * d):
            largest = max(largest, np.uint32(words[i] & MAGNITUDE))
        if largest >= INFINITE:
            return np.int64(n)
        if mode == CHECK_ONLY:
            continue
        for t in range(tokens):
            row = words[t * d : (t + 1) * d]
            for i in range(d):
                out[n, t, i] = narrow(row[i], kind)
    return NONE


encode = Kernel(_encode_pages)
decode = Kernel(_decode_pages)
