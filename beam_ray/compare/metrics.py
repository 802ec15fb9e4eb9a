"""
The numbers of a comparison: each before and after, with change and interval.

A number that does not exist is None and its note says why in words; never NaN, never 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from beam_ray.compare.metric_definitions import KINDS, Better, Kind
from beam_ray.compare.pairs import INFRASTRUCTURE, Pairs, Side, failed_with, numbers
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Means, Quantity


@dataclass(frozen=True)
class Metric:
    """One number of both sides."""

    name: str
    title: str
    unit: str
    better: Better
    before: float | None
    after: float | None
    change: float | None
    """In the metric's unit; for a percentage, points."""
    relative: float | None
    """The change in percent of *before*; None when that is 0."""
    low: float | None
    """Where the change may truly begin."""
    high: float | None
    relative_interval: Interval | None
    after_interval: Interval | None
    pairs: int
    """The pairs that have the number on both sides."""
    note: str = ""
    """What a reader must know; why there is no number."""


# of no kind of their own: the standard deviation is made of the scores and their squares
_SQUARES = "score²"
UNKNOWN = (
    "first_score",
    "tool_errors",
    "infrastructure_errors",
    "auto_reruns",
    "auto_rerun_tokens",
    "auto_rerun_usd",
    "seconds",
    "seconds_p50",
    "seconds_p95",
    "calls",
    "tokens",
    "usd",
)
"""What nobody knows of a side that production recorded."""
NOT_RECORDED = "not recorded"
_QUANTILES = {"seconds_p50": 50, "seconds_p95": 95}


def quantities(pairs: Pairs, baseline: Side, candidate: Side, judged: np.ndarray[Any, Any], failing: Quantity) -> dict[str, Quantity]:
    """
    Every quantity by name.

    Pairs outside *judged* count only for errors of infrastructure and tools. *failing* has
    one number a task, at its first pair.
    """
    both = (pairs.before, pairs.after)

    def of(column: str) -> Quantity:
        return Quantity(*(np.where(judged, numbers(side[column]).astype(np.float64), np.nan) for side in both))

    def known(found: Quantity) -> Quantity:
        # a side without the number is given the other's, so that the other's is averaged; ``metrics`` shows one side alone
        if baseline.recorded == candidate.recorded:
            return found
        return Quantity(found.after, found.after) if baseline.recorded else Quantity(found.before, found.before)

    def errors(kinds: tuple[str, ...], among: Any = True, *, others: bool = False) -> Quantity:
        sides = (failed_with(pairs, side.steps, kinds, others=others) for side in (baseline, candidate))
        return Quantity(*(np.where(among, flags.astype(np.float64), np.nan) for flags in sides))

    score = of("score")
    passed = of("passed")
    return {
        "success_rate": Quantity(*(np.where(judged, np.nan_to_num(side), np.nan) for side in (passed.before, passed.after))),
        "score": score,
        "first_score": known(of("first_score")),
        "failing": failing,
        _SQUARES: Quantity(score.before**2, score.after**2),
        "unscored": Quantity(*(np.where(judged, np.isnan(side).astype(np.float64), np.nan) for side in (score.before, score.after))),
        "tool_errors": known(errors(("ToolFailed",))),
        "infrastructure_errors": known(errors(INFRASTRUCTURE)),
        "answer_errors": errors(INFRASTRUCTURE, judged, others=True),
        "auto_reruns": known(of("auto_reruns")),
        "auto_rerun_tokens": known(of("auto_rerun_tokens")),
        "auto_rerun_usd": known(of("auto_rerun_usd")),
        "seconds": known(of("work_seconds")),
        "calls": known(of("work_calls")),
        "tokens": known(of("work_tokens")),
        "usd": known(of("work_usd")),
    }


def metrics(
    named: Mapping[str, Quantity], means: Mapping[str, Means], *, confidence: Confidence, recorded: tuple[bool, bool] = (False, False)
) -> tuple[Metric, ...]:
    """
    The metrics, in the order in which they are read.

    Args:
        recorded: whether baseline and candidate are what production recorded, of which UNKNOWN is not known.
    """
    made = []
    for name, kind in KINDS.items():
        if name in _QUANTILES:
            made.append(_quantile(name, kind, named["seconds"]))
        elif name == "score_sd":
            made.append(_metric(name, kind, _deviation(means["score"], means[_SQUARES]), "", confidence))
        else:
            mean = _scaled(means[name], kind.scale if name != "failing" else means[name].tasks)
            made.append(_metric(name, kind, mean, _missing(named, name, mean), confidence))
    return tuple(_one_sided(metric, recorded) if any(recorded) and metric.name in UNKNOWN else metric for metric in made)


def _one_sided(metric: Metric, recorded: tuple[bool, bool]) -> Metric:
    """The metric without the sides that do not have it, so that nothing is compared."""
    whose = " and the ".join(word for word, unknown in zip(("baseline", "candidate"), recorded, strict=True) if unknown)
    return replace(
        metric,
        before=None if recorded[0] else metric.before,
        after=None if recorded[1] else metric.after,
        change=None,
        relative=None,
        low=None,
        high=None,
        relative_interval=None,
        after_interval=None if recorded[1] else metric.after_interval,
        note=f"{NOT_RECORDED} on the {whose}",
    )


def rounded(value: float | None) -> float | None:
    """*value* to nine significant digits, so that a document does not depend on the last bit; None for no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.9g}") + 0.0


def rounded_interval(found: Interval | None) -> Interval | None:
    """The interval with both ends rounded."""
    return found and Interval(rounded(found.low) or 0.0, rounded(found.high) or 0.0)


def _metric(name: str, kind: Kind, mean: Means, note: str, confidence: Confidence) -> Metric:
    before, after = rounded(mean.before), rounded(mean.after)
    if before is None or after is None:
        nothing = (None, None, None, None, None, None, None, None)
        return Metric(name, kind.title, kind.unit, kind.better, *nothing, pairs=mean.pairs, note=note or "no pair has this number on both sides")
    # one task moves a mean of points by at most 100 of them over the number of tasks, and a count by one
    reach = {"%": 100.0, "points": 100.0, "tasks": float(mean.tasks)}.get(kind.unit, 0.0)
    change = confidence.interval(mean.after_drawn - mean.before_drawn, mean.after - mean.before, mean.tasks, reach)
    share, relative = None, None
    if before:
        # a baseline of next to nothing makes the ratio overflow; it then has no relative change
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            share = rounded(100 * float(np.float64(mean.after - mean.before) / mean.before))
            ratio = 100 * (mean.after_drawn / mean.before_drawn - 1)
            relative = None if share is None else confidence.interval(ratio, share, mean.tasks, 100 * reach / abs(mean.before))
    level = confidence.interval(mean.after_drawn, mean.after, mean.tasks, reach)
    if kind.scale == 100:
        level = confidence.of_share(mean.after, mean.tasks)
    return Metric(
        name,
        kind.title,
        kind.unit,
        kind.better,
        before,
        after,
        rounded(mean.after - mean.before),
        share,
        rounded(change.low) if change else None,
        rounded(change.high) if change else None,
        rounded_interval(relative),
        rounded_interval(level),
        mean.pairs,
        note or ("" if change else "too few tasks for an interval"),
    )


def _scaled(mean: Means, factor: float) -> Means:
    drawn = (mean.before_drawn * factor, mean.after_drawn * factor)
    return Means(mean.before * factor, mean.after * factor, *drawn, mean.pairs, mean.tasks)


def _deviation(mean: Means, squares: Means) -> Means:
    count = mean.pairs
    if count < 2:
        return Means(math.nan, math.nan, mean.before_drawn, mean.after_drawn, count, mean.tasks)

    def spread(square: Any, plain: Any) -> Any:
        return np.sqrt(np.maximum(0.0, square - plain**2) * count / (count - 1))

    return Means(
        float(spread(squares.before, mean.before)),
        float(spread(squares.after, mean.after)),
        spread(squares.before_drawn, mean.before_drawn),
        spread(squares.after_drawn, mean.after_drawn),
        count,
        mean.tasks,
    )


def _quantile(name: str, kind: Kind, seconds: Quantity) -> Metric:
    there = ~(np.isnan(seconds.before) | np.isnan(seconds.after))
    count = int(there.sum())
    before = after = math.nan
    if count:
        before, after = (float(np.percentile(side[there], _QUANTILES[name])) for side in (seconds.before, seconds.after))
    return Metric(
        name,
        kind.title,
        kind.unit,
        kind.better,
        rounded(before),
        rounded(after),
        rounded(after - before),
        rounded(100 * (after - before) / before) if count and before else None,
        *(None, None, None, None),
        pairs=count,
        note="has no interval" if count else "no pair has this number on both sides",
    )


def _missing(named: Mapping[str, Quantity], name: str, mean: Means) -> str:
    judged = ~np.isnan(named["success_rate"].before)
    gone = [int(np.isnan(side[judged]).sum()) for side in (named[name].before, named[name].after)]
    if name == "usd" and max(gone):
        unpriced = " and the ".join(word for word, count in zip(("baseline", "candidate"), gone, strict=True) if count)
        rest = f"; {mean.pairs:,} pairs have a price on both sides" if mean.pairs else ""
        return f"unpriced: a model of the {unpriced} has no price{rest}"
    if name in ("score", "first_score") and max(gone):
        return f"unscored and excluded: {gone[0]:,} on the baseline, {gone[1]:,} on the candidate"
    return ""
