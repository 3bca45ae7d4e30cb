"""How a partial of attention is judged: against the float64 ideal, with plain bf16 as yardstick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kakeya_conformance import levels
from kakeya_conformance.compare import want
from kakeya_ref.attention import partial

F64 = NDArray[np.float64]


@dataclass(frozen=True)
class Ideal:
    """The ideal partial of query rows, the error of plain bf16 attention, and the bounds.

    All arrays have the shape of the query rows, ``out`` one axis more.
    """

    out: F64
    lse: F64
    plain: F64  # |plain - ideal|
    bound: F64  # w of attend.error.row
    shift: F64  # largest d_t


def bf16(x: NDArray[Any]) -> F64:
    """Numbers rounded to bf16, ties to even, wide again."""
    bits = np.asarray(x, dtype=np.float32).view(np.uint32).astype(np.int64)
    bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16
    return bits.astype(np.uint32).view(np.float32).astype(np.float64)


def ideal(
    q: NDArray[Any],
    k: NDArray[Any],
    v: NDArray[Any],
    seen: NDArray[np.bool_],
    scaling: float,
    softcap: float | None = None,
    bias: NDArray[Any] | float = 0.0,
) -> Ideal:
    """What query rows (..., M, D) should get from tokens (..., T, D) and (..., T, E).

    Rule: attend.error.mean, attend.error.row, attend.error.lse

    Parameters
    ----------
    q : (..., M, D), or (..., M, T, D) where the tokens of a row lie in several frames
    seen : (..., M, T) bool
    bias : broadcasts against (..., M, T)
    """
    q, k, v = (np.asarray(x, dtype=np.float64) for x in (q, k, v))
    q = q[..., None, :] if q.ndim == k.ndim else q

    def run(q: F64, k: F64, v: F64, rounds: bool) -> tuple[F64, F64, F64]:
        if q.shape[-2] == 1:
            product = q[..., 0, :] @ np.swapaxes(k, -1, -2)
        else:
            product = np.einsum("...mtd,...td->...mt", q, k)
        logits = scaling * (product + bias)
        if softcap is not None:
            logits = softcap * np.tanh(logits / softcap)
        logits = np.where(seen, logits, -np.inf)
        out, lse = partial(logits, v)
        weight = np.exp(logits - np.where(lse == -np.inf, 0, lse)[..., None])
        if rounds:
            top = weight.max(-1, keepdims=True)
            out = bf16(bf16(weight / np.where(top, top, 1)) @ v * top)
        return out, lse, weight

    out, lse, p = run(q, k, v, False)
    plain, _, _ = run(bf16(q), bf16(k), bf16(v), True)
    u = levels.BF16
    d = 2 * u * scaling * np.linalg.norm(q, axis=-1) * np.linalg.norm(k, axis=-1)[..., None, :]
    size = np.linalg.norm(v, axis=-1)[..., None, :]
    length = np.linalg.norm(out, axis=-1)
    square = size**2 - 2 * out @ np.swapaxes(v, -1, -2) + length[..., None] ** 2
    away = np.sqrt(np.maximum(square, 0))
    with np.errstate(over="ignore", invalid="ignore"):
        moved = (p * np.expm1(d) * away).sum(-1) / (p * np.exp(-d)).sum(-1)
    # However far the logits are off, the output stays among the values.
    most = np.where(seen, away, 0).max(-1, initial=0)
    moved = np.fmin(np.where(np.isnan(moved), np.inf, moved), most)
    bound = moved + u * (2 * (p * size).sum(-1) + length)
    shift = np.where(seen, d, 0).max(-1, initial=0)
    return Ideal(out, lse, np.linalg.norm(plain - out, axis=-1), bound, shift)


def judge(out: NDArray[Any], lse: NDArray[Any], wanted: Ideal) -> None:
    """Fail unless a partial lies within the bounds.

    Rule: attend.error.mean, attend.error.row, attend.error.lse, attend.visible.none
    """
    none = wanted.lse == -np.inf
    want((np.asarray(lse)[none] == -np.inf).all(), "a query that sees nothing has another lse")
    want(not np.asarray(out)[none].any(), "a query that sees nothing has an output")
    off = np.linalg.norm(np.asarray(out, dtype=np.float64) - wanted.out, axis=-1)
    over = ~(off <= levels.ATTEND * wanted.bound)
    want(not over.any(), f"{int(over.sum())} rows err by more than twice their bound")
    want(*_mean(off, wanted))
    some = ~none
    gap = np.abs(np.asarray(lse, dtype=np.float64)[some] - wanted.lse[some])
    allowed = levels.ATTEND * wanted.shift[some]
    allowed += levels.LSE_FLOOR * (1 + np.abs(wanted.lse[some]))
    want((gap <= allowed).all(), "a log-sum-exp is outside of its bound")


def _mean(off: F64, wanted: Ideal) -> tuple[bool, str]:
    if off.size < levels.ATTEND_ROWS:
        return True, ""
    ours, plain, bound = (_rms(x) for x in (off, wanted.plain, wanted.bound))
    allowed = levels.ATTEND * plain + levels.ATTEND_SHARE * bound
    return ours <= allowed, f"error {ours:.3e}, plain bf16 {plain:.3e}, allowed {allowed:.3e}"


def _rms(x: F64) -> float:
    return float(np.sqrt(np.mean(x**2)))
