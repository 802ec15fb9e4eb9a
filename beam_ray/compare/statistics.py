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
from scipy import stats

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
    columns = np.zeros((count, 3 * len(quantities)))
    for slot, quantity in enumerate(quantities):
        there = ~(np.isnan(quantity.before) | np.isnan(quantity.after))
        for offset, values in enumerate((quantity.before[there], quantity.after[there], None)):
            columns[:, 3 * slot + offset] = np.bincount(task[there], weights=values, minlength=count)
    found = columns.sum(axis=0)
    drawn = _resampled_sums(columns, seed, draws)
    return [_means(found, drawn, columns, 3 * slot) for slot in range(len(quantities))]


def interval(drawn: Numbers, tasks: int, confidence: float = 95.0) -> Interval | None:
    """The interval of a statistic from its resampled values; none for fewer than two tasks, or when it is mostly undefined."""
    known = drawn[np.isfinite(drawn)]
    if tasks < 2 or len(known) < 0.9 * len(drawn) or not len(known):
        return None
    tail = _tail(tasks, confidence)
    low, high = np.quantile(known, [tail, 1 - tail])
    return Interval(float(low), float(high))


def wilson(share: float, count: int, confidence: float = 95.0) -> Interval | None:
    """The interval of a share found among *count* tasks; unlike a bootstrap, sensible at 0 and 1."""
    if not count:
        return None
    low, high = stats.binomtest(round(share * count), count).proportion_ci(confidence / 100, "wilson")
    return Interval(float(low), float(high))


def mcnemar(better: int, worse: int) -> float:
    """The exact two-sided p-value of *better* against *worse* changed tasks, had nothing really changed."""
    changed = better + worse
    return float(stats.binomtest(better, changed).pvalue) if changed else 1.0


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
    quantiles = stats.t.ppf([1 - level / 2, power], count - 1)
    return float(quantiles.sum() * differences.std(ddof=1) / math.sqrt(count))


def detectable_share(worse: int, count: int, power: float = 0.8, level: float = 0.05) -> float | None:
    """
    The smallest net share of tasks that must change sides for McNemar's test to show it with *power*.

    The share *worse* of *count* goes the other way as found. None when no change of any
    size would show, as with five tasks or fewer.
    """
    lost = worse / count if count else 0.0
    low, high = 0.0, 1.0 - lost
    if not count or _mcnemar_power(high, lost, count, level) < power:
        return None
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (low, middle) if _mcnemar_power(middle, lost, count, level) >= power else (middle, high)
    return high - lost


@cache
def _tail(tasks: int, confidence: float) -> float:
    student = stats.t.ppf((1 - confidence / 100) / 2, tasks - 1)
    return float(stats.norm.cdf(student * math.sqrt(tasks / (tasks - 1))))


def _resampled_sums(columns: Numbers, seed: int, draws: int | None) -> Numbers:
    count, width = columns.shape
    if not count or not width:
        return np.zeros((0, width))
    draws = draws or min(MAX_DRAWS, max(MIN_DRAWS, DRAWN_NUMBERS // count))
    chance = np.random.default_rng(seed)
    sums = np.empty((draws, width))
    batch = max(1, 4_000_000 // count)
    for start in range(0, draws, batch):
        size = min(batch, draws - start)
        chosen = chance.integers(count, size=(size, count), dtype=np.int32) + count * np.arange(size, dtype=np.int32)[:, None]
        times = np.bincount(chosen.ravel(), minlength=size * count).reshape(size, count).astype(np.float64)
        sums[start : start + size] = times @ columns
    return sums


def _means(found: Numbers, drawn: Numbers, columns: Numbers, slot: int) -> Means:
    before, after, pairs = found[slot : slot + 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        before_drawn, after_drawn = drawn[:, slot] / drawn[:, slot + 2], drawn[:, slot + 1] / drawn[:, slot + 2]
    if not pairs:
        before = after = math.nan
    return Means(
        before / pairs if pairs else math.nan,
        after / pairs if pairs else math.nan,
        before_drawn,
        after_drawn,
        int(pairs),
        int((columns[:, slot + 2] > 0).sum()),
    )


def _mcnemar_power(gained: float, lost: float, count: int, level: float) -> float:
    changed = gained + lost
    if changed <= 0:
        return 0.0
    spread = 8 * math.sqrt(count * changed * (1 - changed)) + 1
    discordant = np.arange(max(0, int(count * changed - spread)), min(count, int(count * changed + spread)) + 1)
    needed = discordant - stats.binom.ppf(level / 2, discordant, 0.5) + 1
    shown = stats.binom.sf(needed - 1, discordant, gained / changed)
    return float((stats.binom.pmf(discordant, count, changed) * shown).sum())
