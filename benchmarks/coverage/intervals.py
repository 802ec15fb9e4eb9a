"""The share of samples whose 95% interval holds what is true of all tasks."""

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from beam_ray.compare import intervals
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Quantity
from benchmarks.coverage.scenarios import SCENARIOS, Scenario, Sides

SIZES = (5, 8, 10, 20, 30, 50, 200, 1_000)
KINDS = ("change", "relative", "failing", "level", "sd", "median", "p95")
ONCE = Confidence()


class Truth(NamedTuple):
    """What is true of all tasks, by the kind of interval."""

    change: float
    relative: float
    failing: float
    level: float
    sd: float
    median: float
    p95: float


def coverage(scenario: Scenario, kinds: tuple[str, ...], repetitions: int, seed: int = 1) -> Iterator[tuple[str, int, float | None, float]]:
    """For each kind and size the percent of samples that hold the truth, and how wide the interval is on average; None where most samples have none."""
    chance = np.random.default_rng(seed)
    truth = _truth(_sides(scenario.draw(chance, 1_000_000)))
    for tasks in SIZES:
        held: dict[str, list[tuple[bool, float]]] = {kind: [] for kind in kinds}
        count = repetitions if tasks < 1_000 else max(repetitions // 2, 1)
        for _ in range(count):
            sides = scenario.draw(chance, tasks)
            for kind in kinds:
                found = _interval(scenario, kind, sides)
                if found:
                    held[kind].append((found.low - 1e-9 <= getattr(truth, kind) <= found.high + 1e-9, found.high - found.low))
        for kind, rows in held.items():
            known = len(rows) > count / 2
            yield kind, tasks, 100 * float(np.mean([one for one, _ in rows])) if known else None, float(np.mean([width for _, width in rows])) if known else 0.0


def _interval(scenario: Scenario, kind: str, sides: Sides) -> Interval | None:
    trials = sides[0].shape[1] if sides[0].ndim > 1 else 1
    task = np.repeat(np.arange(len(sides[0])), trials)
    quantity = Quantity(sides[0].ravel(), sides[1].ravel())
    if kind in ("median", "p95"):
        return intervals.quantiles(quantity, task, 50 if kind == "median" else 95, ONCE).change
    sampled = intervals.sample(quantity, task, largest=scenario.largest)
    if kind == "change":
        return intervals.change(sampled, ONCE)
    if kind == "relative":
        return intervals.relative(sampled, ONCE)
    if kind == "failing":
        return intervals.relative(replace(sampled, before=100 - sampled.before, after=100 - sampled.after), ONCE)
    if kind == "level":
        return intervals.level(sampled.after, ONCE, largest=scenario.largest)
    return intervals.deviations(quantity, task, sampled, ONCE).change


def _sides(drawn: Sides) -> Sides:
    return drawn[0].ravel(), drawn[1].ravel()


def _truth(sides: Sides) -> Truth:
    before, after = sides
    means, deviations = (before.mean(), after.mean()), (before.std(), after.std())
    quantiles = [np.percentile(after, percent) - np.percentile(before, percent) for percent in (50, 95)]
    failing = 100 * ((100 - means[1]) / (100 - means[0]) - 1)
    return Truth(means[1] - means[0], 100 * (means[1] / means[0] - 1), failing, means[1], deviations[1] - deviations[0], *map(float, quantiles))


def table(repetitions: int) -> str:
    """The table of docs/statistics.md."""
    lines = [f"| | {' | '.join(f'{size:,}' for size in SIZES)} |", f"|---|{'--:|' * len(SIZES)}"]
    for name, scenario in SCENARIOS.items():
        bounded = scenario.largest is not None
        binary = name in ("improved", "rare_loss", "flaky")
        kinds = ["change", "relative", *(["failing"] if binary else []), "level", *(["sd"] if bounded else ["median", "p95"])]
        cells: dict[str, list[str]] = {kind: [] for kind in kinds}
        for kind, _, percent, _ in coverage(scenario, tuple(kinds), repetitions):
            cells[kind].append("–" if percent is None else f"{percent:.1f}")
        lines += [f"| {scenario.title}: {kind} | {' | '.join(row)} |" for kind, row in cells.items()]
    return "\n".join(lines)
