"""Several candidates side by side: verdicts with and without correction, gains as found and shrunk, and score against cost and time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from beam_ray.compare.comparison import Comparison
from beam_ray.compare.flips import NOT_JUDGED
from beam_ray.compare.metric_definitions import KINDS
from beam_ray.compare.metrics import Metric, rounded, rounded_interval
from beam_ray.compare.pairs import numbers
from beam_ray.compare.pareto import Point, front
from beam_ray.compare.report import Result, best
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.shrinkage import covariance_of, shrunk
from beam_ray.compare.statistics import Interval, Numbers
from beam_ray.compare.verdict_json import FrontDocument, GainDocument, IntervalDocument, OverviewDocument, PointDocument, Word

GAINS = ("score", "success_rate")
COSTS = ("usd", "tokens")
"""What a task costs: money, or tokens where a model has no price."""


@dataclass(frozen=True)
class Gain:
    """A candidate's change of one metric, as found, and shrunk for having been chosen among several."""

    metric: str
    found: float
    interval: Interval
    shrunk: float
    shrunk_interval: Interval


@dataclass(frozen=True)
class Candidate:
    """One candidate among several."""

    name: str
    word: Word
    own_word: Word
    gains: Mapping[str, Gain]
    """By metric; without those that have no number on both sides."""
    comparison: Comparison


@dataclass(frozen=True)
class Front:
    """All sides by what they reach and what that takes."""

    score: str
    """The metric that they reach."""
    cost: str
    """The metric that it takes."""
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Overview:
    """All candidates of a backtest."""

    baseline: str
    candidates: tuple[Candidate, ...]
    best: str
    fronts: tuple[Front, ...]
    """Score against cost, and against time, where there are such numbers."""
    confidence: float

    def document(self) -> OverviewDocument:
        """The overview as plain JSON."""
        return {
            "correction": "holm",
            "gains": [_gain_document(each.name, gain) for each in self.candidates for gain in each.gains.values()],
            "fronts": [_front_document(each) for each in self.fronts],
        }


def overview(results: Sequence[Result]) -> Overview | None:
    """The candidates side by side; None for a single one, and for a baseline that was compared with itself."""
    if len(results) < 2:
        return None
    gains = {metric: _gains(results, metric) for metric in GAINS}
    candidates = tuple(
        Candidate(
            comparison.candidate.name,
            verdict.word,
            verdict.own_word or verdict.word,
            {metric: gain for metric, found in gains.items() if (gain := found.get(index))},
            comparison,
        )
        for index, (comparison, verdict) in enumerate(results)
    )
    first = results[0].comparison
    fronts = [made for cost in (_cost(results), "seconds") if cost and (made := _front(results, cost))]
    return Overview(first.baseline.name, candidates, best(results).comparison.candidate.name, tuple(fronts), first.confidence)


def task_changes(comparison: Comparison, metric: str) -> dict[str, float]:
    """Each task's change of score, or of its success in percent; over those pairs that have it on both sides."""
    table = comparison.table.filter(pc.not_equal(comparison.table["flip"], NOT_JUDGED))
    column, scale = ("passed", 100.0) if metric == "success_rate" else ("score", 1.0)
    changes = scale * (numbers(table[f"after_{column}"]).astype(float) - numbers(table[f"before_{column}"]).astype(float))
    coded = table["task_id"].combine_chunks().dictionary_encode()
    there, places = ~np.isnan(changes), numbers(coded.indices).astype(int)
    counts, sums = (np.bincount(places[there], weights=weights, minlength=len(coded.dictionary)) for weights in (None, changes[there]))
    return {task: total / count for task, total, count in zip(coded.dictionary.to_pylist(), sums.tolist(), counts.tolist(), strict=True) if count}


def _gains(results: Sequence[Result], name: str) -> dict[int, Gain]:
    """The gains of the candidates that have the metric, by their place."""
    metrics = {index: result.comparison.metric(name) for index, result in enumerate(results)}
    known = {index: metric for index, metric in metrics.items() if metric.change is not None and metric.low is not None and metric.high is not None}
    if len(known) < 2:
        return {}
    confidence = results[0].comparison.confidence
    changes = [task_changes(results[index].comparison, name) for index in known]
    tasks = sorted({task for each in changes for task in each})
    table: Numbers = np.array([[each.get(task, np.nan) for each in changes] for task in tasks], dtype=np.float64)
    errors = [_error(metric, results[index].comparison) for index, metric in known.items()]
    found = shrunk([metric.change or 0.0 for metric in known.values()], covariance_of(table, errors), confidence)
    made = {}
    for (index, metric), each in zip(known.items(), found, strict=True):
        ends = Interval(metric.low or 0.0, metric.high or 0.0)
        interval = rounded_interval(Interval(max(each.interval.low, -100.0), min(each.interval.high, 100.0)))
        assert interval
        made[index] = Gain(name, metric.change or 0.0, ends, rounded(each.gain) or 0.0, interval)
    return made


def _error(metric: Metric, comparison: Comparison) -> float:
    """The standard error of a change, from its interval, so that it allows for changes that the sample does not have."""
    assert metric.low is not None and metric.high is not None
    tasks = comparison.units
    return max((metric.high - metric.low) / 2 / Confidence(comparison.confidence, comparison.planned, tasks).quantile(tasks), 1e-6)


def _cost(results: Sequence[Result]) -> str | None:
    return next((name for name in COSTS if all(result.comparison.metric(name).after is not None for result in results)), None)


def _front(results: Sequence[Result], cost: str) -> Front | None:
    score = next((name for name in GAINS if all(result.comparison.metric(name).after is not None for result in results)), None)
    if score is None:
        return None
    first = results[0].comparison
    sides: list[tuple[str, float | None, float | None]] = [(first.baseline.name, first.metric(score).before, first.metric(cost).before)]
    sides += [(each.candidate.name, each.metric(score).after, each.metric(cost).after) for each, _ in results]
    points = [Point(name, reached, taken) for name, reached, taken in sides if reached is not None and taken is not None]
    return Front(score, cost, tuple(front(points))) if len(points) > 1 and any(point.cost for point in points) else None


def title_of(metric: str) -> str:
    """A metric as reports name it."""
    return KINDS[metric].title


def _gain_document(name: str, gain: Gain) -> GainDocument:
    return {
        "name": name,
        "metric": gain.metric,
        "found": gain.found,
        "interval": _interval(gain.interval),
        "shrunk": gain.shrunk,
        "shrunk_interval": _interval(gain.shrunk_interval),
    }


def _front_document(found: Front) -> FrontDocument:
    points: list[PointDocument] = [{"name": point.name, "score": point.score, "cost": point.cost, "dominated_by": point.dominated_by} for point in found.points]
    return {"score": found.score, "cost": found.cost, "points": points}


def _interval(found: Interval) -> IntervalDocument:
    return {"low": found.low, "high": found.high}
