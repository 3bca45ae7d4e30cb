"""Frozen constants of the spec: gain grid, Lloyd-Max tables, lattice steps, trellis, sign flips.

Data only. Reference and fast backends read the same file, so no constant is typed twice.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@cache
def _tables(name: str = "tables.json") -> dict[str, Any]:
    text = files("kakeya_spec").joinpath(name).read_text("utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _floats(text: str) -> F32:
    values = np.frombuffer(bytes.fromhex(text), dtype="<f4").astype(np.float32)
    values.setflags(write=False)
    return values


@cache
def gain_grid() -> F32:
    """``S``: the 256 gains a scale byte can name; ``S[0]`` is 0.

    Rule: scale.byte.grid, scale.byte.zero

    Returns
    -------
    (256,) float32

    Examples
    --------
    >>> [float(gain_grid()[b]) for b in (0, 120, 128, 136)]
    [0.0, 0.5, 1.0, 2.0]
    """
    return _floats(_tables()["gain"]["grid"])


@cache
def gain_midpoints() -> F32:
    """``M``: ``M[b]`` separates bytes ``b-1`` and ``b``; ``M[256]`` is the largest gain allowed.

    Rule: scale.byte.midpoint, scale.byte.range

    Returns
    -------
    (257,) float32
        ``M[0]`` is 0 and not used.
    """
    return _floats(_tables()["gain"]["midpoints"])


@cache
def lloyd_max(b: int) -> tuple[F32, F32]:
    """Lloyd-Max quantiser of N(0, 1) at ``b`` bits.

    Rule: scalar.table.lloyd-max

    Returns
    -------
    centroids : (2**b,) float32
        Ascending.
    thresholds : (2**b - 1,) float32
        ``thresholds[k]`` separates codes ``k`` and ``k + 1``.

    Examples
    --------
    >>> lloyd_max(1)[0]
    array([-0.7978846,  0.7978846], dtype=float32)
    """
    row = _tables()["lloyd_max"][str(b)]
    return _floats(row["centroids"]), _floats(row["thresholds"])


@cache
def band_savings() -> F32:
    """Distortion that a band of unit variance saves by its ``b + 1``-th bit.

    Rule: query.bits.greedy

    Returns
    -------
    (7,) float32
    """
    return _floats(_tables()["query"]["savings"])


@cache
def lattice_step(codec_id: str, q: int) -> tuple[np.float32, np.float32]:
    """Lattice step per unit rms, and its fp32 reciprocal.

    Rule: d4.step.table, e8.step.table

    Returns
    -------
    kappa, kinv : float32
    """
    kappa, kinv = _floats(_tables()["lattice_step"][codec_id][q - 1])
    return kappa, kinv


@cache
def trellis_labels() -> NDArray[np.int64]:
    """Label of each window of eight low bits: the exclusive or of the columns of its set bits.

    Rule: trellis.label.linear

    Returns
    -------
    (256,) int64
        0 to 15.

    Examples
    --------
    >>> trellis_labels()[[0, 1, 2, 3, 255]].tolist()
    [0, 8, 13, 5, 15]
    """
    labels = np.zeros(256, dtype=np.int64)
    for bit, column in enumerate(_tables("trellis.json")["columns"]):
        labels ^= np.where(np.arange(256) >> bit & 1, column, 0)
    labels.setflags(write=False)
    return labels


@cache
def trellis_values(b: int) -> F32:
    """Values of a trellis code of ``b`` bits: ``value[16 * (code >> 1) + label]``.

    Rule: trellis.table.values

    Returns
    -------
    (16 * 2**(b-1),) float32
        Each fits bf16 and fp16 exactly.
    """
    return _floats(_tables("trellis.json")["values"][str(b)])


_MASK = (1 << 64) - 1


def splitmix64(state: int) -> tuple[int, int]:
    """One step of SplitMix64: the new state and the output.

    Rule: signs.splitmix64.step

    Examples
    --------
    >>> hex(splitmix64(1)[1])
    '0x910a2dec89025cc1'
    """
    state = (state + 0x9E3779B97F4A7C15) & _MASK
    z = state
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return state, z ^ (z >> 31)


@cache
def signs(seed: int, d: int) -> F32:
    """Sign flips of a rotation: -1 where bit 63 of the i-th SplitMix64 output is set.

    Rule: signs.splitmix64.top-bit, signs.seed.zero

    Returns
    -------
    (d,) float32
        All +1 when ``seed`` is 0.

    Examples
    --------
    >>> signs(1, 8)
    array([-1., -1., -1.,  1.,  1., -1., -1., -1.], dtype=float32)
    """
    flips = np.ones(d, dtype=np.float32)
    state = seed
    for i in range(d if seed else 0):
        state, out = splitmix64(state)
        if out >> 63:
            flips[i] = -1.0
    flips.setflags(write=False)
    return flips
