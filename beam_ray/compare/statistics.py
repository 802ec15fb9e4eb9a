"""The few statistics that a paired comparison stands on, beside its intervals. Pure: numbers in, numbers out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy  # its parts load when they are first used

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


def _at_most(most: Any, tries: Any, chance: float) -> Any:
    """The chance that at most so many of the tries succeed. Importing scipy.stats for its binomial would take a second."""
    between = (most >= 0) & (most < tries)
    return np.where(between, scipy.special.betainc(tries - most, most + 1, 1 - chance), most >= tries)
