"""Pairs of scores as backtests have them, drawn at random, with what is true of all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]
Sides = tuple[Numbers, Numbers]
Draw = Callable[[np.random.Generator, int], Sides]
"""Both sides of so many tasks; a row per task and, of several trials, a column per trial."""


@dataclass(frozen=True)
class Scenario:
    """One kind of tasks."""

    title: str
    draw: Draw
    largest: float | None = 100.0
    """The largest value that there can be."""


def flips(worse: float, better: float, passing: float) -> Draw:
    """Pass or fail: the share *passing* before, and how many go each way."""

    def draw(chance: np.random.Generator, tasks: int) -> Sides:
        at = chance.random(tasks)
        before = at < passing
        after = (before & (at >= worse)) | ((at >= passing) & (at < passing + better))
        return 100.0 * before, 100.0 * after

    return draw


def flaky(chance: np.random.Generator, tasks: int) -> Sides:
    """Nothing changed: nine tasks of ten pass in 98% of runs, one in 70%."""
    passing = np.where(chance.random(tasks) < 0.9, 0.98, 0.7)
    return 100.0 * (chance.random(tasks) < passing), 100.0 * (chance.random(tasks) < passing)


def three_valued(chance: np.random.Generator, tasks: int) -> Sides:
    """0, 50 or 100; a quarter a step better, one in twenty a step worse."""
    before = chance.choice([0.0, 50.0, 100.0], p=[0.2, 0.3, 0.5], size=tasks)
    moved = 50.0 * (chance.random(tasks) < 0.25) - 50.0 * (chance.random(tasks) < 0.05)
    return before, np.clip(before + moved, 0, 100)


def mostly_perfect(chance: np.random.Generator, tasks: int) -> Sides:
    """Nothing changed: 95% of the scores are 100, the rest anything."""
    before, after = (np.where(chance.random(tasks) < 0.95, 100.0, 100 * chance.random(tasks)) for _ in range(2))
    return before, after


def few_small(chance: np.random.Generator, tasks: int) -> Sides:
    """Scores of 100 but for one in ten, which has 90 before, and 80 or 90 after."""
    before = np.where(chance.random(tasks) < 0.1, 90.0, 100.0)
    return before, np.where(chance.random(tasks) < 0.1, chance.choice([80.0, 90.0], size=tasks), 100.0)


def correlated(chance: np.random.Generator, tasks: int) -> Sides:
    """Normal scores, correlated 0.8, cut off at 100."""
    first = chance.normal(size=tasks)
    second = 0.8 * first + 0.6 * chance.normal(size=tasks)
    return np.clip(75 + 20 * first, 0, 100), np.clip(80 + 20 * second, 0, 100)


def skewed(chance: np.random.Generator, tasks: int) -> Sides:
    """Exponential losses from 100, twice as large after."""
    return np.maximum(100 - chance.exponential(8, tasks), 0), np.maximum(100 - chance.exponential(16, tasks), 0)


def rare_break(chance: np.random.Generator, tasks: int) -> Sides:
    """Scores that scatter by 5 points, and 3% that fall to 0."""
    before = np.clip(80 + 10 * chance.normal(size=tasks), 0, 100)
    after = np.clip(before + 5 * chance.normal(size=tasks), 0, 100)
    return before, np.where(chance.random(tasks) < 0.03, 0.0, after)


def lognormal(factor: float, alike: float) -> Draw:
    """Cost or time: lognormal (sigma 0.8), *factor* times as much after."""

    def draw(chance: np.random.Generator, tasks: int) -> Sides:
        first = chance.normal(size=tasks)
        second = alike * first + np.sqrt(1 - alike**2) * chance.normal(size=tasks)
        return np.exp(0.8 * first), factor * np.exp(0.8 * second)

    return draw


def trials(chance: np.random.Generator, tasks: int) -> Sides:
    """Three trials of tasks that pass more or less often; five points better."""
    passing = chance.beta(4, 1, tasks)[:, None]
    return 100.0 * (chance.random((tasks, 3)) < passing), 100.0 * (chance.random((tasks, 3)) < np.minimum(passing + 0.05, 1))


def breaking_trials(chance: np.random.Generator, tasks: int) -> Sides:
    """Three trials with 3% flakes; 3% of the tasks break."""
    broken = (chance.random(tasks) < 0.03)[:, None]
    return 100.0 * (chance.random((tasks, 3)) < 0.97), 100.0 * (chance.random((tasks, 3)) < np.where(broken, 0.03, 0.97))


SCENARIOS: Mapping[str, Scenario] = {
    "improved": Scenario("0/100: 78 → 93 (+16, -1)", flips(0.01, 0.16, 0.78)),
    "rare_loss": Scenario("0/100: 98 → 96, none better", flips(0.02, 0.0, 0.98)),
    "flaky": Scenario("0/100: A/A at 95, flaky", flaky),
    "three": Scenario("0/50/100", three_valued),
    "perfect": Scenario("95% at 100, the rest spread", mostly_perfect),
    "few_small": Scenario("100 or little less", few_small),
    "correlated": Scenario("normal, correlated 0.8, cut at 100", correlated),
    "skewed": Scenario("exponential losses", skewed),
    "trials": Scenario("3 trials, tasks differ", trials),
    "breaking": Scenario("3 trials, 3% of tasks break", breaking_trials),
    "lognormal": Scenario("lognormal cost or time, -20%", lognormal(0.8, 0.6), None),
    "costlier": Scenario("lognormal, uncorrelated, tripled", lognormal(3.0, 0.3), None),
    "rare_break": Scenario("scattering scores, 3% fall to 0", rare_break),
}
