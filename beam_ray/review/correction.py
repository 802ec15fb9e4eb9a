"""
A judge's errors, and success rates corrected for them, from outputs that people reviewed.

The judge's word divides the outputs into two strata. How many lie in each is known from all outputs;
how many of each are truly met is estimated from the reviewed ones. So the corrected rate is

    share judged met x share of these that are met + share judged not met x share of those that are met

which is prediction-powered inference for a binary judge (Angelopoulos and others 2023), also known as
post-stratification. It asks nothing of the judge, but the reviewed outputs must be drawn at random
from the outputs themselves. Where reviews are of other outputs, sensitivity and specificity are taken
over instead (Rogan and Gladen 1978), which assumes that the judge errs as often here as there.

Intervals are quantiles over the independent parts, each with Jeffreys' prior, at the points of a
lattice instead of random numbers: equal arguments give equal intervals. They hold the scatter of
tasks and that of reviews. docs/statistics.md has the measured coverage, and why these were chosen.
"""

import math
from bisect import bisect_left
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

POINTS = 2_048
DIRECTIONS = 7
"""Independent parts of a change, at most: three of both sides' words, two of each side's reviews."""

Numbers = np.ndarray[Any, np.dtype[np.float64]]


class Figure(NamedTuple):
    """An estimate with its 95% interval."""

    value: float
    low: float
    high: float


class Strata(NamedTuple):
    """Outputs by the judge's word, and what people said of the reviewed ones; of each pair, not met comes first."""

    judged: tuple[float, float]
    """All outputs."""
    reviewed: tuple[float, float]
    """Those reviewed; fewer than counted where some weigh more than others."""
    met: tuple[float, float]
    """Those of the reviewed ones that are met as people say."""

    @property
    def judged_met(self) -> float:
        """Share of outputs that the judge takes to be met."""
        return self.judged[1] / sum(self.judged)

    def truth(self, word: int) -> float:
        """Share of the outputs with that word that are met; even where none was reviewed."""
        return self.met[word] / self.reviewed[word] if self.reviewed[word] else 0.5


class JudgeErrors(NamedTuple):
    """How a judge errs."""

    agreement: Figure
    """Share of outputs on which it says what people say."""
    kappa: Figure | None
    """Cohen's kappa; None where judge or people always say the same."""
    constant: float
    """Share that a judge would reach that always says what is more frequent."""
    sensitivity: Figure | None
    """Share of truly met outputs that it takes to be met; None where none is met."""
    specificity: Figure | None
    """Share of truly unmet outputs that it takes to be unmet; None where none is unmet."""


def errors(strata: Strata) -> JudgeErrors:
    """The judge's errors among outputs of this kind."""
    found = _cells(*(np.array([value]) for value in (strata.judged_met, strata.truth(1), strata.truth(0))))
    spread = _cells(*_parts(strata, 0))
    met, unmet = float((found[0] + found[2])[0]), float((found[1] + found[3])[0])
    return JudgeErrors(
        agreement=_figure(found[0] + found[3], spread[0] + spread[3]),
        kappa=_figure(_kappa(found), _kappa(spread)) if met and unmet and 0 < strata.judged_met < 1 else None,
        constant=max(met, unmet),
        sensitivity=_figure(found[0] / met, spread[0] / (spread[0] + spread[2])) if met else None,
        specificity=_figure(found[3] / unmet, spread[3] / (spread[1] + spread[3])) if unmet else None,
    )


def judged_rate(judged: tuple[float, float]) -> Figure:
    """The share of outputs that the judge takes to be met, with the interval that takes its word for the truth; not met comes first in *judged*."""
    return _figure(np.array([judged[1] / sum(judged)]), _beta(judged[1], sum(judged), 0))


def corrected_rate(strata: Strata) -> Figure:
    """The share of outputs that are truly met, where some of these very outputs were reviewed."""
    return _figure(np.array([_rate(strata.judged_met, strata.truth(1), strata.truth(0))]), _rate(*_parts(strata, 0)))


def reviews_needed(strata: Strata, reach: float) -> int | None:
    """
    How many reviewed outputs, drawn at random, bring the corrected rate to within *reach* on either side, if people go on finding what they found.

    Returns:
        None where not even the review of every output would: the run has too few tasks.
    """
    done, every = math.ceil(sum(strata.reviewed)), math.floor(sum(strata.judged))

    def near(count: int) -> bool:
        factor = count / sum(strata.reviewed)
        (unmet, met), (missed, right) = strata.reviewed, strata.met
        found = corrected_rate(Strata(strata.judged, (factor * unmet, factor * met), (factor * missed, factor * right)))
        return found.high - found.low <= 2 * reach

    if near(done):
        return done
    if done >= every or not near(every):
        return None
    return bisect_left(range(every + 1), True, lo=done, key=near)


def corrected_change(before: Strata, after: Strata, words: tuple[float, float, float, float]) -> Figure:
    """
    The change of the truly met share between two sides over the same tasks, each with reviews of its own.

    Args:
        words: tasks by the judge's words before and after: not met, not met; not met, met; met, not met; met, met.
    """
    found = [_rate(each.judged_met, each.truth(1), each.truth(0)) for each in (before, after)]
    shares = _paired(words)
    spread = [_rate(share, *_truths(each, places)) for share, each, places in zip(shares, (before, after), ((3, 4), (5, 6)), strict=True)]
    return _figure(np.array([found[1] - found[0]]), spread[1] - spread[0])


def transported_rate(judged: tuple[float, float], reference: Strata) -> Figure | None:
    """
    The share of outputs that are truly met, with the judge's sensitivity and specificity as measured on other outputs.

    Args:
        judged: the outputs by the judge's word, not met first.

    Returns:
        None where that judge is no better than chance.
    """
    share = judged[1] / sum(judged)
    found = _transported(np.array([share]), *(np.array([value]) for value in (reference.judged_met, reference.truth(1), reference.truth(0))))
    if np.isnan(found[0]):
        return None
    spread = _transported(_beta(judged[1], sum(judged), 3), *_parts(reference, 0))
    return _figure(found, np.where(np.isnan(spread), _lattice(POINTS)[:, 4], spread))


def transported_change(words: tuple[float, float, float, float], reference: Strata) -> Figure | None:
    """The change of the truly met share over the same tasks, with errors as measured on other outputs; *words* as for ``corrected_change``."""
    total = sum(words)
    shares = [np.array([(words[2] + words[3]) / total]), np.array([(words[1] + words[3]) / total])]
    fixed = [np.array([value]) for value in (reference.judged_met, reference.truth(1), reference.truth(0))]
    found = [_transported(share, *fixed) for share in shares]
    if np.isnan(found[0][0]) or np.isnan(found[1][0]):
        return None
    spread = [_transported(share, *_parts(reference, 3)) for share in _paired(words)]
    change = spread[1] - spread[0]
    return _figure(found[1] - found[0], np.where(np.isnan(change), 2 * _lattice(POINTS)[:, 6] - 1, change))


# -- parts --------------------------------------------------------------------------------------


def _parts(strata: Strata, first: int) -> tuple[Numbers, Numbers, Numbers]:
    """Share judged met, and the met share among those judged met and not met, as they may truly be."""
    met, missed = _truths(strata, (first + 1, first + 2))
    return _beta(strata.judged[1], sum(strata.judged), first), met, missed


def _truths(strata: Strata, places: tuple[int, int]) -> tuple[Numbers, Numbers]:
    return _beta(strata.met[1], strata.reviewed[1], places[0]), _beta(strata.met[0], strata.reviewed[0], places[1])


def _paired(words: tuple[float, float, float, float]) -> tuple[Numbers, Numbers]:
    """Shares judged met before and after, as they may truly be: the table of both words with Jeffreys' prior, one cell after the other."""
    neither, gained, lost, both = words
    stay = _beta(neither + both, neither + gained + lost + both, 0)
    up, kept = _beta(gained, gained + lost, 1), _beta(both, neither + both, 2)
    return stay * kept + (1 - stay) * (1 - up), stay * kept + (1 - stay) * up


def _beta(count: float, total: float, place: int) -> Numbers:
    """Shares that may lie behind *count* of *total*, at the points of the lattice in one of its directions."""
    return _quantiles(count, total, place, POINTS)


@lru_cache(maxsize=64)
def _quantiles(count: float, total: float, place: int, points: int) -> Numbers:
    from scipy import special

    found: Numbers = special.betaincinv(count + 0.5, total - count + 0.5, _lattice(points)[:, place])
    return found


@lru_cache(maxsize=2)
def _lattice(count: int) -> Numbers:
    """Points that fill the unit cube evenly, by an additive recurrence with the generalised golden ratio (Roberts 2018)."""
    ratio = 2.0
    for _ in range(60):
        ratio = (1 + ratio) ** (1 / (DIRECTIONS + 1))
    steps = np.array([ratio ** -(place + 1) for place in range(DIRECTIONS)])
    points: Numbers = (0.5 + np.outer(np.arange(1, count + 1), steps)) % 1
    return points


def _rate(share: Any, met: Any, missed: Any) -> Any:
    return share * met + (1 - share) * missed


def _cells(share: Numbers, met: Numbers, missed: Numbers) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Shares of outputs: passed rightly, passed falsely, failed falsely, failed rightly."""
    return share * met, share * (1 - met), (1 - share) * missed, (1 - share) * (1 - missed)


def _kappa(cells: tuple[Numbers, Numbers, Numbers, Numbers]) -> Numbers:
    judged, true = cells[0] + cells[1], cells[0] + cells[2]
    chance = judged * true + (1 - judged) * (1 - true)
    with np.errstate(all="ignore"):
        found: Numbers = np.nan_to_num((cells[0] + cells[3] - chance) / (1 - chance))
    return found


def _transported(share: Numbers, judged: Numbers, met: Numbers, missed: Numbers) -> Numbers:
    """Truly met shares; NaN where the judge is no better than chance."""
    cells = _cells(judged, met, missed)
    with np.errstate(all="ignore"):
        sensitivity, specificity = cells[0] / (cells[0] + cells[2]), cells[3] / (cells[1] + cells[3])
        found = (share + specificity - 1) / (sensitivity + specificity - 1)
    return np.where(sensitivity + specificity > 1 + 1e-9, np.clip(found, 0, 1), np.nan)


def _figure(found: Numbers, spread: Numbers) -> Figure:
    low, high = np.quantile(spread, [0.025, 0.975])
    value = float(found[0])
    return Figure(value, min(float(low), value), max(float(high), value))
