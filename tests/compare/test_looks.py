"""Looking often: intervals that hold at every look, and what is saved by stopping."""

import numpy as np
import pytest

from beam_ray.compare.comparison import compare
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.sequential import FIRST_LOOK, Confidence, interim_analyses
from beam_ray.compare.statistics import Quantity, paired_means
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
    """The share of simulated backtests in which some look's interval misses the truth."""
    chance, broken = np.random.default_rng(5), 0
    sure = Confidence(95, planned)
    for seed in range(backtests):
        differences = draw(chance, PLANNED)
        for tasks in (*interim_analyses(PLANNED), PLANNED):
            [mean] = paired_means([Quantity(np.zeros(tasks), differences[:tasks])], np.arange(tasks), seed=seed, draws=1_000)
            found = sure.interval(mean.after_drawn, mean.after, tasks, 100.0)
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
    assert interim_analyses(FIRST_LOOK) == ()
    assert interim_analyses(100)[0] == FIRST_LOOK
    assert all(after > before for before, after in zip(interim_analyses(5_000), interim_analyses(5_000)[1:], strict=False))
    assert interim_analyses(100_000)[-1] < 90_000
    assert len(interim_analyses(100_000)) <= 16


def test_a_single_look_is_what_it_always_was():
    """
    Without planned looks an interval and a p-value are those of the sample.
    """
    once = Confidence(95)

    assert once.boundary(50) == pytest.approx(1.959964)
    assert once.p(0.03, 50) == 0.03
    assert Confidence(95, 200).p(0.03, 50) > 0.05


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
