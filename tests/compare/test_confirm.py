"""Regressions are told from flakes: both promises of the gate, simulated, and the rules behind them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from beam_ray.compare.regressions import LEVEL, MOST_TESTED, Repeats, first_repeats, regressions, repeats_again, suspected
from benchmarks.coverage.regressions import passing, simulate

GOOD, BAD, FLAKE = Repeats(3, 3, 3, 3), Repeats(3, 3, 0, 3), Repeats(1, 3, 0, 3)
SHOWN, NOT_SHOWN = Repeats(8, 8, 0, 8), Repeats(8, 8, 6, 8)


@pytest.mark.parametrize(("tasks", "flakes"), [(50, "5%"), (200, "10%"), (200, "10% of tasks do"), (1_319, "5% of tasks pass every second time")])
def test_an_unchanged_workflow_is_hardly_ever_blocked(tasks, flakes):
    """
    Without a change at most 1.2 % of backtests confirm a regression, however many tasks are flaky (1.5 % in these 1,000).
    """
    assert simulate(passing(tasks, flakes), 1_000).blocked <= 1.5


def test_a_broken_task_is_caught_for_few_more_runs():
    """
    One of 50 tasks that falls from 95 to 5 % is confirmed in at least 86 % of backtests (in at most 90 % it passes on the baseline and fails on the candidate at first).
    """
    found = simulate(passing(50, "5%", 0.05), 4_000)

    assert 86 <= found.broken <= 90
    assert found.runs <= simulate(passing(50, "5%"), 1_000).runs + 25


@pytest.mark.parametrize(
    ("repeats", "suspects"),
    [
        ((3, 3, 0, 3), True),
        ((2, 3, 1, 3), True),
        ((1, 3, 0, 3), False),
        ((3, 3, 2, 3), False),
        ((1, 2, 0, 2), True),
        ((2, 2, 1, 2), False),
        ((0, 0, 0, 0), False),
    ],
)
def test_the_first_rule(repeats, suspects):
    """
    The candidate fails most of its repeats while the baseline passes at least half of its own.
    """
    assert Repeats(*repeats).suspects is suspects


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_the_second_is_fishers_exact_test(baseline, candidate, data):
    """
    The p-value is that of scipy.stats, whose import alone takes longer than a comparison.
    """
    passed = data.draw(st.integers(0, baseline)), data.draw(st.integers(0, candidate))
    reference = stats.fisher_exact([[passed[1], candidate - passed[1]], [passed[0], baseline - passed[0]]], alternative="less").pvalue

    assert Repeats(passed[0], baseline, passed[1], candidate).p == pytest.approx(reference)


def test_every_newly_failing_task_is_in_one_part():
    """
    Newly failing tasks are confirmed, noise, or not repeated.
    """
    first = {"broken": BAD, "flake": FLAKE, "half": BAD, "other": BAD}

    found = regressions(["broken", "flake", "half", "alone"], first, {"broken": SHOWN, "half": NOT_SHOWN})

    assert (("broken",), ("flake", "half"), ("alone",)) == found
    assert ("broken", "half") == suspected(["broken", "flake", "half", "alone"], first)


def test_more_suspected_tasks_want_more_repeats_and_stronger_evidence():
    """
    What confirms one task alone does not confirm it among ten; each is then repeated more often.
    """
    weak = Repeats(7, 8, 2, 8)
    tasks = [str(index) for index in range(10)]

    assert ("0",) == regressions(["0"], {"0": BAD}, {"0": weak}).confirmed
    assert () == regressions(tasks, dict.fromkeys(tasks, BAD), dict.fromkeys(tasks, weak)).confirmed
    assert repeats_again(1) < repeats_again(10) <= repeats_again(MOST_TESTED) <= 12


@pytest.mark.parametrize(("second", "confirmed", "open_"), [(SHOWN._replace(baseline_repeats=12, baseline_passed=12), 50, 0), (NOT_SHOWN, 0, 30)])
def test_of_very_many_the_others_follow_those_that_were_drawn(second, confirmed, open_):
    """
    Of 50 suspected tasks 20 are repeated again; if most of them are confirmed so are the others, or else these stay open.
    """
    tasks = [str(index) for index in range(50)]

    found = regressions(tasks, dict.fromkeys(tasks, BAD), dict.fromkeys(tasks[:MOST_TESTED], second))

    assert (confirmed, open_) == (len(found.confirmed), len(found.unrepeated))


def test_a_flaky_workflow_is_repeated_more_often():
    """
    Where the baseline fails every fifth run by chance, eight repeats confirm a broken task in 88 of 100 cases; sized by that, in 95.
    """
    assert (repeats_again(1), repeats_again(1, 0.05)) == (8, 8)
    assert 11 == repeats_again(1, 0.2)
    assert repeats_again(1, 0.2) < repeats_again(5, 0.2) < repeats_again(5, 0.3) <= 24
    assert [3, 3, 7, 9] == [first_repeats(flake) for flake in (0.0, 0.1, 0.2, 0.4)]
    chance = np.random.default_rng(4)
    for times, low, high in ((8, 0.84, 0.91), (11, 0.94, 0.99)):
        both = zip(chance.binomial(times, 0.8, 3_000), chance.binomial(times, 0.05, 3_000), strict=True)
        confirmed = np.mean([Repeats(int(before), times, int(after), times).p <= LEVEL for before, after in both])
        assert low <= confirmed <= high
