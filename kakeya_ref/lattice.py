"""Nearest points of D4 and E8 inside a cube, and their enumeration.

Both sets are ``lattice ∩ [-q, q]^n``. The search is over the *set*: a point is never clamped
after rounding, which would leave the lattice.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import Malformed
from kakeya_ref.numerics import halving_sum

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


def nearest_even(w: F32, lo: int, hi: int) -> tuple[I64, F32]:
    """Nearest integer point of even sum with every coordinate in ``lo..hi``.

    Rule: e8.nearest.inside, e8.nearest.tie, d4.nearest.inside, d4.nearest.tie

    Parameters
    ----------
    w : (M, n) float32

    Returns
    -------
    c : (M, n) int64
        The point.
    cost : (M,) float32
        Squared distance, halving sum of the squared coordinate errors.

    Notes
    -----
    Level: bits. Rounding each coordinate gives the nearest point of Z^n in the cube. If its sum
    is odd, exactly one coordinate must move by one; moving by ``d`` costs ``1 - 2 d e``, so the
    cheapest move has the largest ``d * e``.
    Source: Conway and Sloane 1982, restricted to a cube.

    Examples
    --------
    >>> nearest_even(np.array([[0.75, 0.25, 0, 0]], dtype=np.float32), -1, 1)[0]
    array([[0, 0, 0, 0]])
    """
    r = np.clip(np.rint(w), np.float32(lo), np.float32(hi))
    e = w - r
    c = r.astype(np.int64)
    d = np.where(e >= 0, 1, -1)
    d = np.where((c + d < lo) | (c + d > hi), -d, d)
    gain = d.astype(np.float32) * e
    rows = np.arange(len(w))
    worst = np.argmax(gain, axis=1)  # first index on ties
    odd = (c.sum(axis=1) & 1) == 1
    c[rows, worst] += np.where(odd, d[rows, worst], 0)
    e = w - c.astype(np.float32)
    return c, halving_sum(e * e)


def nearest_e8(z: F32, q: int) -> tuple[NDArray[np.bool_], I64]:
    """Nearest point of E8 ∩ [-q, q]^8.

    Rule: e8.nearest.inside, e8.coset.tie

    Parameters
    ----------
    z : (M, 8) float32

    Returns
    -------
    half : (M,) bool
        True for the half-odd coset.
    c : (M, 8) int64
        The point is ``c`` or, in the half-odd coset, ``c + 1/2``.

    Examples
    --------
    >>> half, c = nearest_e8(np.full((1, 8), 0.25, dtype=np.float32), 1)
    >>> bool(half[0]), c[0].tolist()
    (False, [0, 0, 0, 0, 0, 0, 0, 0])
    """
    whole, cost = nearest_even(z, -q, q)
    shifted, cost_half = nearest_even(z - np.float32(0.5), -q, q - 1)
    half = cost_half < cost
    return half, np.where(half[:, None], shifted, whole)


def rank_even(c: I64, q: int) -> NDArray[np.uint64]:
    """Index of an even-sum point of ``[-q, q]^n``: its mixed-radix value, halved.

    Rule: d4.index.bijective, e8.index.bijective

    Notes
    -----
    The base ``2q + 1`` is odd, so a value and its digit sum have the same parity: the even-sum
    points are exactly the even values, and halving numbers them without gaps.
    """
    value = np.zeros(len(c), dtype=np.uint64)
    for i in range(c.shape[1]):
        value = value * np.uint64(2 * q + 1) + (c[:, i] + q).astype(np.uint64)
    return value >> np.uint64(1)


def unrank_even(rank: NDArray[np.uint64], q: int, n: int) -> I64:
    """Inverse of :func:`rank_even`.

    Rule: d4.index.bijective, e8.index.bijective
    """
    base = np.uint64(2 * q + 1)
    value = rank * np.uint64(2)
    c = np.zeros((len(rank), n), dtype=np.int64)
    for i in reversed(range(n)):
        c[:, i] = (value % base).astype(np.int64) - q
        value = value // base
    return c


def rank_half(c: I64, q: int) -> NDArray[np.uint64]:
    """Index of ``c + 1/2`` (even sum of ``c``) among the half-odd points: the last digit is halved.

    Rule: e8.index.bijective
    """
    value = np.zeros(len(c), dtype=np.uint64)
    for i in range(7):
        value = value * np.uint64(2 * q) + (c[:, i] + q).astype(np.uint64)
    return value * np.uint64(q) + ((c[:, 7] + q) >> 1).astype(np.uint64)


def unrank_half(rank: NDArray[np.uint64], q: int) -> I64:
    """Inverse of :func:`rank_half`; the parity of the first seven digits restores the last.

    Rule: e8.index.bijective
    """
    digits = np.zeros((len(rank), 8), dtype=np.int64)
    high = rank // np.uint64(q)
    for i in reversed(range(7)):
        digits[:, i] = (high % np.uint64(2 * q)).astype(np.int64)
        high = high // np.uint64(2 * q)
    parity = digits[:, :7].sum(axis=1) & 1
    digits[:, 7] = 2 * (rank % np.uint64(q)).astype(np.int64) + parity
    return digits - q


def check_range(index: NDArray[np.uint64], count: int, rule: str) -> None:
    """Refuse an index that names no lattice point.

    Rule: d4.index.range, e8.index.range

    Raises
    ------
    Malformed
    """
    bad = index >= np.uint64(count)
    if bad.any():
        first = int(np.argmax(bad.ravel()))
        raise Malformed(
            rule, f"index {int(index.ravel()[first])} of block {first} is not below {count}"
        )
