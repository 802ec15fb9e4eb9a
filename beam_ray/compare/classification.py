"""
Classification: precision, recall and F1 where a criterion compares a ``one of`` field with the expected value.

Each pair of a task that expects a class gives one answer a side. An answer that is missing,
failed or none of the classes is no answer: it is counted in a column of its own and never
dropped, so it lowers recall and F1. Macro averages are over the classes that are expected, the same on both
sides; a class that a side never answers has a precision of 0 in them. Intervals are in ``ratios``.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow.compute as pc

from beam_ray.compare.class_questions import BY_CLASS, Question
from beam_ray.compare.metric_definitions import Better
from beam_ray.compare.metrics import NOT_RECORDED, Metric, not_compared, rounded, rounded_interval
from beam_ray.compare.pairs import Pairs, Side, numbers
from beam_ray.compare.ratios import FEWEST_UNITS, Counts, Ratio
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Numbers, holm
from beam_ray.compare.verdict_json import ClassMeasureKind as Kind
from beam_ray.evaluate.rules import look, same

OVERALL: tuple[Kind, ...] = ("f1", "precision", "recall", "micro_f1", "micro_precision", "micro_recall", "no_answer")
TITLES: Mapping[Kind, str] = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "micro_precision": "micro-averaged precision",
    "micro_recall": "micro-averaged recall",
    "micro_f1": "micro-averaged F1",
    "no_answer": "answers missing or invalid",
}
_SKIPPED, _NONE = -2, -1
Codes = np.ndarray[Any, np.dtype[np.int64]]
Flags = np.ndarray[Any, np.dtype[np.bool_]]


@dataclass(frozen=True)
class ClassMeasure:
    """Precision, recall or F1 of one class, or an average over all, as a metric."""

    kind: Kind
    label: str | None
    """The class; None for all of them."""
    metric: Metric
    before_count: int
    """The answers or tasks that it is a share of, on the baseline."""
    after_count: int
    p: float
    """Of the change: below 5% exactly when the 95% interval leaves out 0. 1 where there is no interval."""
    p_adjusted: float
    """Holm's, over all classes that have an interval of this kind and all candidates."""

    @property
    def name(self) -> str:
        """As gates name it: ``extract/team.recall[billing]``."""
        return self.metric.name


@dataclass(frozen=True)
class Cell:
    """How often tasks that expect one class were given one answer."""

    expected: str
    answered: str | None
    """None for an answer that is missing or none of the classes."""
    before: int | None
    after: int | None


@dataclass(frozen=True)
class Classification:
    """One field of one node, as answers to a question with known classes."""

    name: str
    """``node/criterion``."""
    node: str
    field: str
    classes: tuple[str, ...]
    """The values that the field may have, and expected ones beyond them."""
    counts: tuple[int, ...]
    """Pairs that expect each class."""
    pairs: int
    tasks: int
    without_expected: int
    """Pairs whose task expects nothing of the field; left out."""
    not_reached: int
    """Pairs that reached the node on neither side, and did not fail; left out."""
    changed_expected: int
    """Tasks that expect another class on the baseline; both sides are held against the candidate's."""
    cells: tuple[Cell, ...]
    """The confusion matrix, without cells that are 0 on both sides."""
    measures: tuple[ClassMeasure, ...]

    def measure(self, kind: str, label: str | None = None) -> ClassMeasure:
        """The measure of that kind and class."""
        return next(entry for entry in self.measures if entry.kind == kind and entry.label == label)


@dataclass(frozen=True)
class _Answers:
    """What each pair that counts expects, and what both sides answered, as places in the classes."""

    expected: Codes
    before: Codes
    after: Codes
    unit: Codes
    units: int

    def about(self, label: int) -> "_Answers":
        """Those that expect or give one class: of many classes each is in few."""
        rows = np.flatnonzero((self.expected == label) | (self.before == label) | (self.after == label))
        units, codes = np.unique(self.unit[rows], return_inverse=True)
        return _Answers(self.expected[rows], self.before[rows], self.after[rows], codes, len(units))

    def ratio(self, kind: Kind, labels: Sequence[int]) -> Ratio:
        """The ratio of that kind over the classes *labels*; a micro average for none."""
        sides = [self._counts(kind.removeprefix("micro_"), answered, labels) for answered in (self.before, self.after)]
        wrong, right = {"f1": (1.0, 2.0), "no_answer": (1.0, 1.0)}.get(kind.removeprefix("micro_"), (1.0, 1.0))
        return Ratio(sides[0], sides[1], wrong, right) if kind != "micro_f1" else Ratio(sides[0], sides[1], 2.0, 2.0)

    def _counts(self, kind: str, answered: Codes, labels: Sequence[int]) -> Counts:
        over, under = [], []
        for label in labels or (None,):
            expects = self.expected == label if label is not None else np.ones(len(self.expected), dtype=bool)
            answers = answered == label if label is not None else answered >= 0
            right = (answered == self.expected) & expects
            if kind == "no_answer":
                over.append(self._summed(answered < 0))
                under.append(self._summed(expects))
            else:
                over.append(self._summed(right) * (2 if kind == "f1" else 1))
                under.append({"precision": answers, "recall": expects}.get(kind, answers.astype(np.int64) + expects))
                under[-1] = self._summed(under[-1])
        return Counts(np.array(over).T, np.array(under).T)

    def _summed(self, values: Any) -> Numbers:
        # a unit counts one, however many trials it has
        return np.bincount(self.unit, weights=values, minlength=self.units) * self.units / max(len(self.unit), 1)


def classify(
    pairs: Pairs, sides: tuple[Side, Side], questions: Sequence[Question], judged: Flags, unit: Codes, *, confidence: Confidence, family: int = 1
) -> tuple[Classification, ...]:
    """
    The classification of each question; one whose classes no judged pair expects has no numbers.

    Args:
        sides: baseline and candidate, placed.
        unit: of each pair its task, or the cluster of its task.
    """
    return _adjusted([_classified(pairs, sides, question, judged, unit, confidence) for question in questions], family)


def _classified(pairs: Pairs, sides: tuple[Side, Side], question: Question, judged: Flags, unit: Codes, confidence: Confidence) -> Classification:
    expected = [question.expected.get(task) for task in pairs.task_ids]
    classes = [*question.options, *sorted({each for each in expected if each is not None and each not in question.options})]
    places = {name: place for place, name in enumerate(classes)}
    wants = np.array([_SKIPPED if each is None else places[each] for each in expected], dtype=np.int64)[pairs.task] if expected else np.zeros(0, np.int64)
    answers = [_answered(pairs, side, question, classes) for side in sides]
    failed = [numbers(pc.equal(side["outcome"], "failed")).astype(bool) for side in (pairs.before, pairs.after)]
    asked = judged & (wants >= 0)
    nowhere = asked & (answers[0] == _SKIPPED) & (answers[1] == _SKIPPED) & ~failed[0] & ~failed[1]
    rows = np.flatnonzero(asked & ~nowhere)
    units, codes = np.unique(unit[rows], return_inverse=True)
    before, after = (np.maximum(answer[rows], _NONE) for answer in answers)
    data = _Answers(wants[rows], before, after, codes, len(units))
    # what production recorded may be of another node
    unknown = tuple(side.recorded and len(rows) > 0 and not (answer[rows] >= 0).any() for side, answer in zip(sides, answers, strict=True))
    counts = np.bincount(data.expected, minlength=len(classes))
    return Classification(
        question.name,
        question.node,
        question.field,
        tuple(classes),
        tuple(counts.tolist()),
        len(rows),
        len(np.unique(pairs.task[rows])),
        int((judged & (wants < 0)).sum()),
        int(nowhere.sum()),
        question.changed,
        _cells(data, classes, (unknown[0], unknown[1])),
        tuple(_measures(data, question.name, classes, (unknown[0], unknown[1]), confidence)),
    )


def _answered(pairs: Pairs, side: Side, question: Question, classes: Sequence[str]) -> Codes:
    """Each pair's answer on one side: its place among the classes, _NONE, or _SKIPPED where the node was not reached."""
    steps = side.steps.select(["pair", "node", "outcome", "output"]).filter(
        pc.and_(pc.equal(side.steps["node"], question.node), pc.greater_equal(side.steps["pair"], 0))
    )
    found = np.full(len(pairs), _SKIPPED, dtype=np.int64)
    known: dict[str | None, int] = {}
    rows, outcomes, outputs = numbers(steps["pair"]), steps["outcome"].to_pylist(), steps["output"].to_pylist()
    for row, outcome, output in zip(rows, outcomes, outputs, strict=True):
        if outcome == "skipped":
            continue
        text = output if outcome != "failed" else None
        if text not in known:
            known[text] = _place(text, question, classes)
        found[row] = known[text]
    return found


def _place(output: str | None, question: Question, classes: Sequence[str]) -> int:
    try:
        value, there = look(json.loads(output or "null"), question.field)
    except ValueError:
        return _NONE
    if not there:
        return _NONE
    return next((place for place, name in enumerate(classes) if same(value, name, question.ignore)), _NONE)


def _cells(data: _Answers, classes: Sequence[str], unknown: tuple[bool, bool]) -> tuple[Cell, ...]:
    size = len(classes) + 1
    tables = [np.bincount(data.expected * size + np.where(side < 0, size - 1, side), minlength=size * len(classes)) for side in (data.before, data.after)]
    shown = [None if hidden else table for table, hidden in zip(tables, unknown, strict=True)]
    found = []
    for place in np.flatnonzero(sum(table for table in shown if table is not None)).tolist() if not all(unknown) else []:
        expected, answered = divmod(place, size)
        before, after = (None if table is None else int(table[place]) for table in shown)
        found.append(Cell(classes[expected], classes[answered] if answered < size - 1 else None, before, after))
    return tuple(found)


def _measures(data: _Answers, name: str, classes: Sequence[str], unknown: tuple[bool, bool], confidence: Confidence) -> list[ClassMeasure]:
    expected = sorted(set(data.expected.tolist()))
    made = [_measure(data, name, kind, None, expected if kind in BY_CLASS else (), confidence) for kind in OVERALL]
    for place in range(len(classes)):
        about = data.about(place) if len(data.unit) else data
        made += [_measure(about, name, kind, classes[place], (place,), confidence) for kind in BY_CLASS]
    if not any(unknown):
        return made
    whose = " and the ".join(word for word, hidden in zip(("baseline", "candidate"), unknown, strict=True) if hidden)
    return [replace(entry, metric=not_compared(entry.metric, unknown, f"{NOT_RECORDED} on the {whose}"), p=1.0, p_adjusted=1.0) for entry in made]


def _measure(data: _Answers, name: str, kind: Kind, label: str | None, labels: Sequence[int], confidence: Confidence) -> ClassMeasure:
    ratio = data.ratio(kind, labels)
    found, p = ratio.estimate(confidence)
    values = [rounded(100 * value) for value in (found.before, found.after)]
    counts = [round(float(side.under.sum()) * len(data.unit) / max(data.units, 1)) for side in (ratio.before, ratio.after)]
    involved = ((ratio.before.under + ratio.after.under) > 0).sum(axis=0)
    enough = bool(len(involved)) and int(involved.min()) >= FEWEST_UNITS and found.change is not None
    note = "" if enough else _why(kind, label, len(data.unit), values, len(labels))
    known = values[0] is not None and values[1] is not None
    change = None if values[0] is None or values[1] is None else rounded(100 * (found.after - found.before))
    share = rounded(100 * (found.after / found.before - 1)) if known and found.before else None
    better: Better = "down" if kind == "no_answer" else "up"
    metric = Metric(
        f"{name}.{kind}" + (f"[{label}]" if label is not None else ""),
        f"{name}: {TITLES[kind]}" + (f" of {label}" if label is not None else ", macro average" if labels else ""),
        "%",
        better,
        values[0],
        values[1],
        change,
        share,
        rounded(100 * found.change.low) if enough and found.change else None,
        rounded(100 * found.change.high) if enough and found.change else None,
        rounded_interval(found.relative) if enough and share is not None else None,
        rounded_interval(found.level and Interval(100 * found.level.low, 100 * found.level.high)),
        len(data.unit),
        note,
    )
    p = rounded(confidence.p(p)) or 0.0 if enough else 1.0
    return ClassMeasure(kind, label, metric, counts[0], counts[1], p, p)


def _why(kind: Kind, label: str | None, compared: int, values: Sequence[float | None], averaged: int) -> str:
    if not compared and label is None:
        return "no compared task expects a class of this field"
    if None in values:
        side = "either side" if values == [None, None] else "the baseline" if values[0] is None else "the candidate"
        return f"no {'answer' if kind == 'precision' else 'task'} of this class on {side}"
    return f"too few tasks for an interval{' of some class' if averaged > 1 else ''}"


def _adjusted(found: Sequence[Classification], family: int) -> tuple[Classification, ...]:
    """With p-values adjusted over the classes of all questions, kind by kind."""
    groups: dict[tuple[Kind, bool], list[tuple[int, int]]] = {}
    for outer, classification in enumerate(found):
        for inner, entry in enumerate(classification.measures):
            if entry.metric.low is not None:
                groups.setdefault((entry.kind, entry.label is not None), []).append((outer, inner))
    adjusted = [list(entry.measures) for entry in found]
    for places in groups.values():
        values = holm([adjusted[outer][inner].p for outer, inner in places], family)
        for (outer, inner), p in zip(places, values, strict=True):
            adjusted[outer][inner] = replace(adjusted[outer][inner], p_adjusted=rounded(p) or 0.0)
    return tuple(replace(entry, measures=tuple(measures)) for entry, measures in zip(found, adjusted, strict=True))
