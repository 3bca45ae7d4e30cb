"""Walks of mixed bits and of any length, which codecs with bands need."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from kakeya_fast.numba_cpu.vector16 import LANES
from kakeya_fast.numba_cpu.walk import LABELS, STATES, WALK_FIELDS, search, values, walk
from kakeya_ref import trellis
from kakeya_ref.tables import trellis_labels, trellis_values


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("bits", [[3, 2, 2, 1, 1], [2, 1, 3, 1, 2], [1] * 9])
def test_no_other_walk_is_nearer(bits: list[int]) -> None:
    """Rule: trellis.search.step, trellis.search.start, trellis.search.end"""
    z, widths = noise(len(bits), 1, len(bits)), np.array(bits)
    every = np.array(list(itertools.product(*(range(1 << b) for b in bits))), dtype=np.uint64)
    errors = ((trellis.values(every, widths) - z) ** 2).sum(axis=1)
    got = trellis.search(z, widths)
    assert errors[(every == got).all(axis=1)].item() <= errors.min() * (1 + 1e-6)


def test_labels_that_compete_lie_far_apart() -> None:
    """Windows that leave a state, and windows that meet in one, differ by 8 in their label."""
    labels = trellis_labels()
    assert set(labels[0::2] ^ labels[1::2]) == set(labels[:128] ^ labels[128:]) == {8}


@pytest.mark.parametrize("b", range(1, 9))
def test_values_fit_half_precision_and_mirror(b: int) -> None:
    """Rule: trellis.table.values"""
    v = trellis_values(b)
    assert np.array_equal(v, -v[::-1])
    assert np.array_equal(v.astype(np.float16).astype(np.float32), v)
    assert not (v.view(np.uint32) & 0xFFFF).any()


@pytest.mark.parametrize("bits", [[7, 5, 4, 3, 3, 2, 2, 1, 1, 1, 1], [1, 8, 2], [2] * 40])
def test_lanes_walk_as_the_reference(bits: list[int]) -> None:
    """Rule: trellis.search.step, trellis.window.shift"""
    n, widths = len(bits), np.array(bits)
    z = noise(n, LANES, n)
    fields = dict(zip((name for name, _ in WALK_FIELDS), walk(widths), strict=True))
    plan = walk_plan(**fields)
    codes = np.empty((n, LANES), np.uint8)
    cost, after = (np.empty((STATES, LANES), np.float32) for _ in range(2))
    square = np.empty((LABELS, LANES), np.float32)
    pick, flags = np.empty((n * LABELS, LANES), np.uint8), np.empty((n, STATES), np.uint16)
    search(np.ascontiguousarray(z.T), plan, cost, after, square, pick, flags, codes)
    assert np.array_equal(codes.T, trellis.search(z, widths))
    y = np.empty((n, LANES), np.float32)
    values(codes, plan, np.ones(LANES, np.float32), y)
    assert np.array_equal(y.T, trellis.values(codes.T.astype(np.uint64), widths))


def walk_plan(**fields: np.ndarray) -> object:
    from collections import namedtuple

    return namedtuple("Walk", fields)(**fields)
