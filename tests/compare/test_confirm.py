"""Regressions are distinguished from flaky tasks: both guarantees of the gate, simulated."""

import numpy as np
import pytest

from beam_ray.compare.regressions import DEFAULT_REPEATS, Repeats, regressions

FLAKE = 0.05
TASKS = 50


def _backtest(chance, repeats, broken=None):
    """One simulated backtest in which every trial of a sound task flakes; *broken* is how a broken task passes."""
    passes = np.full((2, TASKS), 1 - FLAKE)
    if broken is not None:
        passes[1, 0] = broken
    first = chance.random((2, TASKS)) < passes
    if broken is not None:
        first[0, 0] = True  # a regression is a task that passed
    newly_failing = [str(index) for index in np.flatnonzero(first[0] & ~first[1])]
    again = chance.binomial(repeats, passes)
    return newly_failing, {task: (int(again[0, int(task)]), repeats, int(again[1, int(task)]), repeats) for task in newly_failing}


@pytest.mark.parametrize("repeats", [2, DEFAULT_REPEATS, 5])
def test_an_unchanged_workflow_is_rarely_blocked(repeats):
    """
    With 5 % flakes over 50 tasks and no change, at most 5 % of 1,000 backtests confirm a regression; unconfirmed, most would.
    """
    chance = np.random.default_rng(11)
    simulated = [_backtest(chance, repeats) for _ in range(1_000)]

    assert sum(bool(regressions(*one).confirmed) for one in simulated) <= 50
    assert sum(bool(newly_failing) for newly_failing, _ in simulated) >= 850


@pytest.mark.parametrize("broken", [0.0, FLAKE])
def test_a_broken_task_is_caught(broken):
    """
    A task that passed and is now broken is confirmed in at least 95 % of 1,000 backtests, even when it passes by luck at times.
    """
    chance = np.random.default_rng(12)
    caught = total = 0
    for _ in range(1_000):
        newly_failing, repeats = _backtest(chance, DEFAULT_REPEATS, broken)
        if "0" in newly_failing:
            total += 1
            caught += "0" in regressions(newly_failing, repeats).confirmed

    assert caught >= 0.95 * total
    assert total >= 900


@pytest.mark.parametrize(
    ("repeats", "confirms"),
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
def test_the_rule(repeats, confirms):
    """
    The candidate fails most of its repeats while the baseline passes at least half of its own.
    """
    assert Repeats(*repeats).confirms is confirms


def test_every_newly_failing_task_is_in_one_part():
    """
    Newly failing tasks are confirmed, noise, or not repeated.
    """
    found = regressions(["broken", "flake", "alone"], {"broken": (3, 3, 0, 3), "flake": (3, 3, 3, 3), "other": (3, 3, 0, 3)})

    assert (("broken",), ("flake",), ("alone",)) == found
