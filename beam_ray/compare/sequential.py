"""
Looking at a comparison while it grows, without being fooled by looking often.

An interval that holds at 95 of 100 single looks is broken sooner or later by someone who
looks after every task. Under ``stop: early`` intervals are wider, so that 95 of 100
backtests never see one broken, however often they look (the normal mixture boundary of
Robbins; Waudby-Smith et al. 2021 for means that are only nearly normal). So a backtest may
end at the first look that settles its verdict.

A spread found to be nothing is no proof that there is none: of 20 tasks that all stayed as
they were, as many as 17 in 100 may change. So an interval of a bounded number is never
narrower than such a sample allows.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from beam_ray.compare.statistics import Interval, Numbers, interval, wilson

FIRST_LOOK = 20
"""Tasks; with fewer, how often an interval holds is not known well enough."""
GROWTH = 1.3
"""From look to look. Each look waits for its last task, so there are not many."""
TIGHTEST = 8.0
"""The boundary is lowest where tasks times ``spread`` is about so many."""


def interim_analyses(tasks: int) -> tuple[int, ...]:
    """After how many of *tasks* to look, the last one left out."""
    found, size = [], max(FIRST_LOOK, math.ceil(tasks / 40))
    while size < 0.9 * tasks:
        found.append(size)
        size = math.ceil(size * GROWTH)
    return tuple(found)


@dataclass(frozen=True)
class Confidence:
    """How often an interval holds the truth: at one look, or at all looks at a growing sample."""

    percent: float = 95.0
    planned: int = 0
    """The tasks at the last look of many; 0 for a sample that is looked at once."""

    def boundary(self, tasks: int) -> float:
        """How many standard errors the interval reaches, among so many tasks."""
        chance = 1 - self.percent / 100
        if not self.planned:
            return float(-special.ndtri(chance / 2))
        grown = self._grown(tasks)
        return math.sqrt((1 + 1 / grown) * (math.log1p(grown) - 2 * math.log(chance)))

    def interval(self, drawn: Numbers, value: float, tasks: int, reach: float = 0.0) -> Interval | None:
        """
        The interval of a statistic that was found to be *value*, from its resampled values.

        *reach* is how far a single task can move it times the number of tasks; 0 if that has no bound.
        """
        once = interval(drawn, tasks, self.percent)
        if once is None or not self.planned:
            return once
        few = max(tasks - 1, 1)
        chance = 1 - self.percent / 100
        wider = special.stdtrit(few, special.ndtr(-self.boundary(tasks))) / special.stdtrit(few, chance / 2)
        least = -reach * math.log(chance / 2) / tasks
        return Interval(value - max(wider * (value - once.low), least), value + max(wider * (once.high - value), least))

    def of_share(self, percent: float, count: int) -> Interval | None:
        """Wilson's interval of a percentage of *count* tasks."""
        confidence = 100 * (1 - 2 * float(special.ndtr(-self.boundary(count)))) if self.planned and count else self.percent
        share = wilson(percent / 100, count, confidence)
        return share and Interval(100 * share.low, 100 * share.high)

    def p(self, p: float, tasks: int) -> float:
        """The p-value *p* of one look, or what it is worth when every look counts."""
        if not self.planned or not tasks:
            return p
        grown, seen = self._grown(tasks), float(-special.ndtri(max(p, 1e-300) / 2))
        return float(min(1.0, np.sqrt(1 + grown) * np.exp(-(seen**2) * grown / (2 * (1 + grown)))))

    def _grown(self, tasks: int) -> float:
        return 4 * TIGHTEST * tasks / self.planned
