"""Interim analyses: how often some interval is broken, and what an effect of known size takes to be found."""

import numpy as np

from beam_ray.compare.intervals import change, sample
from beam_ray.compare.sequential import Confidence, interim_analyses
from beam_ray.compare.statistics import Quantity
from benchmarks.coverage.scenarios import Draw, Sides, flaky, flips, lognormal, three_valued, trials

EFFECTS = (0.0, 2.8, 4.0, 6.0, 9.0)
"""In standard errors of all planned tasks; 2.8 is found with 80% power by a fixed number of tasks."""


def normal(chance: np.random.Generator, tasks: int) -> Sides:
    """Scores that scatter evenly around no change."""
    before = chance.normal(50, 10, tasks)
    return before, before + chance.normal(0, 10, tasks)


BROKEN: dict[str, tuple[Draw, float | None]] = {
    "0/100, A/A at 95": (flaky, 100.0),
    "0/100, 10% better": (flips(0.0, 0.1, 0.9), 100.0),
    "0/100, 98 → 96, none better": (flips(0.02, 0.0, 0.98), 100.0),
    "0/50/100": (three_valued, 100.0),
    "normal scores": (normal, 100.0),
    "3 trials": (trials, 100.0),
    "lognormal cost, -20%": (lognormal(0.8, 0.6), None),
}


def ever_broken(draw: Draw, largest: float | None, planned: int, repetitions: int, seed: int = 1) -> float:
    """The percent of backtests in which the interval of some analysis leaves out the true change."""
    chance = np.random.default_rng(seed)
    whole = draw(chance, 1_000_000)
    truth, broken = float(whole[1].mean() - whole[0].mean()), 0
    for _ in range(repetitions):
        sides = draw(chance, planned)
        width = sides[0].shape[1] if sides[0].ndim > 1 else 1
        for tasks in (*interim_analyses(planned), planned):
            quantity = Quantity(sides[0][:tasks].ravel(), sides[1][:tasks].ravel())
            found = change(sample(quantity, np.repeat(np.arange(tasks), width), largest=largest), Confidence(95, planned, tasks))
            if found and not found.low <= truth <= found.high:
                broken += 1
                break
    return 100 * broken / repetitions


def power(effect: float, planned: int, repetitions: int, seed: int = 1) -> tuple[float, float, float]:
    """Percent of backtests that find the effect with all tasks at once, percent that find it at some analysis, and percent of the tasks used."""
    chance, fixed, found, used = np.random.default_rng(seed), 0, 0, 0
    for _ in range(repetitions):
        values = chance.normal(50 + effect * 10 / np.sqrt(planned), 10, planned)
        for tasks in (*interim_analyses(planned), planned):
            sides = Quantity(np.full(tasks, 50.0), values[:tasks])
            interval = change(sample(sides, np.arange(tasks), largest=100), Confidence(95, planned, tasks))
            if interval and interval.low > 0:
                found += 1
                break
        used += tasks
        once = change(sample(Quantity(np.full(planned, 50.0), values), np.arange(planned), largest=100), Confidence())
        fixed += bool(once and once.low > 0)
    return 100 * fixed / repetitions, 100 * found / repetitions, 100 * used / repetitions / planned


def table(repetitions: int) -> str:
    """The tables of docs/statistics.md."""
    lines = ["| ever broken, % | 100 planned | 400 planned |", "|---|--:|--:|"]
    for title, (draw, largest) in BROKEN.items():
        cells = [f"{ever_broken(draw, largest, planned, repetitions):.1f}" for planned in (100, 400)]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    lines += ["", "| true effect, standard errors | found with all 400 tasks, % | found early or late, % | tasks used, % |", "|--:|--:|--:|--:|"]
    for effect in EFFECTS:
        lines.append(f"| {effect:g} | {' | '.join(f'{number:.0f}' for number in power(effect, 400, repetitions))} |")
    return "\n".join(lines)
