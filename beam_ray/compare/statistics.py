"""
The few statistics that a paired comparison stands on. Pure: arrays in, numbers out.

Intervals are percentile bootstraps over tasks, widened for few tasks: the plain percentile
interval covers too little below about 50 of them. Its quantiles are moved outwards so that
the interval of a mean is as wide as Student's (Hesterberg 2015, "expanded percentile").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from scipy import special
from threadpoolctl import ThreadpoolController

Numbers = np.ndarray[Any, np.dtype[np.float64]]

DRAWN_NUMBERS = 20_000_000
MIN_DRAWS, MAX_DRAWS = 1_000, 10_000


class Interval(NamedTuple):
    """From where to where a number may truly lie."""

    low: float
    high: float


@dataclass(frozen=True)
class Quantity:
    """One number per pair and side; NaN where a side has none, and then the pair does not count."""

    before: Numbers
    after: Numbers


@dataclass(frozen=True)
class Means:
    """The means of a quantity on both sides, as found and in every resample."""

    before: float
    after: float
    before_drawn: Numbers
    after_drawn: Numbers
    pairs: int
    tasks: int


def paired_means(quantities: Sequence[Quantity], task: np.ndarray[Any, Any], *, seed: int = 0, draws: int | None = None) -> list[Means]:
    """
    The means of each quantity over the pairs that have it on both sides.

    Tasks are resampled, with all their trials, and all quantities see the same resamples.
    *task* gives each pair's task as a number from 0.
    """
    count = int(task.max()) + 1 if len(task) else 0
    sums = np.zeros((3 * len(quantities), count))
    for slot, quantity in enumerate(quantities):
        there = ~(np.isnan(quantity.before) | np.isnan(quantity.after))
        for offset, values in enumerate((quantity.before[there], quantity.after[there], None)):
            sums[3 * slot + offset] = np.bincount(task[there], weights=values, minlength=count)
    # many rows are the same: how many pairs there are, what neither side has, what did not change
    keys = [row.tobytes() for row in sums]
    distinct = dict(zip(keys, sums, strict=True))
    drawn = dict(zip(distinct, _resampled(np.array([*distinct.values()]), seed, draws), strict=True))
    return [_means(sums[slot : slot + 3], [drawn[key] for key in keys[slot : slot + 3]]) for slot in range(0, len(sums), 3)]


def interval(drawn: Numbers, tasks: int, confidence: float = 95.0) -> Interval | None:
    """The interval of a statistic from its resampled values; none for fewer than two tasks, or when it is mostly undefined."""
    known = drawn[np.isfinite(drawn)]
    if tasks < 2 or len(known) < 0.9 * len(drawn) or not len(known):
        return None
    tail = _tail(tasks, confidence)
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high))


def wilson(share: float, count: int, confidence: float = 95.0) -> Interval | None:
    """The interval of a share found among *count* tasks (Wilson 1927); unlike a bootstrap, sensible at 0 and 1."""
    if not count:
        return None
    found = round(share * count)
    share, squared = found / count, float(special.ndtri(0.5 + confidence / 200)) ** 2
    middle = (share + squared / (2 * count)) / (1 + squared / count)
    reach = math.sqrt(squared * (share * (1 - share) / count + squared / (4 * count**2))) / (1 + squared / count)
    return Interval(middle - reach if found else 0.0, middle + reach if found < count else 1.0)


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided p-value of *better* against *worse* changed tasks, had nothing really changed."""
    return min(1.0, 2 * float(_at_most(min(better, worse), better + worse, 0.5)))


def holm(p_values: Sequence[float], family: int = 1) -> list[float]:
    """
    The p-values, adjusted for having looked at all of them, in the order given.

    *family* is how many comparisons like this one are made at once. The ranks among the
    others are unknown here, so the adjustment is at least Holm's and never less.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) * family - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def detectable_mean(differences: Numbers, power: float = 0.8, level: float = 0.05) -> float | None:
    """The smallest mean difference that as many tasks, differing as much as these, would show with *power*."""
    count = len(differences)
    if count < 3:
        return None
    quantiles = special.stdtrit(count - 1, [1 - level / 2, power])
    return float(quantiles.sum() * differences.std(ddof=1) / math.sqrt(count))


def detectable_share(worse: int, count: int, power: float = 0.8, level: float = 0.05) -> float | None:
    """
    The smallest net share of tasks that must change sides for McNemar's test to show it with *power*.

    The share *worse* of *count* goes the other way as found. None when no change of any
    size would show, as with five tasks or fewer.
    """
    lost = worse / count if count else 0.0
    low, high = 0.0, 1.0 - lost
    critical = np.full(count + 1, np.nan)
    if not count or _mcnemar_power(high, lost, critical, level) < power:
        return None
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _mcnemar_power(middle, lost, critical, level) >= power else (middle, high)
    return high - lost


@cache
def _tail(tasks: int, confidence: float) -> float:
    student = special.stdtrit(tasks - 1, (1 - confidence / 100) / 2)
    return float(special.ndtr(student * math.sqrt(tasks / (tasks - 1))))


def _resampled(sums: Numbers, seed: int, draws: int | None) -> Numbers:
    """For each row, which has a number for each task, its sum over the tasks of every resample."""
    width, count = sums.shape
    if not count:
        return np.zeros((width, 0))
    draws = draws or min(MAX_DRAWS, max(MIN_DRAWS, DRAWN_NUMBERS // count))
    chance = np.random.default_rng(seed)
    drawn = np.empty((width, draws))
    batch = min(draws, max(1, 4_000_000 // count))
    times = np.empty((batch, count))
    # more threads would mostly wait for each other: these matrices are long and narrow
    with _blas().limit(limits=1, user_api="blas"):
        for start in range(0, draws, batch):
            part = times[: draws - start]
            _resample(chance, part)
            drawn[:, start : start + batch] = sums @ part.T
    return drawn


def _resample(chance: np.random.Generator, times: Numbers) -> None:
    """Make each row of *times* say how often each task is in one more resample."""
    count = times.shape[1]
    # as many rows at once as fit into a processor's cache
    batch = max(1, 100_000 // count)
    for start in range(0, len(times), batch):
        part = times[start : start + batch]
        chosen = chance.integers(count, size=part.shape, dtype=np.int32) + count * np.arange(len(part), dtype=np.int32)[:, None]
        part[:] = np.bincount(chosen.ravel(), minlength=part.size).reshape(part.shape)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _means(sums: Numbers, drawn: Sequence[Numbers]) -> Means:
    before, after, pairs = sums.sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        before_drawn, after_drawn = drawn[0] / drawn[2], drawn[1] / drawn[2]
    return Means(
        float(before / pairs) if pairs else math.nan,
        float(after / pairs) if pairs else math.nan,
        before_drawn,
        after_drawn,
        int(pairs),
        int((sums[2] > 0).sum()),
    )


def _mcnemar_power(gained: float, lost: float, critical: Numbers, level: float) -> float:
    """*critical* has for each number of changed tasks how few may go one way for the test to show a change; filled in as needed."""
    count, changed = len(critical) - 1, gained + lost
    if changed <= 0:
        return 0.0
    spread = 8 * math.sqrt(count * changed * (1 - changed)) + 1
    discordant = np.arange(max(0, int(count * changed - spread)), min(count, int(count * changed + spread)) + 1)
    new = discordant[np.isnan(critical[discordant])]
    critical[new] = np.ceil(special.bdtrik(level / 2, np.maximum(new, 1), 0.5))
    shown = 1 - _at_most(discordant - critical[discordant], discordant, gained / changed)
    chances = np.diff(_at_most(np.append(discordant[0] - 1, discordant), count, changed))
    return float((chances * shown).sum())


def _at_most(most: Any, tries: Any, chance: float) -> Any:
    """The chance that at most so many of the tries succeed. Importing scipy.stats for its binomial would take a second."""
    between = (most >= 0) & (most < tries)
    return np.where(between, special.betainc(tries - most, most + 1, 1 - chance), most >= tries)
