"""
Confidence intervals of ratios such as precision, recall and F1, whose denominators scatter too.

A ratio is the sum of numerators over the sum of denominators, one of each per unit: a task with
its trials, or a cluster of tasks. Its change has the interval of its linear part in each unit
(the delta method, or cluster-robust standard errors), with Student's quantile, after two units
were added as in ``intervals``: one that was right before and is wrong after, and the reverse. Of
a recall of single trials that is the interval of ``intervals.change`` over the tasks of the class. The
level of a single ratio has Wilson's interval over the units that it is about. A macro average is
the mean of several ratios; the two units are then spread over them.
"""

import math
from dataclasses import dataclass

import numpy as np
import scipy  # its parts load when they are first used

from beam_ray.compare.intervals import Estimate, level, usual_size, wilson
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Numbers

FEWEST_UNITS = 5
"""That a ratio is about; below it there is the number and no interval, as of other slices."""


@dataclass(frozen=True)
class Counts:
    """Numerators and denominators of one side: a row per unit, a column per ratio that is averaged."""

    over: Numbers
    under: Numbers

    @property
    def ratios(self) -> Numbers:
        """Each column's ratio; 0 where it has no denominator."""
        over, under = self.over.sum(axis=0), self.under.sum(axis=0)
        return np.asarray(np.divide(over, under, out=np.zeros_like(over), where=under > 0))

    def linear(self, units: int) -> Numbers:
        """Each unit's part in the mean of the ratios, around 0."""
        under = self.under.sum(axis=0)
        parts = self.over - self.ratios * self.under
        return np.asarray(np.divide(parts * units, under, out=np.zeros_like(parts), where=under > 0).mean(axis=1))


@dataclass(frozen=True)
class Ratio:
    """A mean of ratios on both sides."""

    before: Counts
    after: Counts
    wrong: float = 1.0
    """What a wrong unit adds to a denominator when a right one adds ``right`` to both."""
    right: float = 1.0

    @property
    def units(self) -> int:
        """How many units the ratio is about on either side."""
        return int(((self.before.under + self.after.under).sum(axis=1) > 0).sum())

    def estimate(self, confidence: Confidence) -> tuple[Estimate, float]:
        """Both sides between 0 and 1, with intervals, and the p-value of the change; a side without denominators is NaN."""
        found = [float(side.ratios.mean()) if self._known(side) else math.nan for side in (self.before, self.after)]
        reached = self._level(confidence) if self._known(self.after) else None
        if self.units < 2 or not (self._known(self.before) and self._known(self.after)):
            return Estimate(found[0], found[1], None, None, reached), 1.0
        before, after, units = self._padded(confidence.padding)
        parts = after.linear(units) - before.linear(units)
        middle = float(after.ratios.mean() - before.ratios.mean())
        error = math.sqrt(float((parts**2).sum())) / units
        reach = confidence.quantile(self.units) * error
        p = min(1.0, 2 * float(scipy.special.stdtr(self.units - 1, -abs(middle) / error))) if error else 1.0
        ratio = self._relative(before, after, units, found, confidence.quantile(self.units))
        return Estimate(found[0], found[1], Interval(max(middle - reach, -1.0), min(middle + reach, 1.0)), ratio, reached), p

    def _known(self, side: Counts) -> bool:
        # of several ratios, one without a denominator counts 0; a single one has no value
        return bool((side.under.sum(axis=0) > 0).any())

    def _padded(self, times: int) -> tuple[Counts, Counts, int]:
        """Both sides with two more units, spread over the ratios, and how many units that makes."""
        columns = self.before.over.shape[1]
        involved = (self.before.under + self.after.under).sum(axis=1) > 0
        sides = [(side.over[involved], side.under[involved]) for side in (self.before, self.after)]
        moved = (sides[1][0] - sides[0][0]).sum(axis=1)
        moved = moved / np.maximum(np.maximum(sides[0][1].sum(axis=1), sides[1][1].sum(axis=1)), 1e-12)
        size = min(1.0, usual_size(moved, int((np.abs(moved) > 1e-9).sum()), 1.0))
        share = np.array([(1 + size) / 2, (1 - size) / 2] * times)[:, None] / columns
        rest = 1 / columns - share
        ends = [(part * self.right, part * self.right + other * self.wrong) for part, other in ((share, rest), (rest, share))]
        padded = [
            Counts(*(np.vstack([whole, np.tile(end, (1, columns))]) for whole, end in zip(side, more, strict=True)))
            for side, more in zip(sides, ends, strict=True)
        ]
        return padded[0], padded[1], int(involved.sum()) + 2 * times

    def _relative(self, before: Counts, after: Counts, units: int, found: list[float], quantile: float) -> Interval | None:
        if not found[0] > 0:
            return None
        means = [float(side.ratios.mean()) for side in (before, after)]
        parts = after.linear(units) / means[1] - before.linear(units) / means[0]
        reach = quantile * math.sqrt(float((parts**2).sum())) / units
        middle, share = math.log(means[1] / means[0]), 100 * (found[1] / found[0] - 1)
        if not math.isfinite(reach) or reach > 300:
            return None
        return Interval(min(100 * math.expm1(middle - reach), share), max(100 * math.expm1(middle + reach), share))

    def _level(self, confidence: Confidence) -> Interval | None:
        """Wilson's interval of the later side, for the number of units whose ratio would scatter as much; of a single ratio over the units it is about."""
        side = self.after
        counts = (side.under > 0).sum(axis=0)
        if int(counts.min()) < FEWEST_UNITS:
            return None
        about = side.under.sum(axis=1) > 0
        kept = Counts(side.over[about], side.under[about])
        if len(counts) == 1:
            return level(kept.linear(int(about.sum())) + float(kept.ratios[0]), confidence, largest=1.0)
        # a small class without an error may have one nevertheless: one that is right and one that is wrong are added to each
        one = np.eye(len(counts))
        padded = Counts(np.vstack([kept.over, one * self.right, one * 0]), np.vstack([kept.under, one * self.right, one * self.wrong]))
        mean, units = float(padded.ratios.mean()), len(padded.over)
        spread = float((padded.linear(units) ** 2).sum()) / units**2
        return wilson(float(kept.ratios.mean()), mean * (1 - mean) / spread, confidence.quantile(int(counts.min()))) if spread and 0 < mean < 1 else None
