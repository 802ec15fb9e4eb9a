"""
The numbers of a comparison: each before and after, with change and interval.

A number that does not exist is None and its note says why in words; never NaN, never 0.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from beam_ray.compare.error_kinds import KINDS as ERROR_KINDS
from beam_ray.compare.error_kinds import failed_by_kind
from beam_ray.compare.intervals import Estimate, Sample, change, deviations, level, quantiles, relative, sample
from beam_ray.compare.metric_definitions import KINDS, OF_CALLS, Better, Kind
from beam_ray.compare.pairs import INFRASTRUCTURE, Pairs, Side, failed_with, numbers
from beam_ray.compare.power import Planning, planning
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Quantity


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
    planning: Planning | None = field(default=None, repr=False, compare=False, metadata={"document": False})
    """What more tasks are planned with."""


UNKNOWN = (
    "first_score",
    "tool_errors",
    "infrastructure_errors",
    "timeouts",
    "refusals",
    "bad_answers",
    "other_errors",
    *OF_CALLS,
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
NOT_COMPARED = "not compared"
"""How the note of a metric begins that has no change, although there are pairs."""
_QUANTILES = {"seconds_p50": 50, "seconds_p95": 95}


def quantities(pairs: Pairs, baseline: Side, candidate: Side, judged: np.ndarray[Any, Any], failing: Quantity) -> dict[str, Quantity]:
    """
    Every quantity by name.

    Pairs outside *judged* count only for errors other than answer errors. *failing* has
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
        sides = (failed_with(pairs, side.failed, kinds, others=others) for side in (baseline, candidate))
        return Quantity(*(np.where(among, flags.astype(np.float64), np.nan) for flags in sides))

    kinds = [failed_by_kind(pairs, side.failed) for side in (baseline, candidate)]
    by_kind = {kind: known(Quantity(*(found[kind].astype(np.float64) for found in kinds))) for kind in ERROR_KINDS}
    score = of("score")
    passed = of("passed")
    return {
        "success_rate": Quantity(*(np.where(judged, np.nan_to_num(side), np.nan) for side in (passed.before, passed.after))),
        "score": score,
        "first_score": known(of("first_score")),
        "failing": failing,
        "unscored": Quantity(*(np.where(judged, np.isnan(side).astype(np.float64), np.nan) for side in (score.before, score.after))),
        "tool_errors": known(errors(("ToolFailed",))),
        "infrastructure_errors": known(errors(INFRASTRUCTURE)),
        "answer_errors": errors(INFRASTRUCTURE, judged, others=True),
        **by_kind,
        "turns": known(of("turns")),
        "tool_calls": known(of("tool_calls")),
        "failed_tool_calls": known(of("tool_errors")),
        "auto_reruns": known(of("auto_reruns")),
        "auto_rerun_tokens": known(of("auto_rerun_tokens")),
        "auto_rerun_usd": known(of("auto_rerun_usd")),
        "seconds": known(of("work_seconds")),
        "calls": known(of("work_calls")),
        "tokens": known(of("work_tokens")),
        "usd": known(of("work_usd")),
    }


def metrics(
    named: Mapping[str, Quantity], task: np.ndarray[Any, Any], *, confidence: Confidence, recorded: tuple[bool, bool] = (False, False)
) -> tuple[Metric, ...]:
    """
    The metrics, in the order in which they are read.

    Args:
        recorded: whether baseline and candidate are what production recorded, of which UNKNOWN is not known.
    """
    made = []
    for name, kind in KINDS.items():
        if name in _QUANTILES:
            quantity = named["seconds"]
            found = quantiles(quantity, task, _QUANTILES[name], confidence)
            pairs, wanting = _pairs(quantity), f"too few tasks for an interval of the {'median' if name == 'seconds_p50' else '95th percentile'}"
        elif name == "score_sd":
            quantity = named["score"]
            sampled = sample(quantity, task, largest=100.0)
            found, pairs, wanting = deviations(quantity, task, sampled, confidence), sampled.pairs, "too few tasks for an interval"
        else:
            largest = {"%": 1.0, "points": 100.0, "tasks": 1.0}.get(kind.unit)
            sampled = sample(named[name], task, largest=largest, usual=_usual(named, name))
            factor = kind.scale if name != "failing" else float(sampled.pairs)
            made.append(_mean(name, kind, sampled, factor, _missing(named, name, sampled.pairs), confidence))
            continue
        made.append(_metric(name, kind, found, pairs, "" if found.change else wanting))
    whose = " and the ".join(word for word, unknown in zip(("baseline", "candidate"), recorded, strict=True) if unknown)
    note = f"{NOT_RECORDED} on the {whose}"
    return tuple(not_compared(metric, recorded, note) if whose and metric.name in UNKNOWN else metric for metric in made)


def not_compared(metric: Metric, unknown: tuple[bool, bool], note: str) -> Metric:
    """The metric without its change, and without the value of a side on which it is *unknown*; *note* says why."""
    return replace(
        metric,
        before=None if unknown[0] else metric.before,
        after=None if unknown[1] else metric.after,
        change=None,
        relative=None,
        low=None,
        high=None,
        relative_interval=None,
        after_interval=None if unknown[1] else metric.after_interval,
        note=note,
    )


def rounded(value: float | None) -> float | None:
    """*value* to twelve significant digits, so that a document does not depend on the last bit; None for no number."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.12g}") + 0.0


def rounded_interval(found: Interval | None) -> Interval | None:
    """The interval with both ends rounded."""
    return found and Interval(rounded(found.low) or 0.0, rounded(found.high) or 0.0)


def _mean(name: str, kind: Kind, sampled: Sample, factor: float, note: str, confidence: Confidence) -> Metric:
    before, after = sampled.means
    bounds = {"largest": sampled.largest} if sampled.largest is not None else {"usual": sampled.unit}
    scaled = (
        found and Interval(found.low * factor, found.high * factor)
        for found in (change(sampled, confidence), level(sampled.after, confidence, effective=sampled.effective, **bounds))
    )
    moved, reached = scaled
    found = Estimate(before * factor, after * factor, moved, relative(sampled, confidence), reached)
    metric = _metric(name, kind, found, sampled.pairs, note or ("" if moved else "too few tasks for an interval"))
    # a number of failing tasks grows with the tasks
    if moved is None or name == "failing":
        return metric
    return replace(metric, planning=planning(factor * (sampled.after - sampled.before), factor * sampled.usual))


def _metric(name: str, kind: Kind, found: Estimate, pairs: int, note: str) -> Metric:
    before, after = rounded(found.before), rounded(found.after)
    if before is None or after is None:
        nothing = (None, None, None, None, None, None, None, None)
        # what is unpriced or unscored says more than that there is none
        note = note if pairs == 0 and ":" in note else "no pair has this number on both sides"
        return Metric(name, kind.title, kind.unit, kind.better, *nothing, pairs=pairs, note=note)
    share = None
    if before:
        # a baseline of next to nothing makes the ratio overflow; it then has no relative change
        with np.errstate(over="ignore"):
            share = rounded(100 * float(np.float64(found.after - found.before) / found.before))
    return Metric(
        name,
        kind.title,
        kind.unit,
        kind.better,
        before,
        after,
        rounded(found.after - found.before),
        share,
        rounded(found.change.low) if found.change else None,
        rounded(found.change.high) if found.change else None,
        None if share is None else rounded_interval(found.relative),
        rounded_interval(found.level),
        pairs,
        note,
    )


def _pairs(quantity: Quantity) -> int:
    return int((~(np.isnan(quantity.before) | np.isnan(quantity.after))).sum())


def _usual(named: Mapping[str, Quantity], name: str) -> float | None:
    """A value that a task may have of the metric although none has; None for the mean."""
    if name == "auto_reruns":
        return 1.0
    whole = {"auto_rerun_tokens": "tokens", "auto_rerun_usd": "usd"}.get(name)
    if whole is None:
        return None
    # another attempt costs about what the task did
    values = np.concatenate([named[whole].before, named[whole].after])
    return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0


def _missing(named: Mapping[str, Quantity], name: str, pairs: int) -> str:
    judged = ~np.isnan(named["success_rate"].before)
    gone = [int(np.isnan(side[judged]).sum()) for side in (named[name].before, named[name].after)]
    if name == "usd" and max(gone):
        unpriced = " and the ".join(word for word, count in zip(("baseline", "candidate"), gone, strict=True) if count)
        rest = f"; {pairs:,} pairs have a price on both sides" if pairs else ""
        return f"unpriced: a model of the {unpriced} has no price{rest}"
    if name in ("score", "first_score") and max(gone):
        return f"unscored and excluded: {gone[0]:,} on the baseline, {gone[1]:,} on the candidate"
    return ""
