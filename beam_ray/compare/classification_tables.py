"""The tables of a classification, as cells that every report shows: measures by class, and the confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass

from beam_ray.compare.class_questions import BY_CLASS
from beam_ray.compare.classification import Cell, Classification, ClassMeasure
from beam_ray.compare.formatting import amount, change, plain, plural, span
from beam_ray.compare.metrics import NOT_RECORDED
from beam_ray.compare.statistics import Interval

WIDEST_MATRIX = 8
"""Classes; with more, the most frequent confusions are listed instead."""
MOST_CLASSES = 20
MOST_CONFUSIONS = 12
NO_ANSWER = "(none)"
"""How the column of answers that are missing or none of the classes is headed; otherwise where a class has this very name."""


@dataclass(frozen=True)
class Table:
    """A heading row and others."""

    header: list[str]
    rows: list[list[str]]
    note: str = ""


def measures_table(found: Classification, confidence: float) -> Table:
    """Precision, recall and F1 of each class that occurs, the commonest first, and the averages."""
    count = dict(zip(found.classes, found.counts, strict=True))
    classes = sorted((name for name in found.classes if _occurs(found, name)), key=lambda name: -count[name])
    header = [f"{found.name} (change, {confidence:g}% interval)", "pairs", "precision", "recall", "F1", ""]
    rows = [_row(found, name, plain(name, 40), f"{count[name]:,}", "") for name in classes[:MOST_CLASSES]]
    rows += [_row(found, None, label, f"{found.pairs:,}", prefix) for label, prefix in (("macro average", ""), ("micro average", "micro_"))]
    hidden = len(classes) - MOST_CLASSES
    return Table(header, rows, f"{plural(hidden, 'more class').replace('classs', 'classes')} in verdict.json" if hidden > 0 else "")


def confusion_table(found: Classification) -> Table:
    """How often each expected class got each answer, before and after; of many classes the most frequent confusions."""
    missing = "(no answer)" if NO_ANSWER in found.classes else NO_ANSWER
    if len(found.classes) > WIDEST_MATRIX:
        wrong = sorted((cell for cell in found.cells if cell.expected != cell.answered), key=lambda cell: (-_weight(cell), cell.expected, cell.answered or ""))
        rows = [
            [plain(cell.expected, 40), plain(cell.answered if cell.answered is not None else missing, 40), _counts(cell)] for cell in wrong[:MOST_CONFUSIONS]
        ]
        hidden = len(wrong) - MOST_CONFUSIONS
        return Table([f"{found.name}, expected", "answered", "pairs"], rows, f"{hidden:,} more in verdict.json" if hidden > 0 else "")
    cells: Mapping[tuple[str, str | None], Cell] = {(cell.expected, cell.answered): cell for cell in found.cells}
    answers = [*found.classes, None]
    rows = [
        [plain(expected, 40), *(_counts(cells[expected, answer]) if (expected, answer) in cells else "·" for answer in answers)]
        for expected, count in zip(found.classes, found.counts, strict=True)
        if count
    ]
    return Table([f"{found.name}, expected ↓ answered →", *(plain(missing if name is None else name, 20) for name in answers)], rows)


def classification_notes(found: Classification) -> list[str]:
    """What was not counted, and why numbers are missing."""
    notes = []
    if found.without_expected:
        notes.append(f"{plural(found.without_expected, 'pair')} without an expected class left out")
    if found.not_reached:
        notes.append(f"{plural(found.not_reached, 'pair')} that reached the node on neither side left out")
    if found.changed_expected:
        notes.append(f"{plural(found.changed_expected, 'task')} with another expected class in the baseline's run; the candidate's is used for both")
    notes += sorted({measure.metric.note for measure in found.measures if measure.metric.note.startswith(NOT_RECORDED)})
    answers = found.measure("no_answer").metric
    if answers.before or answers.after:
        notes.append(f"missing or invalid answers count as wrong: {amount(answers.before, '%')} before, {amount(answers.after, '%')} after")
    return [f"{found.name}: {'; '.join(notes)}."] if notes else []


def all_measures(found: Classification) -> list[list[str]]:
    """Each measure with its interval, one a row."""
    rows = []
    for measure in found.measures:
        metric = measure.metric
        if metric.before is None and metric.after is None:
            continue
        ends = Interval(metric.low, metric.high) if metric.low is not None and metric.high is not None else None
        values = [amount(value, "%") for value in (metric.before, metric.after)]
        moved = [change(metric.change, "%"), span(ends, "%") if ends else metric.note]
        rows.append([plain(measure.name.removeprefix(f"{found.name}."), 60), *values, *moved, measure_word(measure)])
    return rows


def measure_word(measure: ClassMeasure) -> str:
    """Whether the measure changed beyond chance, with all classes in mind."""
    if measure.p_adjusted > 0.05 or not measure.metric.change:
        return ""
    return "better" if (measure.metric.change > 0) == (measure.metric.better == "up") else "WORSE"


def _row(found: Classification, label: str | None, title: str, pairs: str, prefix: str) -> list[str]:
    measures = [found.measure(f"{prefix}{kind}", label) for kind in BY_CLASS]
    words = dict.fromkeys(word for word in map(measure_word, measures) if word)
    return [title, pairs, *map(_measure, measures), " and ".join(words)]


def _measure(measure: ClassMeasure) -> str:
    metric = measure.metric
    text = f"{_percent(metric.before)} → {_percent(metric.after)} %"
    if metric.low is None or metric.high is None:
        return text
    return f"{text} ({span(Interval(metric.low, metric.high), '%')})"


def _percent(value: float | None) -> str:
    return amount(value, "points")


def _occurs(found: Classification, name: str) -> bool:
    return any(measure.label == name and measure.kind == "f1" and (measure.before_count or measure.after_count) for measure in found.measures)


def _weight(cell: Cell) -> int:
    return max(cell.before or 0, cell.after or 0)


def _counts(cell: Cell) -> str:
    return f"{'-' if cell.before is None else cell.before} → {'-' if cell.after is None else cell.after}"
