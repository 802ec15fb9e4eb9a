"""
Two sides over the same tasks, compared pair by pair.

A pair is a task and trial that both sides ran on the same inputs; what has no partner is
counted and named. A pair whose model was unavailable on either side says nothing about
quality: it is counted, named, and left out of every number but the error rates.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from beam_ray.compare.breakdown import Slice, by_criterion, by_label, by_node, by_route, slices
from beam_ray.compare.classification import Classification, ClassMeasure, classify
from beam_ray.compare.criterion_columns import changed_criteria, criterion_columns
from beam_ray.compare.flips import (
    BOTH_FAILING,
    NEWLY_FAILING,
    NEWLY_PASSING,
    NOT_JUDGED,
    WORDS,
    RouteFlip,
    diverge,
    flip_words,
    majority,
    route_flips,
)
from beam_ray.compare.grouping import Clustering, Grouping, clustering
from beam_ray.compare.intervals import p_of_change, sample
from beam_ray.compare.metrics import Metric, metrics, quantities, rounded
from beam_ray.compare.pair_table import Change, changes, rows
from beam_ray.compare.pairs import UNAVAILABLE, Pairs, Side, failed_with, numbers, pair
from beam_ray.compare.power import detectable, two_digits
from beam_ray.compare.regressions import Regressions, Repeats, regressions
from beam_ray.compare.replay import Replay, by_recording, replay, states
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Quantity, mcnemar
from beam_ray.compare.subgroups import Subgroups, subgroups
from beam_ray.compare.verdict_json import ComparisonDocument

MAJOR = 10.0
"""Points of success rate: what is called a major change."""


@dataclass(frozen=True)
class Named:
    """A side as reports name it."""

    name: str
    run_id: str


@dataclass(frozen=True)
class Unpaired:
    """The tasks that have no partner, and those that say nothing about quality."""

    baseline_only: tuple[str, ...]
    candidate_only: tuple[str, ...]
    inputs_differ: tuple[str, ...]
    not_judged: tuple[str, ...]
    """Paired, but the model was unavailable in every trial of one side."""

    @property
    def count(self) -> int:
        """How many tasks could not be compared."""
        return len({*self.baseline_only, *self.candidate_only, *self.inputs_differ, *self.not_judged})


@dataclass(frozen=True)
class Comparison:
    """Everything that two sides say about each other. ``document()`` is plain JSON."""

    baseline: Named
    candidate: Named
    same: bool
    """Whether both sides are samples of one definition: then all that differs is noise."""
    confidence: float
    """Of every interval, in percent."""
    planned: int
    """Where the backtest may stop early, the tasks that were planned: intervals are then valid at every interim analysis. Otherwise 0."""
    pairs: int
    """Pairs that were judged."""
    tasks: int
    trials: int
    unpaired: Unpaired
    metrics: tuple[Metric, ...]
    p: float
    """McNemar's exact test of newly passing against newly failing tasks; of clusters, the test of the change of the success rate."""
    detectable_score: float | None
    """Minimum detectable effect of the mean score at 80% power, in points; from the width of its interval."""
    detectable_rate: float | None
    """The same for the success rate, in points."""
    advice: str
    slices: tuple[Slice, ...]
    newly_passing: tuple[str, ...]
    newly_failing: tuple[str, ...]
    both_failing: tuple[str, ...]
    regressions: Regressions
    route_flips: tuple[RouteFlip, ...]
    changes: tuple[Change, ...]
    """The tasks that flipped, each with the first node at which its two runs differ."""
    changes_left_out: int
    """Changed tasks beyond those in *changes*; the table has them all."""
    table: pa.Table = field(repr=False, compare=False)
    """One row for each pair: the content of comparison.parquet."""
    classifications: tuple[Classification, ...] = ()
    """Precision, recall and F1 of the fields that are compared with an expected class."""
    subgroups: tuple[Subgroups, ...] = ()
    """The slices that were asked for, by field."""
    clustering: Clustering | None = None
    """The clusters that intervals and tests count instead of tasks; None where tasks are independent."""
    cost_notes: tuple[str, ...] = ()
    """Where prices come from, what was read from a cache, and what is an estimate."""
    judge_notes: tuple[str, ...] = ()
    """How often the judges of panels disagreed."""
    replay: Replay | None = None
    """What the candidate's agents and programs were answered from; None where it has none."""

    def metric(self, name: str) -> Metric:
        """The metric of that name."""
        return next(entry for entry in self.metrics if entry.name == name)

    @property
    def class_measures(self) -> tuple[ClassMeasure, ...]:
        """The measures of all classifications."""
        return tuple(measure for classification in self.classifications for measure in classification.measures)

    @property
    def shown_classifications(self) -> tuple[Classification, ...]:
        """The classifications that have pairs."""
        return tuple(classification for classification in self.classifications if classification.pairs)

    @property
    def shown_subgroups(self) -> tuple[Subgroups, ...]:
        """The slices by fields that some task has."""
        return tuple(group for group in self.subgroups if group.members)

    def of_kind(self, kind: str) -> tuple[Slice, ...]:
        """The slices by node, criterion, label or route."""
        return tuple(entry for entry in self.slices if entry.kind == kind)

    @property
    def route_changes(self) -> int:
        """How many pairs took another way."""
        return sum(flip.pairs for flip in self.route_flips if flip.before != flip.after)

    @property
    def units(self) -> int:
        """How many clusters, or else tasks, the intervals are over."""
        return self.clustering.clusters if self.clustering else self.tasks

    def confirmed(self, first: Mapping[str, Repeats], second: Mapping[str, Repeats] | None = None) -> "Comparison":
        """The same, knowing how the newly failing tasks did when they were repeated: see ``regressions``."""
        return replace(self, regressions=regressions(self.newly_failing, first, second))

    def document(self) -> ComparisonDocument:
        """The comparison as plain JSON, without the table of pairs."""
        plain: ComparisonDocument = _plain({entry.name: getattr(self, entry.name) for entry in fields(self) if entry.name != "table"})
        return plain


def compare(
    baseline: Side,
    candidate: Side,
    *,
    order: Sequence[str] = (),
    family: int = 1,
    confidence: float = 95.0,
    planned: int = 0,
    same: bool = False,
    grouping: Grouping | None = None,
) -> Comparison:
    """
    Compare *candidate* with *baseline*, pair by pair.

    Swapping the sides turns the sign of every change. Equal arguments give equal values: nothing is drawn at random.

    Args:
        order: the workflow's nodes, each after what it stands on.
        family: how many candidates are compared at once; p-values are adjusted for it.
        same: whether both sides are samples of one definition.
        planned: of a backtest that may stop early, its tasks; intervals and p-values are then valid at every interim analysis.
        grouping: what is known of the tasks: classes that they expect, clusters that they come in, slices that they belong to.
    """
    grouping = grouping or Grouping()
    pairs = pair(baseline, candidate)
    baseline, candidate = pairs.placed(baseline, candidate)
    unavailable = failed_with(pairs, baseline.failed, (UNAVAILABLE,)) | failed_with(pairs, candidate.failed, (UNAVAILABLE,))
    judged = ~unavailable
    passing = Quantity(*(majority(np.nan_to_num(numbers(side["passed"]).astype(float)), pairs.task, judged) for side in (pairs.before, pairs.after)))
    named = quantities(pairs, baseline, candidate, judged, _once(passing, pairs))
    nodes = [*order, *sorted({*baseline.by_node, *candidate.by_node} - set(order))]
    criteria = criterion_columns(pairs, baseline), criterion_columns(pairs, candidate)
    parts = [
        by_node(pairs, baseline, candidate, nodes, judged),
        by_criterion((baseline, candidate), *criteria, judged),
        by_label(pairs, named["score"]),
        by_route(pairs, named["score"]),
        by_recording(named["score"], states(pairs, candidate)),
    ]
    words = flip_words(passing.before, passing.after)
    table = rows(pairs, words, diverge(pairs, baseline, candidate, order), changed_criteria(*criteria, len(pairs)))
    listed = {
        word: tuple(pairs.ids.filter(pa.array(words == WORDS.index(word))).to_pylist()) for word in (NEWLY_PASSING, NEWLY_FAILING, BOTH_FAILING, NOT_JUDGED)
    }
    shown, left_out = changes(table)
    failing = listed[NEWLY_FAILING]
    count = len(words) - len(listed[NOT_JUDGED])
    # what is drawn at random: tasks, or clusters of them
    unit = grouping.clusters.units(pairs.task_ids)[pairs.task] if grouping.clusters else pairs.task
    units = int((np.bincount(unit[judged]) > 0).sum())
    sure = Confidence(confidence, planned, units)
    measured = metrics(named, unit, confidence=sure, recorded=(baseline.recorded, candidate.recorded))
    able = {metric.name: _detectable(metric, sure, units) for metric in measured}
    return Comparison(
        Named(baseline.name, baseline.run_id),
        Named(candidate.name, candidate.run_id),
        same,
        confidence,
        planned,
        int(judged.sum()),
        count,
        int(np.bincount(pairs.task).max()) if len(pairs) else 0,
        Unpaired(pairs.baseline_only, pairs.candidate_only, pairs.inputs_differ, listed[NOT_JUDGED]),
        measured,
        rounded(sure.p(_p_of_flips(len(listed[NEWLY_PASSING]), len(failing), named, unit if grouping.clusters else None, sure))) or 0.0,
        able["score"],
        able["success_rate"],
        size_advice(count, able["success_rate"]),
        tuple(entry for group in parts for entry in slices(group, pairs.task, unit, confidence=sure, family=family)),
        listed[NEWLY_PASSING],
        failing,
        listed[BOTH_FAILING],
        regressions(failing, {}),
        route_flips(pairs, baseline, candidate),
        shown,
        left_out,
        table,
        classify(pairs, (baseline, candidate), grouping.questions, judged, unit, confidence=sure, family=family),
        subgroups(grouping.dimensions, pairs, named, unit, confidence=sure, family=family),
        clustering(grouping.clusters, [pairs.task_ids[task] for task in np.unique(pairs.task[judged])]) if grouping.clusters else None,
        replay=replay(candidate),
    )


def size_advice(tasks: int, detectable_rate: float | None) -> str:
    """What so many tasks are good for, in a sentence; *detectable_rate* is the change of the success rate that they show with 80% power, in points."""
    if tasks < 10:
        return f"{tasks} {'task' if tasks == 1 else 'tasks'}: too few to judge. Use at least 10, better 20 to 30"
    if detectable_rate is not None and detectable_rate <= MAJOR:
        return f"{tasks:,} tasks: enough to judge a major change ({MAJOR:g} points with 80% power)"
    good = "enough for a basic check" if tasks < 20 else "a good size for a first answer" if tasks < 50 else "too few to judge a major change"
    needed = "more" if detectable_rate is None else f"about {two_digits(tasks * (detectable_rate / MAJOR) ** 2):,}"
    return f"{tasks:,} tasks: {good}; {MAJOR:g} points of success rate need {needed} (80% power)"


def _detectable(metric: Metric, confidence: Confidence, tasks: int) -> float | None:
    """The smallest change that would be shown with 80% power; None without an interval, or where no possible change is large enough."""
    if metric.low is None or metric.high is None or tasks < 2:
        return None
    found = detectable(Interval(metric.low, metric.high), confidence.quantile(tasks), tasks)
    return rounded(found) if found <= 100 or metric.unit not in ("%", "points") else None


def _p_of_flips(better: int, worse: int, named: Mapping[str, Quantity], unit: np.ndarray[Any, Any] | None, confidence: Confidence) -> float:
    return mcnemar(better, worse) if unit is None else p_of_change(sample(named["success_rate"], unit, largest=1.0), confidence)


def _once(passing: Quantity, pairs: Pairs) -> Quantity:
    """Whether each task fails, at its first pair; NaN at the others."""
    return Quantity(*(np.where(pairs.first, 1 - side[pairs.task], np.nan) for side in (passing.before, passing.after)))


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)) and not hasattr(value, "_fields"):
        return [entry if type(entry) is str else _plain(entry) for entry in value]
    if isinstance(value, tuple):
        return {name: _plain(entry) for name, entry in value._asdict().items()}  # type: ignore[attr-defined]
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    if hasattr(value, "__dataclass_fields__"):
        return {entry.name: _plain(getattr(value, entry.name)) for entry in fields(value) if entry.metadata.get("document", True)}
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a value that is not a number reached the document")
    return value
