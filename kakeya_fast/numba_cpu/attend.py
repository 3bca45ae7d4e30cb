"""Attention over packed pages on the CPU: pages split over threads, partials merged."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray

from kakeya_fast.numba_cpu import narrow, walked, wide
from kakeya_fast.numba_cpu.ahead import fetch
from kakeya_fast.numba_cpu.jit import Kernel
from kakeya_fast.numba_cpu.lanes import NONE
from kakeya_fast.numba_cpu.softmax import weigh
from kakeya_fast.numba_cpu.threads import share
from kakeya_ref.skeletons import Skeleton
from kakeya_ref.types import Paged, PageLayout

F32 = NDArray[np.float32]
# Pages worth a piece of their own.
GRAIN = 16
# Numbers below which waking a second thread costs more than it saves.
SMALL = 1 << 17

# What the body below calls, bound anew for every pair of sides; see :func:`_kernel`.
k_scratch, k_load, k_read, k_products = narrow.scratch, narrow.load, narrow.read, narrow.products
v_scratch, v_read, v_gather, v_finish = narrow.scratch, narrow.read, narrow.gather, narrow.finish


class Numbers(NamedTuple):
    """What a call of the kernel is told besides arrays."""

    tokens: int
    k_size: int
    v_size: int
    queries: int
    pieces: int
    scaling: np.float32
    softcap: np.float32  # 0 for none
    window: int  # 0 for none


def _attend(
    q, out, bias, k_pages, v_pages, kp, vp, slots, first, length, since, frame, origin, n,
    worker, workers,
):  # fmt: skip
    """Partials of one worker's pieces: out (pieces, B, H, M, E + 1), log-sum-exps last.

    Rule: attend.visible.page, attend.visible.window, attend.row.independent
    """
    rows, heads, _, m, _ = q.shape
    bad_k, bad_v, bad_slot, bad_frame = NONE, NONE, NONE, NONE
    ks = k_scratch(kp, m, n.tokens, n.k_size)
    vs = v_scratch(vp, m, n.tokens, n.v_size)
    x = np.empty((m, n.tokens), np.float32)
    acc = np.empty((m, n.v_size), np.float32)
    top, total = np.empty(m, np.float32), np.empty(m, np.float64)
    low, high = np.empty(n.queries, np.int64), np.empty(n.queries, np.int64)
    for item in range(worker, rows * heads * n.pieces, workers):
        piece, pair = item // (rows * heads), item % (rows * heads)
        b, h = pair // heads, pair % heads
        acc[:] = 0
        top[:] = -np.inf
        total[:] = 0
        loaded = np.int64(-1)
        pages = slots.shape[2]
        end = (piece + 1) * pages // n.pieces
        for page in range(piece * pages // n.pieces, end):
            slot, f = np.int64(slots[b, h, page]), np.int64(frame[b, page])
            if slot >= len(k_pages):
                bad_slot = min(bad_slot, slot)
                continue
            if f < 0 or f >= q.shape[2]:
                bad_frame = min(bad_frame, f)
                continue
            if page + 1 < end:
                following = np.int64(slots[b, h, page + 1])
                if 0 <= following < len(k_pages):
                    fetch(k_pages, following)
                    fetch(v_pages, following)
            start = np.int64(first[b, page])
            newest = np.int64(0)
            for i in range(n.queries):
                index = np.int64(origin[b]) + i
                high[i] = min(np.int64(length[b, page]), index - start + 1)
                high[i] = high[i] if index >= since[b, page] else 0
                low[i] = max(0, index - n.window + 1 - start) if n.window else 0
                newest = max(newest, high[i] - low[i])
            if slot < 0 or newest <= 0:
                continue
            if f != loaded:
                k_load(kp, ks, q[b, h, f], h)
                loaded = f
            if not k_read(kp, ks, k_pages[slot]):
                bad_k = min(bad_k, slot)
            k_products(kp, ks, k_pages[slot], x)
            weigh(x, low, high, n.scaling, bias[b, h, f], n.softcap, top, total, acc)
            if not v_read(vp, vs, v_pages[slot]):
                bad_v = min(bad_v, slot)
            v_gather(vp, vs, v_pages[slot], x, acc)
        for r in range(m):
            own = out[piece, b, h, r]
            if total[r] > 0:
                one = np.float32(1 / total[r])
                for i in range(n.v_size):
                    acc[r, i] *= one
                own[n.v_size] = top[r] + np.float32(np.log(total[r]))
            else:
                own[n.v_size] = -np.inf
            v_finish(vp, acc[r], own[: n.v_size])
    return bad_k, bad_v, bad_slot, bad_frame


def run(
    q: F32,
    bias: F32 | None,
    k_pages: NDArray[np.uint8],
    v_pages: NDArray[np.uint8],
    layouts: tuple[PageLayout, PageLayout],
    kernels: tuple[Any, Any],
    paged: Paged,
    scaling: float,
    softcap: float | None,
    window: int | None,
    other: tuple[F32, F32] | None = None,
    tables: Sequence[Skeleton] | None = None,
) -> tuple[F32, F32, tuple[int, ...]]:
    """Output, log-sum-exp, and the first slots of K and V that no encoder can have written.

    Also the first slot and frame that are not there. Any of these makes results of no use.

    Rule: attend.merge, attend.memory.bounded
    """
    rows, heads, _, m, _ = q.shape
    q = q if q.strides[-1] == q.itemsize else np.ascontiguousarray(q)
    size, pages = layouts[1].head_dim, paged.slots.shape[2]
    k, v = (_side(x, c, s) for x, c, s in zip(layouts, kernels, (False, True), strict=True))
    if tables is not None:
        k = k._replace(plan=walked.plan_of(layouts[0], tables))
    kernel = _kernel(k.name, v.name, k.module, v.module, k.read, v.read, kernels)
    allowed = numba.get_num_threads()
    pieces = _pieces(rows * heads, max(1, pages // GRAIN), allowed)
    workers = min(allowed, rows * heads * pieces)
    if rows * heads * pages * layouts[0].tokens * size < SMALL:
        pieces = workers = 1
    parts = np.empty((pieces + (other is not None), rows, heads, m, size + 1), np.float32)
    if other is not None:
        parts[-1, ..., :-1], parts[-1, ..., -1] = other
    numbers = Numbers(
        layouts[0].tokens, layouts[0].head_dim, size, paged.queries, pieces,
        np.float32(scaling), np.float32(softcap or 0), int(window or 0),
    )  # fmt: skip
    bias = np.zeros(q.shape[:4], np.float32) if bias is None else bias
    frame = np.zeros((rows, pages), np.int32) if paged.frame is None else paged.frame
    words = (paged.slots, paged.first, paged.length, paged.since, frame)
    table = (np.asarray(x, dtype=np.int32) for x in words)
    origin = np.asarray(paged.origin, dtype=np.int64)
    pools = k_pages.view(np.uint64), v_pages.view(np.uint64)
    given = (q, parts, bias, *pools, k.plan, v.plan, *table, origin, numbers)
    bad = share(workers, lambda worker: kernel(*given, worker, workers))
    return *_merge(parts), tuple(np.min(bad, 0).tolist())


def _pieces(items: int, most: int, workers: int) -> int:
    """Into how many pieces the pages of every row and head are cut: alike for all workers."""
    return next(p for p in range(1, workers + 1) if p >= most or items * p % workers == 0)


def _merge(parts: F32) -> tuple[F32, F32]:
    """Rule: attend.merge"""
    if len(parts) > 1:
        flat = parts.reshape(len(parts), -1, parts.shape[-1])
        _merged(flat, flat)
    return parts[0, ..., :-1], parts[0, ..., -1]


def _merge_rows(parts, out):
    """Partials (n, rows, E + 1), log-sum-exps last, become one in ``out[0]``."""
    n, rows, size = parts.shape
    for r in range(rows):
        top = np.float32(-np.inf)
        for i in range(n):
            top = max(top, parts[i, r, size - 1])
        total = np.float32(0)
        for i in range(n):
            weight = np.float32(0)
            if top > np.float32(-np.inf):
                weight = np.exp(parts[i, r, size - 1] - top)
            total += weight
            for e in range(size - 1):
                # What has no weight may be anything.
                more = weight * parts[i, r, e] if weight > np.float32(0) else np.float32(0)
                out[0, r, e] = more if i == 0 else out[0, r, e] + more
        if total > np.float32(0):
            for e in range(size - 1):
                out[0, r, e] /= total
            out[0, r, size - 1] = top + np.log(total)
        else:
            out[0, r, size - 1] = -np.inf


_merged = Kernel(_merge_rows)


class _Side(NamedTuple):
    """How one stream is read: a name for the compiled code, its functions, and its plan."""

    name: str
    module: Any
    read: Any
    plan: Any


@lru_cache(maxsize=64)
def _side(layout: PageLayout, kernels: Any, paired: bool) -> _Side:
    if narrow.serves(layout):
        return _Side("narrow", narrow, narrow.read, narrow.plan(layout, paired))
    if walked.serves(layout):
        made = None if layout.codec.id == "query" else walked.plan(layout, paired)
        return _Side("walked", walked, walked.read, made)
    name = kernels.__name__.rpartition(".")[2]
    return _Side(name, wide, wide.reader(kernels), kernels.plan(layout))


@lru_cache(maxsize=64)
def _kernel(
    k_name: str, v_name: str, k: Any, v: Any, k_read: Any, v_read: Any, codecs: tuple[Any, Any]
) -> Kernel:
    """The kernel of a pair of sides: one body, its functions bound by name."""
    bound = {
        "k_scratch": k.scratch, "k_load": k.load, "k_read": k_read, "k_products": k.products,
        "v_scratch": v.scratch, "v_read": v_read, "v_gather": v.gather, "v_finish": v.finish,
    }  # fmt: skip
    name = f"attend_{k_name}_{v_name}"
    # numba files compiled code under this name.
    made = FunctionType(_attend.__code__, {**globals(), **bound}, name)
    made.__qualname__, made.__module__ = name, __name__
    return Kernel(made, k, v, *codecs)
