"""Intervals against cases whose answer is known."""

import numpy as np
import pytest

from kakeya_fast.quality.stats import pooled, tail_share


def test_mean_is_per_token_not_per_passage():
    assert pooled([10.0, 0.0], [1, 9]).mean == 1.0


def test_equal_passages_have_no_spread():
    found = pooled([3.0] * 5, [6] * 5)
    assert (found.mean, found.low, found.high, found.stderr) == (0.5, 0.5, 0.5, 0.0)


def test_one_passage_has_no_interval():
    found = pooled([3.0], [6])
    assert found.mean == 0.5
    assert found.low is found.high is found.stderr is None


def test_stderr_of_equal_counts_is_the_textbook_one():
    x = np.random.default_rng(3).normal(2.0, 1.0, 40)
    found = pooled(x * 100, [100] * 40)
    assert found.stderr == pytest.approx(x.std(ddof=1) / np.sqrt(40), rel=1e-12)


def test_interval_of_a_normal_sample_is_about_two_stderr():
    x = np.random.default_rng(4).normal(2.0, 1.0, 400)
    found = pooled(x, [1] * 400)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.stderr, rel=0.03)
    assert found.low < found.mean < found.high


@pytest.mark.parametrize("n", [8, 16])
def test_interval_covers_the_truth_as_often_as_it_says(n):
    rng = np.random.default_rng(n)
    found = [pooled(rng.normal(0.0, 1.0, n), [1] * n) for _ in range(300)]
    hits = sum(f.low <= 0.0 <= f.high for f in found)
    # 95 % of 300 is 285; three standard deviations of a binomial are 11.
    assert 270 <= hits <= 298


@pytest.mark.parametrize("n", [6, 9, 30])
def test_tails_are_those_of_students_t(n):
    stats = pytest.importorskip("scipy.stats")
    want = stats.norm.sf(stats.t.ppf(0.975, n - 1) * np.sqrt(n / (n - 1)))
    assert tail_share(n) == pytest.approx(want, rel=0.1)


def test_same_seed_same_interval():
    x = np.random.default_rng(6).normal(size=9)
    assert pooled(x, [1] * 9) == pooled(x, [1] * 9)
    assert pooled(x, [1] * 9).low != pooled(x, [1] * 9, seed=1).low
