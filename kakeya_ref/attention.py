"""Attention over packed pages, in float64: the meaning of every faster kernel.

Letters: ``B`` rows, ``H`` KV heads, ``M = G * Q`` query rows of a KV head (row ``m`` belongs to
query token ``m % Q``), ``F`` frames, ``N`` pages of a row, ``P`` tokens of a page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.contract import check_attention
from kakeya_ref.errors import ShapeError
from kakeya_ref.types import Paged, PageLayout

F64 = NDArray[np.float64]
Partial = tuple[F64, F64]


def attend(
    decode: Callable[..., NDArray[np.float32]],
    q: NDArray[Any],
    k_pages: NDArray[np.uint8],
    v_pages: NDArray[np.uint8],
    layouts: tuple[PageLayout, PageLayout],
    paged: Paged,
    scaling: float,
    *,
    bias: NDArray[Any] | None = None,
    softcap: float | None = None,
    window: int | None = None,
    known: tuple[Sequence[Any] | None, Sequence[Any] | None] = (None, None),
) -> Partial:
    """The partial of all tokens of the pages that each query sees.

    Rule: attend.basis.once, attend.logit, attend.visible.page, attend.visible.window,
    attend.row.independent, attend.memory.bounded, attend.input.untouched

    Parameters
    ----------
    decode : callable
        ``Backend.decode`` of whoever knows the codecs.
    q : (B, H, F, M, D)
        In the coded basis of K, one set of queries a frame.
    k_pages, v_pages : (S, nbytes) uint8
        Pools of page bodies.
    bias : (B, H, F, M), optional
        Added to ``q·k`` before scaling.
    known : two sequences of H tables, or None
        For codecs whose coefficients need the table of their KV head.

    Returns
    -------
    out : (B, H, M, E) float64, in the coded basis of V
    lse : (B, H, M) float64, -inf where a query sees nothing

    Raises
    ------
    ShapeError
    """
    check_attention(q, bias, k_pages, v_pages, layouts, paged)
    rows, heads, _, m, _ = q.shape
    if paged.slots.size and paged.slots.max() >= len(k_pages):
        raise ShapeError("attend.operand.fits", f"no slot {paged.slots.max()} in this pool")
    out = np.zeros((rows, heads, m, layouts[1].head_dim))
    lse = np.full((rows, heads, m), -np.inf)
    index = paged.origin[:, None] + np.arange(m) % paged.queries  # (B, M)
    for b, h in np.ndindex(rows, heads):
        parts = []
        for n in np.flatnonzero(paged.slots[b, h] >= 0).tolist():
            at, f = paged.slots[b, h, n], 0 if paged.frame is None else paged.frame[b, n]
            k, v = (
                decode(pool[at : at + 1], layout, basis="coefficients", **_table(tables, h))[0]
                for pool, layout, tables in zip((k_pages, v_pages), layouts, known, strict=True)
            )
            extra = 0.0 if bias is None else bias[b, h, f, :, None].astype(np.float64)
            logits = scaling * (q[b, h, f].astype(np.float64) @ k.T.astype(np.float64) + extra)
            if softcap is not None:
                logits = softcap * np.tanh(logits / softcap)
            logits[~visible(paged, b, n, index[b], len(k), window)] = -np.inf
            parts.append(partial(logits, v.astype(np.float64)))
        if parts:
            out[b, h], lse[b, h] = merge(parts)
    return out, lse


def visible(
    paged: Paged, b: int, n: int, index: NDArray[np.int64], tokens: int, window: int | None
) -> NDArray[np.bool_]:
    """Which tokens of page ``n`` of row ``b`` queries at these cache indices see: (M, P).

    Rule: attend.visible.page, attend.visible.window
    """
    t, i = np.arange(tokens)[None, :], index[:, None]
    place = paged.first[b, n] + t
    seen: NDArray[np.bool_] = (t < paged.length[b, n]) & (place <= i) & (i >= paged.since[b, n])
    if window is not None:
        seen &= place > i - window
    return seen


def partial(logits: F64, v: F64) -> Partial:
    """Softmax of logits (..., M, T) over values (..., T, E); a logit of -inf has no weight.

    Rule: attend.softmax, attend.visible.none
    """
    top = logits.max(-1, keepdims=True, initial=-np.inf)
    weight = np.exp(logits - np.where(top == -np.inf, 0, top))
    total = weight.sum(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + top)[..., 0]
    return weight @ v / np.where(total == 0, 1, total), lse


def merge(parts: Sequence[tuple[NDArray[Any], NDArray[Any]]]) -> Partial:
    """One partial of those of disjoint sets of tokens; outputs (..., E), log-sum-exps (...).

    A learned sink takes part as ``(zeros, its logit)``.

    Rule: attend.merge, attend.sink.learned
    """
    lse = np.stack([p[1] for p in parts], axis=-1).astype(np.float64)
    out = np.stack([p[0] for p in parts], axis=-2).astype(np.float64)
    merged, total = partial(lse[..., None, :], np.where(lse[..., None] == -np.inf, 0, out))
    return merged[..., 0, :], total[..., 0]


def _table(tables: Sequence[Any] | None, head: int) -> dict[str, Any]:
    return {} if tables is None else {"tables": tables[head]}
