"""How long the tasks of two definitions take: the same tasks where there are enough of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from beam_ray.compare.formatting import plural
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Quantity, paired_means
from beam_ray.improve.executions import Executions, Task


@dataclass(frozen=True)
class Pace:
    """The mean execution time per task, before and after."""

    before: float
    """Seconds."""
    after: float
    percent: float | None
    """The change in percent of *before*; None when that is 0."""
    interval: Interval | None
    """Of the change in percent; only of the same tasks."""
    paired: bool
    """Whether both sides are the same tasks."""
    tasks: int
    tasks_before: int
    slowest: tuple[Task, ...]
    """The executions after, those that lost most time first; where the tasks are others, those that took longest."""


def pace(before: Executions, after: Executions, least: int) -> Pace | str:
    """
    The times of the tasks that both sides executed, or of all where fewer than *least* are common; in words why there are none.

    A task counts once, with the mean of its executions; one that a model left without an answer does not count.
    """
    old, new = _by_task(before), _by_task(after)
    common = [key for key in new if key in old]
    paired = len(common) >= least
    if not paired and min(len(old), len(new)) < least:
        return f"too few tasks: {plural(len(old), 'task')} before, {len(new):,} now, {least:,} are needed"
    sides = [[_mean(times[key]) for key in (common if paired else times)] for times in (old, new)]
    was, now = map(_mean, sides)
    lost = {key: _mean(new[key]) - (_mean(old[key]) if paired else 0.0) for key in (common if paired else new)}
    slowest = sorted((task for task in after.tasks if task.key in lost and not task.away), key=lambda task: -lost[task.key])
    percent = 100 * (now - was) / was if was else None
    return Pace(was, now, percent, _interval(*sides) if paired and was else None, paired, len(sides[1]), len(sides[0]), tuple(slowest))


def _by_task(side: Executions) -> Mapping[tuple[str, str], list[float]]:
    times: dict[tuple[str, str], list[float]] = {}
    for task in side.tasks:
        if not task.away:
            times.setdefault(task.key, []).append(task.seconds)
    return times


def _interval(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    [mean] = paired_means([Quantity(np.array(before, dtype=np.float64), np.array(after, dtype=np.float64))], np.arange(len(before)))
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = 100 * (mean.after_drawn / mean.before_drawn - 1)
    return Confidence().interval(drawn, 100 * (mean.after / mean.before - 1), mean.tasks)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
