"""Each statistic against a reference or a simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from beam_ray.compare.statistics import (
    detectable_mean,
    detectable_share,
    holm,
    mcnemar,
)


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_exact_binomial_sum(better, worse):
    """
    The p-value is twice the smaller tail of a fair coin, at most 1.
    """
    changed = better + worse
    tail = sum(math.comb(changed, k) for k in range(min(better, worse) + 1)) / 2**changed

    assert mcnemar(better, worse) == pytest.approx(min(1.0, 2 * tail))


@given(st.integers(0, 20_000), st.integers(0, 20_000))
def test_mcnemar_is_the_binomial_test_of_scipy(better, worse):
    """
    The p-value is that of scipy.stats, whose import alone takes longer than a comparison.
    """
    reference = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0

    assert mcnemar(better, worse) == pytest.approx(reference, rel=1e-9, abs=1e-300)


def test_six_fixes_without_a_regression_are_the_fewest_that_show():
    """
    Five newly passing tasks are not significant, six are.
    """
    assert mcnemar(5, 0) > 0.05 > mcnemar(6, 0)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(1, 5))
def test_holm_by_its_definition(p_values, family):
    """
    Adjusted values follow Holm's steps, keep the order and are never below the p-values.
    """
    total = len(p_values) * family
    ranked = sorted(range(len(p_values)), key=lambda index: p_values[index])
    expected = [0.0] * len(p_values)
    for rank, index in enumerate(ranked):
        expected[index] = max(min(1.0, (total - other) * p_values[ranked[other]]) for other in range(rank + 1))

    assert holm(p_values, family) == pytest.approx(expected)


def test_holm_of_a_textbook_example():
    """
    Three p-values of 0.01, 0.04 and 0.03 become 0.03, 0.06 and 0.06.
    """
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_detectable_mean_has_its_power():
    """
    A true difference of the detectable size is found in about four of five t-tests.
    """
    chance = np.random.default_rng(3)
    shape = chance.normal(0, 20, 30)
    effect = detectable_mean(shape)
    draws = chance.normal(effect, shape.std(ddof=1), (20_000, 30))
    found = stats.ttest_1samp(draws, 0, axis=1).pvalue < 0.05

    assert found.mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(("worse", "tasks"), [(0, 20), (0, 50), (2, 50), (10, 400)])
def test_detectable_share_has_its_power(worse, tasks):
    """
    A true net share of the detectable size is found in four of five McNemar tests.
    """
    lost = worse / tasks
    gained = detectable_share(worse, tasks) + lost
    chance = np.random.default_rng(4)
    counts = chance.multinomial(tasks, [gained, lost, 1 - gained - lost], 4_000)
    table = {pair: mcnemar(*pair) < 0.05 for pair in {(int(better), int(bad)) for better, bad, _ in counts}}

    assert np.mean([table[int(better), int(bad)] for better, bad, _ in counts]) == pytest.approx(0.8, abs=0.03)


@given(st.integers(1, 3_000), st.floats(0, 0.3))
def test_detectable_share_by_the_binomial_distributions_of_scipy(tasks, share):
    """
    Summed over how many tasks may change sides, the exact test shows the detectable share in 80 of 100 cases, and any share in fewer where there is none.
    """
    worse = int(share * tasks)
    lost, sizes = worse / tasks, np.arange(tasks + 1)

    def power(gained):
        shown = stats.binom.sf(sizes - stats.binom.ppf(0.025, sizes, 0.5), sizes, gained / (gained + lost))
        return (stats.binom.pmf(sizes, tasks, gained + lost) * shown).sum()

    found = detectable_share(worse, tasks)

    assert power(1 - lost) < 0.8 if found is None else power(found + lost) == pytest.approx(0.8, abs=1e-6)


def test_too_few_tasks_detect_nothing():
    """
    Five tasks show no change of the success rate, whatever its size.
    """
    assert detectable_share(0, 5) is None
    assert detectable_share(0, 0) is None
    assert detectable_mean(np.array([1.0, 2.0])) is None
