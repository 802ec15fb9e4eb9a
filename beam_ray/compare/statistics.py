"""The few statistics that a paired comparison stands on, beside its intervals. Pure: numbers in, numbers out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import special

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Interval(NamedTuple):
    """From where to where a number may truly lie."""

    low: float
    high: float


@dataclass(frozen=True)
class Quantity:
    """One number per pair and side; NaN where a side has none, and then the pair does not count."""

    before: Numbers
    after: Numbers


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
