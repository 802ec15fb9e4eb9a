"""How far the change of a slice is from the truth, as found and partially pooled."""

import numpy as np

from beam_ray.compare.intervals import change, sample
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Quantity
from beam_ray.compare.subgroups import partially_pooled

SPREADS = (0.0, 0.05, 0.1, 0.2)
"""Standard deviation of the true change between slices, as a share of tasks."""
SIZES = ((6, 10), (6, 30), (20, 10), (20, 30), (20, 100))
"""Slices, and tasks of each."""


def errors(slices: int, tasks: int, spread: float, repetitions: int, seed: int = 1) -> tuple[float, float]:
    """The root mean square error of the changes of slices in points, as found and pooled: 75% pass, and 8 points more on average."""
    chance = np.random.default_rng(seed)
    found, pooled = [], []
    for _ in range(repetitions):
        truth = np.clip(chance.normal(0.08, spread, slices), -0.6, 0.2)
        values, widths = [], []
        for each in truth:
            before = chance.random(tasks) < 0.75
            flipped = chance.random(tasks)
            # one in twenty flips each way, and as many more one way as make the change
            after = np.where(before, flipped >= (0.05 + max(-each, 0)) / 0.75, flipped < (0.05 + max(each, 0)) / 0.25)
            sampled = sample(Quantity(before.astype(float), after.astype(float)), np.arange(tasks), largest=1.0)
            interval = change(sampled, Confidence())
            assert interval
            values.append(sampled.means[1] - sampled.means[0])
            widths.append((interval.high - interval.low) / 2 / Confidence().quantile(tasks))
        drawn = partially_pooled(np.array(values), np.array(widths))
        found.append((np.array(values) - truth) ** 2)
        pooled.append((drawn - truth) ** 2)
    return tuple(100 * float(np.sqrt(np.mean(each))) for each in (found, pooled))  # type: ignore[return-value]


def table(repetitions: int) -> str:
    """The table of docs/statistics.md: root mean square error in points, as found → pooled."""
    header = " | ".join(f"{slices} slices of {tasks}" for slices, tasks in SIZES)
    lines = [f"| slices truly differ by | {header} |", f"|---|{'--:|' * len(SIZES)}"]
    for spread in SPREADS:
        cells = [errors(slices, tasks, spread, max(repetitions // 10, 1)) for slices, tasks in SIZES]
        lines.append(f"| {100 * spread:g} points | {' | '.join(f'{raw:.1f} → {pooled:.1f}' for raw, pooled in cells)} |")
    return "\n".join(lines)
