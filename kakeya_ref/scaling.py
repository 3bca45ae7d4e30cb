"""The gain byte: one byte per vector on a logarithmic grid of eight steps per octave."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kakeya_ref.errors import RangeError
from kakeya_ref.numerics import halving_sum
from kakeya_ref.tables import gain_grid, gain_midpoints

F32 = NDArray[np.float32]


def rms(y: F32) -> F32:
    """Root mean square of each vector.

    Rule: scale.rms, num.sum.halving

    Parameters
    ----------
    y : (M, D) float32

    Returns
    -------
    (M,) float32
        ``sqrt(sum(y * y) / D)``, each operation rounded once. Infinite where the sum overflows.
    """
    with np.errstate(over="ignore"):
        out: F32 = np.sqrt(halving_sum(y * y) / np.float32(y.shape[1]))
    return out


def gain_byte(gain: F32) -> NDArray[np.uint8]:
    """Nearest byte of each gain, judged by the midpoint table; ties go to the lower byte.

    Rule: scale.byte.midpoint, scale.byte.zero, scale.byte.range

    Parameters
    ----------
    gain : (M,) float32

    Raises
    ------
    RangeError
        A gain above the last midpoint.

    Examples
    --------
    >>> gain_byte(np.array([0.0, 1e-6, 1.0, 2.0], dtype=np.float32)).tolist()
    [0, 0, 128, 136]
    """
    refuse_gain(gain, gain_midpoints()[256], "scale.byte.range")
    return np.searchsorted(gain_midpoints()[1:256], gain, side="left").astype(np.uint8)


def gain_byte_above(gain: F32) -> NDArray[np.uint8]:
    """Smallest byte from 1 up whose gain is not below ``gain``.

    Rule: fp8.scale.up

    Raises
    ------
    RangeError
        A gain above the top of the grid.
    """
    refuse_gain(gain, gain_grid()[255], "fp8.scale.up")
    return (1 + np.searchsorted(gain_grid()[1:], gain, side="left")).astype(np.uint8)


def refuse_gain(gain: F32, top: np.float32, rule: str) -> None:
    """Refuse vectors too large for the grid, their gain infinite or NaN included.

    Rule: scale.byte.range, fp8.scale.up
    """
    # Not "gain > top": the butterflies of huge inputs reach inf - inf, and NaN compares false.
    refused = ~(gain <= top)
    if refused.any():
        token = int(np.argmax(refused))
        raise RangeError(rule, f"gain {float(gain[token])} of vector {token} is above {top}")


def gain_of(byte: NDArray[np.uint8]) -> F32:
    """Gain of each byte. Rule: scale.byte.grid"""
    out: F32 = gain_grid()[byte]
    return out


def reciprocal_of(byte: NDArray[np.uint8]) -> F32:
    """Grid reciprocal: ``S[256 - b]``, and 0 for byte 0, so encoders multiply, never divide.

    Rule: scale.byte.reciprocal, scale.byte.zero
    """
    mirrored = (256 - byte.astype(np.int64)) % 256
    out: F32 = gain_grid()[mirrored]
    return out
