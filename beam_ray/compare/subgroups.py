"""
Slices of the tasks, such as those of one country: their metrics, as found and partially pooled.

Among many slices the extreme ones are extreme by chance too. A pooled change is the slice's own,
drawn to the mean of all slices by as much as its noise explains their spread (empirical Bayes,
the variance between slices after Paule and Mandel 1982). Words are corrected by Holm's method
over all slices. docs/statistics.md says how much nearer pooled changes are to the truth.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beam_ray.compare.breakdown import FEWEST_TASKS
from beam_ray.compare.gate import SLICED
from beam_ray.compare.grouping import Dimension
from beam_ray.compare.intervals import change, level, p_of_change, relative, sample, standard_error
from beam_ray.compare.metric_definitions import KINDS
from beam_ray.compare.metrics import Metric, rounded, rounded_interval
from beam_ray.compare.pairs import Pairs
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Quantity, holm

MEASURED = SLICED
POOLED = ("success_rate", "score")
MOST_SLICES = 40
"""Values of one field; the commonest are shown."""
WITHOUT = "(none)"
"""The value of tasks that have none; another word where tasks have this very text."""
NO_VALUE = "(no value)"
Codes = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class SubgroupMetric:
    """One number of one slice."""

    name: str
    """Of the metric itself, such as ``score``."""
    metric: Metric
    """Under the name that gates use: ``score[variables.country=DE]``."""
    pooled: float | None
    """The change, partially pooled; None where it is not pooled."""
    p: float
    p_adjusted: float
    """Holm's, over all slices that have an interval and all candidates."""


@dataclass(frozen=True)
class Subgroup:
    """The tasks that have one value of a field."""

    field: str
    value: str
    tasks: int
    metrics: tuple[SubgroupMetric, ...]

    def metric(self, name: str) -> SubgroupMetric:
        """The metric of that name."""
        return next(entry for entry in self.metrics if entry.name == name)

    @property
    def title(self) -> str:
        """Field and value."""
        return f"{self.field}={self.value}"


@dataclass(frozen=True)
class Subgroups:
    """All slices by one field."""

    field: str
    members: tuple[Subgroup, ...]
    left_out: int
    """Values beyond those shown."""


def subgroups(
    dimensions: Sequence[Dimension], pairs: Pairs, named: Mapping[str, Quantity], unit: Codes, *, confidence: Confidence, family: int = 1
) -> tuple[Subgroups, ...]:
    """The slices of each dimension, the largest first; *unit* is each pair's task, or the cluster of its task."""
    found = [_sliced(dimension, pairs, named, unit, confidence) for dimension in dimensions]
    return _adjusted(found, family)


def _sliced(dimension: Dimension, pairs: Pairs, named: Mapping[str, Quantity], unit: Codes, confidence: Confidence) -> Subgroups:
    given = [dimension.of.get(task, ()) for task in pairs.task_ids]
    if not any(given):
        return Subgroups(dimension.field, (), 0)
    without = NO_VALUE if any(WITHOUT in values for values in given) else WITHOUT
    held = [values or (without,) for values in given]
    sizes = Counter(value for values in held for value in values)
    chosen = sorted(sizes, key=lambda value: (-sizes[value], value))[:MOST_SLICES]
    members, errors = [], []
    for value in chosen:
        mine = np.array([value in values for values in held], dtype=bool)[pairs.task]
        title = f"{dimension.field}={value}"
        measured = {name: _measured(name, title, named[name], mine, unit, confidence) for name in MEASURED}
        members.append(Subgroup(dimension.field, value, sizes[value], tuple(metric for metric, _ in measured.values())))
        errors.append({name: error for name, (_, error) in measured.items()})
    return _pooled(Subgroups(dimension.field, tuple(members), len(sizes) - len(chosen)), errors)


def _measured(name: str, title: str, quantity: Quantity, mine: np.ndarray[Any, Any], unit: Codes, confidence: Confidence) -> tuple[SubgroupMetric, float]:
    """The number of one slice, and the standard error of its change."""
    kind = KINDS[name]
    largest = {"%": 1.0, "points": 100.0}.get(kind.unit)
    sampled = sample(Quantity(*(np.where(mine, side, np.nan) for side in (quantity.before, quantity.after))), unit, largest=largest)
    before, after = sampled.means
    enough = sampled.tasks >= FEWEST_TASKS
    moved = change(sampled, confidence) if enough else None
    reached = level(sampled.after, confidence, largest=largest, usual=sampled.unit, effective=sampled.effective) if enough else None
    p = rounded(confidence.p(p_of_change(sampled, confidence))) or 0.0 if moved else 1.0
    note = "" if moved else "too few tasks for an interval" if sampled.pairs else "no pair has this number on both sides"
    metric = Metric(
        f"{name}[{title}]",
        f"{kind.title}, {title}",
        kind.unit,
        kind.better,
        rounded(before * kind.scale),
        rounded(after * kind.scale),
        rounded((after - before) * kind.scale),
        rounded(100 * (after / before - 1)) if sampled.pairs and before else None,
        rounded(moved.low * kind.scale) if moved else None,
        rounded(moved.high * kind.scale) if moved else None,
        rounded_interval(relative(sampled, confidence)) if enough else None,
        rounded_interval(reached and Interval(reached.low * kind.scale, reached.high * kind.scale)),
        sampled.pairs,
        note,
    )
    return SubgroupMetric(name, metric, None, p, p), standard_error(sampled, confidence) * kind.scale if moved else math.nan


def _pooled(found: Subgroups, errors: Sequence[Mapping[str, float]]) -> Subgroups:
    members = list(found.members)
    for name in POOLED:
        known = [place for place, member in enumerate(members) if member.metric(name).metric.low is not None]
        changes = np.array([members[place].metric(name).metric.change for place in known], dtype=float)
        drawn = partially_pooled(changes, np.array([errors[place][name] for place in known]))
        for place, value in zip(known, drawn.tolist(), strict=True):
            kept = tuple(replace(entry, pooled=rounded(value)) if entry.name == name else entry for entry in members[place].metrics)
            members[place] = replace(members[place], metrics=kept)
    return replace(found, members=tuple(members))


def partially_pooled(values: np.ndarray[Any, Any], errors: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values, each drawn to the mean of all by its share of noise; *errors* are their standard errors. Fewer than three stay as they are."""
    if len(values) < 3 or not (errors > 0).all():
        return values
    low, high = 0.0, float((values.max() - values.min()) ** 2)

    def spread(between: float) -> tuple[float, float]:
        weights = 1 / (errors**2 + between)
        mean = float((weights * values).sum() / weights.sum())
        return float((weights * (values - mean) ** 2).sum()), mean

    # the variance between slices at which they spread as much as they should
    if spread(0.0)[0] > len(values) - 1:
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if spread(middle)[0] > len(values) - 1 else (low, middle)
    else:
        high = 0.0
    share = high / (high + errors**2)
    return np.asarray(share * values + (1 - share) * spread(high)[1])


def _adjusted(found: Sequence[Subgroups], family: int) -> tuple[Subgroups, ...]:
    """With p-values adjusted over the slices of all fields, metric by metric."""
    adjusted = [list(group.members) for group in found]
    for place, name in enumerate(MEASURED):
        cells = [
            (outer, inner) for outer, members in enumerate(adjusted) for inner, member in enumerate(members) if member.metrics[place].metric.low is not None
        ]
        values = holm([adjusted[outer][inner].metrics[place].p for outer, inner in cells], family)
        for (outer, inner), p in zip(cells, values, strict=True):
            member = adjusted[outer][inner]
            metrics = tuple(replace(entry, p_adjusted=rounded(p) or 0.0) if entry.name == name else entry for entry in member.metrics)
            adjusted[outer][inner] = replace(member, metrics=metrics)
    return tuple(replace(group, members=tuple(members)) for group, members in zip(found, adjusted, strict=True))
