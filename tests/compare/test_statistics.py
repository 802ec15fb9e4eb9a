"""Each statistic against a reference or a simulation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from beam_ray.compare.statistics import (
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
