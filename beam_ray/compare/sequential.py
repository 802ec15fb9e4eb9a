"""
Interim analyses: stopping a backtest early without being fooled by looking often.

An interval that holds in 95 of 100 single analyses is broken sooner or later by someone who
looks after every task. Under ``stop: early`` the analyses are planned, so the boundary of a
group-sequential test is known before the first one (Wang and Tsiatis 1987, shape 0.2): how
many standard errors an interval reaches at each, so that 95 of 100 backtests never see one
broken. It is wide at the first analyses and, at the last one, hardly wider than without any.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import scipy  # its parts load when they are first used

FIRST_ANALYSIS = 20
"""Tasks; with fewer, how often an interval holds is not known well enough."""
GROWTH = 1.3
"""From analysis to analysis. Each waits for its last task, so there are not many."""
SHAPE = 0.2
"""Between Pocock's boundary (0.5), which is the same at all analyses, and O'Brien and Fleming's (0)."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


def interim_analyses(tasks: int) -> tuple[int, ...]:
    """After how many of *tasks* to analyse, the last analysis left out."""
    found, size = [], max(FIRST_ANALYSIS, math.ceil(tasks / 40))
    while size < 0.9 * tasks:
        found.append(size)
        size = math.ceil(size * GROWTH)
    return tuple(found)


@dataclass(frozen=True)
class Confidence:
    """How often an interval holds the truth: in a single analysis, or at all analyses of a growing sample."""

    percent: float = 95.0
    planned: int = 0
    """The tasks at the last of several analyses; 0 for a sample that is analysed once."""
    looked: int = 0
    """The tasks at this one."""

    def boundary(self, tasks: int) -> float:
        """How many standard errors an interval reaches, in the analysis of so many tasks."""
        if not self.planned:
            return float(-scipy.special.ndtri((1 - self.percent / 100) / 2))
        return _constant(self._shares, self.percent) / math.pow(self._share(tasks), 0.5 - SHAPE)

    @property
    def tail(self) -> float:
        """The chance on each side that an interval of this analysis leaves out."""
        return float(scipy.special.ndtr(-self.boundary(self.looked)))

    @property
    def padding(self) -> int:
        """How many unusual tasks each way an interval allows for that the sample does not have; more where extremes of many analyses count."""
        return 2 if self.planned else 1

    def quantile(self, tasks: float) -> float:
        """How many estimated standard errors the interval of a mean over so many tasks reaches (Student's)."""
        return float(-scipy.special.stdtrit(max(tasks - 1, 1), self.tail))

    def p(self, p: float) -> float:
        """The p-value *p* of this analysis alone, or what it is worth among all: how often some analysis is as far out without an effect."""
        if not self.planned:
            return p
        seen = float(-scipy.special.ndtri(max(p, 1e-300) / 2))
        return _crossed(self._shares, seen * self._share(self.looked) ** (0.5 - SHAPE))

    @property
    def _shares(self) -> tuple[float, ...]:
        return tuple(tasks / self.planned for tasks in (*interim_analyses(self.planned), self.planned))

    def _share(self, tasks: int) -> float:
        return min(max(tasks, 1) / self.planned, 1.0)


@cache
def _constant(shares: tuple[float, ...], percent: float) -> float:
    """The boundary at the last analysis, found by halving."""
    low, high = 1.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _crossed(shares, middle) > 1 - percent / 100 else (low, middle)
    return high


def _crossed(shares: Sequence[float], constant: float) -> float:
    """How often a process without drift is beyond the boundary at any of the analyses (Armitage, McPherson and Rowe 1969)."""
    if constant <= 0:
        return 1.0
    at, density = np.zeros(1), np.ones(1)
    before = 0.0
    for share in shares:
        reach = constant * share**SHAPE
        step = math.sqrt(share - before)
        places = reach * _NODES
        steps = np.exp(-(((places[:, None] - at) / step) ** 2) / 2) / (step * math.sqrt(2 * math.pi))
        at, density, before = places, (steps @ density) * reach * _WEIGHTS, share
    return float(min(1.0, max(0.0, 1 - density.sum())))
