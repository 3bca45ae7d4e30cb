"""The numeric core against independent definitions: SciPy, ml formats by enumeration, calculus."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.special import ndtr

from kakeya_ref import RangeError, chains, numerics, rotation, scaling, tables
from kakeya_ref.skeletons import narrow16, widen16


@pytest.mark.parametrize("d", [8, 16, 64, 80, 96, 112, 128, 192, 256, 576])
def test_rotation_is_the_orthonormal_hadamard(d: int) -> None:
    """Rule: hadamard.scale.once, hadamard.blocks.largest-first"""
    matrix = scipy.linalg.block_diag(
        *[scipy.linalg.hadamard(n) / math.sqrt(n) for n in rotation.blocks(d)]
    )
    x = np.random.default_rng(d).standard_normal((50, d)).astype(np.float32)
    ideal = (x * tables.signs(1, d)).astype(np.float64) @ matrix
    y = rotation.rotate(x, 1)
    np.testing.assert_allclose(y, ideal, atol=2e-6)
    np.testing.assert_allclose(rotation.unrotate(y, 1), x, atol=2e-6)


def test_sign_bits_are_fair_and_differ_between_seeds() -> None:
    """Rule: signs.splitmix64.top-bit, signs.seed.zero"""
    assert np.all(tables.signs(0, 512) == 1)
    a, b = tables.signs(1, 512), tables.signs(2, 512)
    assert abs(a.mean()) < 0.15
    assert abs((a * b).mean()) < 0.15
    assert np.array_equal(tables.signs(1, 64), a[:64])


def test_halving_sum_order() -> None:
    """Rule: num.sum.halving"""
    one, tiny = np.float32(1), np.float32(2**-24)
    # ((1 + tiny) + (tiny + tiny)): in any other order a tiny is lost or gained.
    a = np.array([one, tiny, tiny, tiny, 0], dtype=np.float32)
    by_hand = np.float32(np.float32(one + tiny) + np.float32(0 + tiny)) + np.float32(tiny)
    assert numerics.halving_sum(a) == by_hand
    values = np.random.default_rng(1).integers(0, 100, size=(7, 13)).astype(np.float32)
    assert np.array_equal(numerics.halving_sum(values), values.sum(axis=1))


def test_gain_grid_is_its_own_mirror() -> None:
    """Rule: scale.byte.grid, scale.byte.midpoint, scale.byte.reciprocal"""
    grid, mids = tables.gain_grid(), tables.gain_midpoints()
    exponent = (np.arange(1, 256) - 128) / 8
    np.testing.assert_allclose(grid[1:], 2.0**exponent, rtol=6e-8)
    assert np.all(mids[1:256] < grid[1:])
    assert np.all(grid[1:] < mids[2:])
    every = np.arange(256).astype(np.uint8)
    np.testing.assert_allclose(
        scaling.gain_of(every)[1:] * scaling.reciprocal_of(every)[1:], 1, rtol=2e-7
    )
    assert np.array_equal(scaling.gain_byte(grid), every)
    # A gain on a midpoint takes the lower byte; the next float up takes the higher one.
    assert np.array_equal(scaling.gain_byte(mids[1:256]), every[:-1])
    up = np.nextafter(mids[1:256], np.float32(np.inf))
    assert np.array_equal(scaling.gain_byte(up), every[1:])
    with pytest.raises(RangeError, match=r"\[scale.byte.range\]"):
        scaling.gain_byte(np.nextafter(mids[256:], np.float32(np.inf)))


@pytest.mark.parametrize("b", range(1, 9))
def test_lloyd_max_meets_both_conditions(b: int) -> None:
    """Rule: scalar.table.lloyd-max"""
    c, t = (a.astype(np.float64) for a in tables.lloyd_max(b))
    np.testing.assert_allclose(t, (c[1:] + c[:-1]) / 2, atol=2e-7)
    edges = np.concatenate([[-np.inf], t, [np.inf]])
    pdf = np.exp(-(edges**2) / 2) / math.sqrt(2 * math.pi)
    upper = edges[:-1] > 0  # measure tails from the near side, where ndtr is precise
    mass = np.where(upper, ndtr(-edges[:-1]) - ndtr(-edges[1:]), ndtr(edges[1:]) - ndtr(edges[:-1]))
    np.testing.assert_allclose(c, (pdf[:-1] - pdf[1:]) / mass, atol=3e-6)
    assert np.array_equal(c, -c[::-1])


def test_e4m3_and_bf16_agree_with_an_independent_cast() -> None:
    """Rule: fp8.code.round, num.round.half-even"""
    values = numerics.e4m3_values()
    finite = values[~np.isnan(values)]
    ladder = np.unique(finite)
    halves = (ladder[1:] + ladder[:-1]) / 2
    x = np.concatenate(
        [
            finite,
            halves,
            np.nextafter(halves, np.float32(np.inf)),
            np.random.default_rng(2).standard_normal(4000) * 50,
        ]
    ).astype(np.float32)
    theirs = torch.from_numpy(np.clip(x, -448, 448)).to(torch.float8_e4m3fn).view(torch.uint8)
    assert np.array_equal(numerics.round_e4m3(x), theirs.numpy())
    bf16 = torch.from_numpy(x).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(numerics.round_bf16(x, "raw.range"), bf16)


@pytest.mark.parametrize(("store", "kind"), [("f16", torch.float16), ("bf16", torch.bfloat16)])
def test_numbers_of_16_bits_agree_with_an_independent_cast(store: str, kind: torch.dtype) -> None:
    """Rule: num.round.half-even, num.subnormal.kept"""
    every = np.arange(2**16, dtype=np.uint16)
    wide = widen16(every, store)
    theirs = torch.from_numpy(every.view(np.int16)).view(kind).float().numpy()
    np.testing.assert_array_equal(wide, theirs)
    ladder = np.unique(wide[np.isfinite(wide)]).astype(np.float64)
    halves = ((ladder[1:] + ladder[:-1]) / 2).astype(np.float32)
    up = np.nextafter(halves, np.float32(np.inf))
    x = np.concatenate([halves, up, -up, ladder.astype(np.float32), [3.4e38, np.inf, -np.inf]])
    x = x.astype(np.float32)
    assert np.array_equal(
        narrow16(x, store), torch.from_numpy(x).to(kind).view(torch.uint16).numpy()
    )
    assert np.isnan(widen16(narrow16(np.array([np.nan], dtype=np.float32), store), store)).all()


def test_chain_adds_in_index_order_from_plus_zero() -> None:
    """Rule: num.chain.order"""
    rng = np.random.default_rng(3)
    x, rows = (rng.standard_normal((n, 40)).astype(np.float32) for n in (5, 7))
    for i, j in np.ndindex(5, 7):
        total = np.float32(0)
        for a, b in zip(x[i], rows[j], strict=True):
            total = np.float32(total + np.float32(a * b))
        assert chains.chain(x, rows)[i, j] == total
    zeros = chains.chain(np.full((1, 8), -0.0, dtype=np.float32), np.ones((1, 8), dtype=np.float32))
    assert not np.signbit(zeros).any()
