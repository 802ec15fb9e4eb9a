"""How many tasks show a change: each number held against what happens in simulated backtests."""

from functools import cache

import numpy as np
import pytest
from scipy import stats

from beam_ray.compare.intervals import change, sample
from beam_ray.compare.power import change_deviation, detectable_by, planning, score_deviation, tasks_to_detect
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Quantity


@pytest.mark.parametrize(("flips", "tasks"), [(0.05, 429), (0.10, 865), (0.20, 1737)])
def test_tasks_for_three_points(flips, tasks):
    """
    The numbers to remember: 430, 865 and 1,740 tasks where 5, 10 or 20 % of them flip.
    """
    assert tasks == tasks_to_detect(change_deviation(flips, None, 3), 3)


@pytest.mark.parametrize(("flips", "points"), [(0.1, 3), (0.2, 5), (0.15, 5)])
def test_so_many_tasks_detect_the_change_in_80_of_100_backtests(flips, points):
    """
    A rate that truly rises by so much, with so many tasks flipping, is shown by a paired test with 80% power.
    """
    tasks = tasks_to_detect(change_deviation(flips, None, points), points)
    gained = (flips + points / 100) / 2
    counts = np.random.default_rng(2).multinomial(tasks, [gained, flips - gained, 1 - flips], 20_000)
    change = (counts[:, 0] - counts[:, 1]) / tasks
    error = np.sqrt(((counts[:, 0] + counts[:, 1]) / tasks - change**2) / (tasks - 1))

    assert (change / error > 1.96).mean() == pytest.approx(0.8, abs=0.03)


def test_trials_average_out_the_noise():
    """
    Where all flips are noise, three trials need a third of the tasks; where none are, they change nothing.
    """
    alone, repeated = (change_deviation(0.2, 0.2, 2, trials) for trials in (1, 3))

    assert repeated**2 == pytest.approx(alone**2 / 3, rel=0.02)
    assert change_deviation(0.2, None, 2, 3) == change_deviation(0.2, 0.0, 2, 3) == alone
    assert score_deviation(30, 30, 9) == pytest.approx(10)
    assert score_deviation(30, None, 9) == pytest.approx(30)


def test_a_change_flips_as_many_tasks_as_it_is_large():
    """
    Of a workflow in which nothing ever flipped, a change of ten points flips ten of 100 tasks all the same.
    """
    assert change_deviation(0.0, None, 10) == pytest.approx(100 * np.sqrt(0.1 - 0.01))


@pytest.mark.parametrize("tasks", [20, 60, 400])
def test_a_detectable_change_is_detected_with_80_percent_power(tasks):
    """
    A mean that truly changes by the detectable amount is found in four of five t-tests.
    """
    effect = detectable_by(20.0, tasks)
    drawn = np.random.default_rng(3).normal(effect, 20.0, (20_000, tasks))

    assert (stats.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean() == pytest.approx(0.8, abs=0.02)


def test_one_task_detects_nothing():
    """
    Below two tasks there is no scatter to hold a change against.
    """
    assert detectable_by(20.0, 1) is None


@pytest.mark.parametrize(("found", "flips"), [(30, 0), (50, 0), (50, 1)])
def test_planned_tasks_exclude_a_loss_in_four_of_five_backtests(found, flips):
    """
    After so few flips the truth may be more than was found (beta, half a flip before any data): over all it may be, as many tasks as
    the line names exclude a loss of 5 points in 75 to 87 of 100 backtests, where the change found is none.
    """
    planned = planning(np.repeat([1.0, -1.0, 0.0], [flips, flips, found - 2 * flips]), 1.0).tasks(0.0, -0.05, 1.98)
    chance = np.random.default_rng(2)
    rates = chance.beta(2 * flips + 0.5, found - 2 * flips + 0.5, 2_000)

    @cache
    def excluded(better, worse):
        change_ = np.repeat([1.0, -1.0, 0.0], [better, worse, round(planned) - better - worse])
        before = np.where(change_ < 0, 1.0, 0.0)
        ends = change(sample(Quantity(before, before + change_), np.arange(len(change_)), largest=1.0), Confidence())
        return ends.low > -0.05

    flipped = chance.binomial(round(planned), rates)
    better = chance.binomial(flipped, 0.5)
    share = np.mean([excluded(int(one), int(both - one)) for one, both in zip(better, flipped, strict=True)])

    assert 0.75 <= share <= 0.87
