"""Compare the execution times of two definitions, on the same tasks where there are enough of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from beam_ray.compare.formatting import plural
from beam_ray.compare.intervals import relative, sample
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Quantity
from beam_ray.improve.executions import Executions, TaskExecution


@dataclass(frozen=True)
class DurationChange:
    """The mean execution time per task, before and after."""

    before: float
    """Seconds."""
    after: float
    percent: float | None
    """The change in percent of *before*; None when that is 0."""
    interval: Interval | None
    """Confidence interval of the change in percent; None unless both sides ran the same tasks."""
    paired: bool
    """Whether both sides ran the same tasks."""
    tasks: int
    tasks_before: int
    slowest: tuple[TaskExecution, ...]
    """The later executions, largest slowdown first; where the tasks differ, longest first."""


def duration_change(before: Executions, after: Executions, least: int) -> DurationChange | str:
    """
    Compare the tasks that both sides executed, or all tasks where fewer than *least* are common; otherwise the reason why not.

    A task counts once, with the mean duration of its executions. Tasks for which a model did not answer are left out.
    """
    old, new = _by_task(before), _by_task(after)
    common = [key for key in new if key in old]
    paired = len(common) >= least
    if not paired and min(len(old), len(new)) < least:
        return f"too few tasks: {plural(len(old), 'task')} before, {len(new):,} after; at least {least:,} are needed"
    sides = [[_mean(times[key]) for key in (common if paired else times)] for times in (old, new)]
    was, now = map(_mean, sides)
    lost = {key: _mean(new[key]) - (_mean(old[key]) if paired else 0.0) for key in (common if paired else new)}
    slowest = sorted((task for task in after.tasks if task.key in lost and not task.model_unavailable), key=lambda task: -lost[task.key])
    percent = 100 * (now - was) / was if was else None
    return DurationChange(was, now, percent, _interval(*sides) if paired and was else None, paired, len(sides[1]), len(sides[0]), tuple(slowest))


def _by_task(side: Executions) -> Mapping[tuple[str, str], list[float]]:
    times: dict[tuple[str, str], list[float]] = {}
    for task in side.tasks:
        if not task.model_unavailable:
            times.setdefault(task.key, []).append(task.seconds)
    return times


def _interval(before: Sequence[float], after: Sequence[float]) -> Interval | None:
    sides = Quantity(np.array(before, dtype=np.float64), np.array(after, dtype=np.float64))
    return relative(sample(sides, np.arange(len(before))), Confidence())


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
