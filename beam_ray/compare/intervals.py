"""
Confidence intervals over tasks: of a change, a relative change, a level, a standard deviation and a quantile.

Everything is computed from one number per task and side; a task's trials are averaged first, so
they never count as tasks. Closed forms, no resampling: equal arguments give equal intervals.

A change is Student's interval after two more tasks were added, one that got better and one that
got worse by as much as a change is here. For a single trial of pass or fail that is Bonett and
Price's interval of a difference of paired proportions (2012), with Student's quantile. So an
interval never closes because a sample happened to have no change. The same two tasks stand behind
relative changes (on the log scale) and changes of the standard deviation. Levels of bounded
metrics have Wilson's interval for the number of 0/1 tasks that would scatter as much, and
quantiles the interval of their order statistics (Woodruff 1952), combined for a change by MOVER
(Zou and Donner 2008). docs/statistics.md has the measured coverage.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts load when they are first used

from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Numbers, Quantity
from beam_ray.compare.wilson import wilson_bounds

_TINY = 1e-9
_SKEWED = 4
"""Unusual tasks thought to be missing from a sample whose numbers have a long tail on one side; of a change, two."""
_UNSEEN_TAIL = 2.5
"""How much further an interval reaches on the side of a tail of skewness 1, over the number of tasks; measured in docs/statistics.md."""


class Padded(NamedTuple):
    """Both sides with two more tasks, one better and one worse."""

    before: Numbers
    after: Numbers


class Estimate(NamedTuple):
    """A number of both sides, with the intervals of its change, of that in percent, and of the later one."""

    before: float
    after: float
    change: Interval | None
    relative: Interval | None
    level: Interval | None


@dataclass(frozen=True)
class Sample:
    """A quantity with one number per task and side; their means are the means over all pairs."""

    before: Numbers
    after: Numbers
    pairs: int
    changed: int
    """The tasks whose two numbers differ."""
    largest: float | None
    """The largest value that there can be (the smallest is 0); None without one."""
    unit: float
    """How large a value may be that was not seen: *largest*, or a usual value."""
    effective: float
    """How many units of equal size would say as much: fewer than there are where some have many pairs and others few (Kish)."""

    @property
    def tasks(self) -> int:
        """How many tasks have the number on both sides."""
        return len(self.before)

    @property
    def means(self) -> tuple[float, float]:
        """The mean of both sides; NaN without tasks."""
        return (float(self.before.mean()), float(self.after.mean())) if self.tasks else (math.nan, math.nan)

    @cached_property
    def usual(self) -> float:
        """How much a task changes where it matters; where few or none changed, as much as possible."""
        size = usual_size(self.after - self.before, self.changed, self.unit)
        return size if self.largest is None else min(size, self.largest)

    def padded(self, times: int = 1) -> Padded:
        """The sides with twice so many tasks more, half of them better and half worse by a usual change; where few or none changed, by as much as possible."""
        size = self.usual
        low = max(sum(self.means) / 2 - size / 2, 0.0)
        if self.largest is not None:
            low = min(low, self.largest - size)
        ends = (low, low + size) * times
        return Padded(np.append(self.before, ends), np.append(self.after, ends[::-1]))


def sample(quantity: Quantity, task: np.ndarray[Any, Any], *, largest: float | None = None, usual: float | None = None) -> Sample:
    """
    The quantity as one number per task, over the pairs that have it on both sides.

    Args:
        task: each pair's task, as a number from 0.
        largest: the largest value that there can be; values are never below 0.
        usual: without a largest value, a value that a task may have although none has; the mean of both sides if it is not given.
    """
    there = ~(np.isnan(quantity.before) | np.isnan(quantity.after))
    rows = task[there]
    trials = np.bincount(rows)
    kept, pairs = trials > 0, len(rows)
    tasks = int(kept.sum())
    sums = [_summed(values[there], rows)[kept] for values in (quantity.before, quantity.after)]
    # a task's part in the mean over all pairs; where some tasks have fewer trials, these count less
    share = tasks / max(pairs, 1)
    before, after = (summed * share - summed.sum() / max(pairs, 1) * (trials[kept] * share - 1) for summed in sums)
    unit = largest if largest is not None else usual if usual is not None else float(np.append(before, after).mean()) if pairs else 0.0
    effective = pairs**2 / max(float((trials[kept].astype(np.float64) ** 2).sum()), 1.0)
    return Sample(before, after, pairs, int((np.abs(sums[1] - sums[0]) > _TINY).sum()), largest, unit, effective)


def change(sampled: Sample, confidence: Confidence) -> Interval | None:
    """The interval of the change of the mean; None for fewer than two tasks."""
    if sampled.tasks < 2:
        return None
    middle, error = _moved(sampled, confidence)
    reach = confidence.quantile(sampled.tasks) * error
    return _clipped(middle - reach, middle + reach, -sampled.largest if sampled.largest is not None else -math.inf, sampled.largest)


def standard_error(sampled: Sample, confidence: Confidence) -> float:
    """The standard error that the interval of the change is made of; of at least two tasks."""
    return _moved(sampled, confidence)[1]


def p_of_change(sampled: Sample, confidence: Confidence) -> float:
    """The two-sided p-value of the change in this analysis alone: with a 95% interval, below 5% exactly when that leaves out 0."""
    if sampled.tasks < 2:
        return 1.0
    middle, error = _moved(sampled, confidence)
    return min(1.0, 2 * float(scipy.special.stdtr(sampled.tasks - 1, -abs(middle) / error))) if error else 1.0


def relative(sampled: Sample, confidence: Confidence) -> Interval | None:
    """The interval of the change in percent of the mean before, never below -100; None when that is 0, or for fewer than two tasks."""
    mean_before, mean_after = sampled.means
    if sampled.tasks < 2 or not mean_before > 0:
        return None
    before, after = sampled.padded(confidence.padding)
    with np.errstate(all="ignore"):
        middle = np.log(after.mean() / before.mean())
        parts = after / after.mean() - before / before.mean()
        reach = confidence.quantile(sampled.tasks) * np.sqrt((parts**2).sum()) / len(parts)
        found = 100 * (np.float64(mean_after) / mean_before - 1)
        low, high = (100 * np.expm1(middle + reach * sign) for sign in (-1, 1))
    return Interval(float(min(low, found)), float(max(high, found))) if np.isfinite(high) and np.isfinite(found) else None


def level(values: Numbers, confidence: Confidence, *, largest: float | None = None, usual: float = 0.0, effective: float | None = None) -> Interval | None:
    """
    The interval of the mean of *values*, one per task; None for fewer than two. With *largest* it stays between 0 and that.

    Args:
        effective: how many values of equal weight say as much, where their weights differ.
    """
    tasks = len(values)
    if tasks < 2:
        return None
    quantile, mean = confidence.quantile(max(min(effective or tasks, tasks), 2)), float(values.mean())
    if largest is not None:
        share = min(1.0, max(0.0, mean / largest))
        spread = float((values / largest).var()) / (share * (1 - share)) if 0 < share < 1 else 1.0
        # few values that differ from the commonest may all lie near it by chance, or be all that ever differ among trials
        off = int((np.abs(values - np.median(values)) > _TINY).sum())
        spread += (1 - spread) * max(0.0, 1 - off / (tasks - 1)) * 0.8**off
        # Wilson's interval is as skewed as that of so many 0/1 tasks, and values that scatter less than these may be skewed more
        found = _skewed(values, _scaled(wilson(share, tasks / spread, quantile), largest), 1 - spread)
        return _clipped(found.low, found.high, 0.0, largest)
    if not mean > 0:
        return _scaled(wilson(0.0, tasks, quantile), usual)
    parts = values - mean
    size = usual_size(parts, int((np.abs(values - np.median(values)) > _TINY * mean).sum()), mean)
    reach = quantile * math.sqrt(float((parts**2).sum()) + _SKEWED * size**2) / (tasks + 2) / mean
    return _skewed(values, Interval(mean * math.exp(-reach), mean * math.exp(reach)), 1.0) if reach < 300 else None


def _skewed(values: Numbers, found: Interval, part: float) -> Interval:
    """The interval with the end on the side of a long tail further out: of few values the tail is mostly unseen, and their mean too near to the others."""
    tasks, mean, deviation = len(values), float(values.mean()), float(values.std())
    if deviation <= _TINY * max(abs(mean), _TINY):
        return found
    parts = values - mean
    skewness = float((parts**2 * parts).mean()) / deviation**3
    factor = 1 + _UNSEEN_TAIL * abs(skewness) * max(part, 0.0) / tasks
    return Interval(mean - (mean - found.low) * factor, found.high) if skewness < 0 else Interval(found.low, mean + (found.high - mean) * factor)


def wilson(share: float, count: float, quantile: float) -> Interval:
    """The interval of a *share* among so many tasks (Wilson 1927), which may be no whole number."""
    return Interval(*wilson_bounds(share, count, quantile))


def deviations(quantity: Quantity, task: np.ndarray[Any, Any], sampled: Sample, confidence: Confidence) -> Estimate:
    """The standard deviations of a bounded quantity over all pairs; NaN for fewer than two. *sampled* is the quantity per task."""
    there = ~(np.isnan(quantity.before) | np.isnan(quantity.after))
    if sampled.pairs < 2:
        return Estimate(math.nan, math.nan, None, None, None)
    found = [float(side[there].std(ddof=1)) for side in (quantity.before, quantity.after)]
    if sampled.tasks < 2 or not sampled.largest:
        return Estimate(found[0], found[1], None, None, None)
    sides = sampled.padded()
    centres = [float(side.mean()) for side in sides]
    squares = sample(Quantity((quantity.before - centres[0]) ** 2, (quantity.after - centres[1]) ** 2), task)
    parts, spreads = [], []
    for side, padded, centre in zip((squares.before, squares.after), sides, centres, strict=True):
        whole = np.append(side, (padded[-2:] - centre) ** 2)
        spreads.append(math.sqrt(whole.mean()))
        parts.append((whole - whole.mean()) / (2 * spreads[-1]))
    widest = sampled.largest / 2 * math.sqrt(sampled.pairs / (sampled.pairs - 1))
    quantile = confidence.quantile(sampled.tasks)
    moved, after = (quantile * _error(part) for part in (parts[1] - parts[0], parts[1]))
    ratio = None
    if found[0] > 0:
        share, reach = found[1] / found[0], quantile * _error(parts[1] / spreads[1] - parts[0] / spreads[0])
        ends = [100 * (spreads[1] / spreads[0] * math.exp(sign * min(reach, 300)) - 1) for sign in (-1, 1)]
        ratio = Interval(min(ends[0], 100 * (share - 1)), max(ends[1], 100 * (share - 1)))
    difference = found[1] - found[0]
    return Estimate(
        found[0],
        found[1],
        _clipped(difference - moved, difference + moved, -widest, widest),
        ratio,
        _clipped(found[1] - after, found[1] + after, 0.0, widest),
    )


def quantiles(quantity: Quantity, task: np.ndarray[Any, Any], percent: float, confidence: Confidence) -> Estimate:
    """
    A percentile of both sides over all pairs; NaN without any.

    No interval where the sample does not reach beyond it on both sides: a 95% interval of the
    median wants 6 tasks, of the 95th percentile 72.
    """
    there = ~(np.isnan(quantity.before) | np.isnan(quantity.after))
    if not there.any():
        return Estimate(math.nan, math.nan, None, None, None)
    rows = task[there]
    before, after = (_Order(np.asarray(side[there]), rows, percent, confidence) for side in (quantity.before, quantity.after))
    if before.ends is None or after.ends is None:
        return Estimate(before.found, after.found, None, None, after.ends)
    tasks = int((np.bincount(rows) > 0).sum())
    # two tasks more, one on each side, as everywhere
    alike = _correlation(before.below, after.below) * tasks / (tasks + 2)
    moved = _mover(before.found, before.ends, after.found, after.ends, alike)
    ratio = None
    if min(before.ends.low, after.ends.low) > 0:
        logs = [Interval(math.log(ends.low), math.log(ends.high)) for ends in (before.ends, after.ends)]
        part = _mover(math.log(before.found), logs[0], math.log(after.found), logs[1], alike)
        ratio = Interval(*(100 * math.expm1(min(end, 300)) for end in part))
    return Estimate(before.found, after.found, moved, ratio, after.ends)


class _Order:
    """A percentile of one side, the interval of its order statistics, and how each task lies to it."""

    def __init__(self, values: Numbers, task: np.ndarray[Any, Any], percent: float, confidence: Confidence) -> None:
        share, pairs = percent / 100, len(values)
        self.found = float(np.percentile(values, percent))
        trials = np.bincount(task)
        self.below = _summed((values <= self.found).astype(np.float64) - share, task)[trials > 0]
        # trials of one task are alike: they count as fewer
        alike = min(max(float((self.below**2).sum()) / (pairs * share * (1 - share)), 1.0), float(trials.max()))
        count = pairs / alike
        low = math.floor(scipy.special.bdtrik(confidence.tail, count, share)) + 1 if (1 - share) ** count <= confidence.tail else 0
        high = math.ceil(scipy.special.bdtrik(1 - confidence.tail, count, share)) + 1
        self.ends: Interval | None = None
        if low >= 1 and high <= count:
            ordered = np.sort(values)
            low, high = max(math.floor(low * alike), 1), min(math.ceil(high * alike), pairs)
            self.ends = Interval(float(ordered[low - 1]), float(ordered[high - 1]))


def _summed(values: Numbers, task: np.ndarray[Any, Any]) -> Numbers:
    return np.bincount(task, weights=values).astype(np.float64)


def _correlation(one: Numbers, other: Numbers) -> float:
    squares = float((one**2).sum() * (other**2).sum())
    return float((one * other).sum()) / math.sqrt(squares) if squares else 0.0


def _mover(before: float, ends_before: Interval, after: float, ends_after: Interval, alike: float) -> Interval:
    """The interval of a difference from those of its two parts, which are correlated."""

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(one**2 + other**2 - 2 * alike * one * other, 0.0))

    difference = after - before
    low = difference - reach(after - ends_after.low, ends_before.high - before)
    return Interval(low, difference + reach(ends_after.high - after, before - ends_before.low))


def usual_size(parts: Numbers, moved: int, unit: float) -> float:
    """
    How large a deviation among *parts* is where it matters: their fourth moment over their second.

    With all parts alike that is their size. Where few of them *moved*, all of these may have been
    small ones by chance, at even odds each; that much of *unit* is mixed in.
    """
    unseen = (1 - moved / len(parts)) * 0.5**moved * unit**2
    squared = parts**2  # squared again below, as other powers of numbers below zero take numpy thirty times as long
    squares = float(squared.sum()) + unseen
    return math.sqrt((float((squared**2).sum()) + unseen * unit**2) / squares) if squares > 0 else 0.0


def _moved(sampled: Sample, confidence: Confidence) -> tuple[float, float]:
    """The middle of the interval of the change, and its standard error."""
    before, after = sampled.padded(confidence.padding)
    difference = after - before
    return float(difference.mean()), float(difference.std() / math.sqrt(len(difference)))


def _error(parts: Numbers) -> float:
    squared = parts**2
    squares = float(squared.sum())
    return math.sqrt(squares + _SKEWED * float((squared**2).sum()) / squares) / len(parts) if squares else 0.0


def _clipped(low: float, high: float, least: float, most: float | None) -> Interval:
    return Interval(max(low, least), high if most is None else min(high, most))


def _scaled(found: Interval, factor: float) -> Interval:
    return Interval(found.low * factor, found.high * factor)
