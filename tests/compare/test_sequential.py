"""Interim analyses: intervals that hold at all of them, their power, and what is saved by stopping."""

import numpy as np
import pytest

from beam_ray.compare.comparison import compare
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.gate_file import default_gate
from beam_ray.compare.intervals import change, sample
from beam_ray.compare.sequential import FIRST_ANALYSIS, Confidence, interim_analyses
from beam_ray.compare.statistics import Quantity
from beam_ray.compare.verdict import settled
from tests.compare.sides import scored

PLANNED = 200


def flips(chance, tasks):
    """One task in twenty gets better and one in twenty worse: no change on average."""
    return 100.0 * (chance.random(tasks) < 0.05) - 100.0 * (chance.random(tasks) < 0.05)


def rare(chance, tasks):
    """One task in ten gets better: 10 points on average."""
    return 100.0 * (chance.random(tasks) < 0.1)


def even(chance, tasks):
    """Scores that scatter evenly around no change."""
    return chance.normal(0, 25, tasks)


def ever_broken(draw, truth, planned, backtests=300):
    """The share of simulated backtests in which some analysis's interval misses the truth."""
    chance, broken = np.random.default_rng(5), 0
    for _ in range(backtests):
        differences = draw(chance, PLANNED)
        # scores from 0 to 100 that differ by so much
        sides = np.maximum(-differences, 0), np.maximum(differences, 0)
        for tasks in (*interim_analyses(PLANNED), PLANNED):
            found = change(sample(Quantity(sides[0][:tasks], sides[1][:tasks]), np.arange(tasks), largest=100), Confidence(95, planned, tasks))
            if not found.low <= truth <= found.high:
                broken += 1
                break
    return broken / backtests


@pytest.mark.parametrize(("draw", "truth"), [(flips, 0), (rare, 10), (even, 0)])
def test_an_interval_that_holds_at_every_look_is_seldom_broken(draw, truth):
    """
    In at most 5 of 100 simulated backtests without an effect beyond the truth does any look show one.
    """
    assert ever_broken(draw, truth, PLANNED) <= 0.05


def test_an_interval_of_one_look_is_often_broken_by_looking_often():
    """
    This is what the wider intervals are for: the same looks, each taken by itself, mislead in more than 12 of 100.
    """
    assert ever_broken(even, 0, 0) > 0.12


def test_looks_begin_when_there_is_something_to_see_and_grow():
    """
    None below the first look's size or beside the last task; few enough that waiting at each costs little.
    """
    assert interim_analyses(FIRST_ANALYSIS) == ()
    assert interim_analyses(100)[0] == FIRST_ANALYSIS
    assert all(after > before for before, after in zip(interim_analyses(5_000), interim_analyses(5_000)[1:], strict=False))
    assert interim_analyses(100_000)[-1] < 90_000
    assert len(interim_analyses(100_000)) <= 16


def test_a_single_analysis_is_what_it_always_was():
    """
    Without planned analyses an interval and a p-value are those of the sample.
    """
    once = Confidence(95)

    assert once.boundary(50) == pytest.approx(1.959964)
    assert once.p(0.03) == 0.03
    assert Confidence(95, FIRST_ANALYSIS, FIRST_ANALYSIS).boundary(FIRST_ANALYSIS) == pytest.approx(1.959964)


@pytest.mark.parametrize("planned", [100, 400, 5_000])
def test_the_boundary_is_crossed_by_chance_in_5_of_100_backtests(planned):
    """
    Of 40,000 random walks 5% are ever beyond it; the p-value of the analysis at which one just is, is 5%.
    """
    analyses = np.array([*interim_analyses(planned), planned]) / planned
    steps = np.random.default_rng(1).normal(size=(40_000, len(analyses))) * np.sqrt(np.diff(analyses, prepend=0))
    reached = np.abs(np.cumsum(steps, axis=1)) / np.sqrt(analyses)
    bounds = [Confidence(95, planned).boundary(tasks) for tasks in (*interim_analyses(planned), planned)]

    assert (reached > bounds).any(axis=1).mean() == pytest.approx(0.05, abs=0.004)
    for tasks in (interim_analyses(planned)[-1], planned):
        at = Confidence(95, planned, tasks)
        assert at.p(2 * at.tail) == pytest.approx(0.05, abs=1e-6)


def test_planned_analyses_keep_most_of_the_power():
    """
    An effect that a fixed number of tasks finds in 80 of 100 backtests is found in at least 73, with at most 8 of 10 tasks.
    """
    planned, chance = 400, np.random.default_rng(2)
    analyses = (*interim_analyses(planned), planned)
    quantiles = {tasks: Confidence(95, planned, tasks).quantile(tasks) for tasks in analyses}
    found, used = 0, []
    for _ in range(1_500):
        values = chance.normal(2.8 / np.sqrt(planned), 1, planned)
        ended = next((tasks for tasks in analyses if values[:tasks].mean() > quantiles[tasks] * values[:tasks].std(ddof=1) / np.sqrt(tasks)), None)
        found += ended is not None
        used.append(ended or planned)

    assert found / 1_500 >= 0.73
    assert np.mean(used) <= 0.8 * planned


SCORE = Gate(name="g", limits=(Limit(rule="score", kind="up_by", amount=10), Limit(rule="regressions", kind="at_most", amount=0)))


def backtest(before, after, gate=SCORE, planned=400):
    """Where a simulated backtest ends, and with which word."""
    for tasks in interim_analyses(planned):
        found = compare(scored("a", before[:tasks]), scored("b", after[:tasks]), planned=planned)
        word = settled(found, gate)
        if word:
            return tasks, word
    return planned, None


@pytest.mark.parametrize(("gains", "word"), [(0.45, "PASS"), (0.0, "BLOCK")])
def test_clear_effects_need_at_least_30_percent_fewer_tasks(gains, word):
    """
    A gain of 45 points, or none where 10 are asked for, is settled long before the last of 400 tasks.
    """
    chance, ended = np.random.default_rng(3), []
    for _ in range(12):
        before = chance.random(400) < 0.5
        after = before | (chance.random(400) < 2 * gains)
        tasks, found = backtest(list(100.0 * before), list(100.0 * after))
        assert found == word
        ended.append(tasks)

    assert np.mean(ended) <= 0.7 * 400


def test_a_gate_of_counts_alone_settles_nothing_early():
    """
    That no regression was seen says nothing about the tasks that were not.
    """
    counts = Gate(name="g", limits=(Limit(rule="regressions", kind="at_most", amount=0),))

    assert backtest([100.0] * 100, [100.0] * 100, counts, planned=100) == (100, None)


@pytest.mark.parametrize(("before", "after", "word"), [(0.6, 0.95, "PASS"), (0.95, 0.6, "BLOCK"), (0.95, 0.95, None)])
def test_the_default_gate_settles_clear_gains_and_losses(before, after, word):
    """
    Of 400 planned tasks the first hundred settle a large gain or loss under the gate no-harm, and leave an unchanged workflow open.
    """
    chance = np.random.default_rng(9)
    sides = [(100.0 * (chance.random(100) < share)).tolist() for share in (before, after)]
    found = compare(scored("a", sides[0]), scored("b", sides[1]), planned=400)

    assert word == settled(found, default_gate())
