"""The lattice search against brute force: every point of the set is tried."""

import itertools

import numpy as np
import pytest

from kakeya_ref import lattice


def points(n: int, q: int, *, half: bool) -> np.ndarray:
    whole = [p for p in itertools.product(range(-q, q + 1), repeat=n) if sum(p) % 2 == 0]
    if not half:
        return np.array(whole, dtype=np.float64)
    odd = [p for p in itertools.product(range(-q, q), repeat=n) if sum(p) % 2 == 0]
    return np.concatenate([np.array(whole, float), np.array(odd, float) + 0.5])


def inputs(n: int, rows: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    # Inside, on the boundary, and far outside the cube: overload is where clamping goes wrong.
    spread = rng.choice([0.3, 1.0, 3.0], size=(rows, 1))
    return (rng.standard_normal((rows, n)) * spread).astype(np.float32)


@pytest.mark.parametrize(("n", "q"), [(4, 1), (4, 2), (4, 3)])
def test_d4_finds_the_nearest_point_of_the_set(n: int, q: int) -> None:
    """Rule: d4.nearest.inside"""
    z, every = inputs(n, 2000), points(n, q, half=False)
    best = ((z[:, None].astype(float) - every) ** 2).sum(axis=2).min(axis=1)
    c, cost = lattice.nearest_even(z, -q, q)
    found = ((z.astype(float) - c) ** 2).sum(axis=1)
    assert np.all(np.abs(c) <= q)
    assert np.all(c.sum(axis=1) % 2 == 0)
    np.testing.assert_allclose(found, best, rtol=1e-6)
    np.testing.assert_allclose(cost, best, rtol=1e-5)


def test_e8_finds_the_nearest_point_of_the_set() -> None:
    """Rule: e8.nearest.inside"""
    z, every = inputs(8, 600), points(8, 1, half=True)
    best = ((z[:, None].astype(float) - every) ** 2).sum(axis=2).min(axis=1)
    half, c = lattice.nearest_e8(z, 1)
    point = c + 0.5 * half[:, None]
    np.testing.assert_allclose(((z.astype(float) - point) ** 2).sum(axis=1), best, rtol=1e-6)
    assert half.any()
    assert not half.all()


def test_every_point_of_e8_has_one_index_and_back() -> None:
    """Rule: e8.index.bijective"""
    every = points(8, 1, half=True)
    half, c = lattice.nearest_e8(every.astype(np.float32), 1)
    assert np.array_equal(c + 0.5 * half[:, None], every), "a lattice point is its own nearest"
    whole = (3**8 + 1) // 2
    index = np.where(half, whole + lattice.rank_half(c, 1), lattice.rank_even(c, 1))
    assert np.array_equal(np.sort(index), np.arange(3409))
    back = lattice.unrank_even(index[~half].astype(np.uint64), 1, 8)
    assert np.array_equal(back, c[~half])
    back = lattice.unrank_half((index[half] - whole).astype(np.uint64), 1)
    assert np.array_equal(back, c[half])


def test_the_largest_q_still_fits_64_bits() -> None:
    """Rule: e8.index.bijective"""
    rng = np.random.default_rng(3)
    c = rng.integers(-110, 111, size=(500, 8))
    c[:, 7] ^= c.sum(axis=1) & 1
    c = np.clip(c, -110, 110)
    c = c[c.sum(axis=1) % 2 == 0]
    assert len(c) > 400
    assert np.array_equal(lattice.unrank_even(lattice.rank_even(c, 110), 110, 8), c)
