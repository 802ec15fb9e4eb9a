"""
The verdict: may the candidate replace the baseline?

Each limit of the gate gets a line with one word.

- A **level** (``at_least``, ``at_most``) PASSes when the candidate's whole interval keeps it,
  and BLOCKs when the whole interval breaks it.
- A **target** (``up_by``, ``down_by``) PASSes when the change found reaches it and the whole
  interval is an improvement; it BLOCKs when the whole interval falls short of the target.
- A **guard** (``up_by_at_most``, ``down_by_at_most``) asks whether harm is shown: it PASSes when
  the change found keeps it, and BLOCKs when the whole interval breaks it.
- **Non-inferiority** (``not_worse_than``) asks whether harm is excluded: it PASSes when the whole
  interval lies above a loss of so much, and BLOCKs when all of it lies below; under
  ``any_loss: block`` also when any loss is shown with 99 % confidence, because a gate whose
  success rate, score and regressions all may block would otherwise block too many unchanged
  workflows.
- A guard or non-inferiority of a node or criterion BLOCKs only if the change also holds after
  Holm's correction, because a gate with many of them would otherwise find harm by chance.
- Whatever is between is INCONCLUSIVE and names the number of tasks that would decide with 80 %
  power if the truth is what was found. Below ten tasks nothing that has an interval PASSes,
  because so few cannot show it.
- Counts (``regressions``, ``route_changes``) are exact. Only regressions that repeats confirmed
  can BLOCK; those that nobody repeated WARN. Too few compared tasks are INCONCLUSIVE: a
  missing task is neither a pass nor a failure.

Under ``level: warn`` what would be BLOCK or INCONCLUSIVE is WARN; in a gate that is not strict,
so is what an interval leaves open. A ``target`` is PASS when it is met, else WARN, and is no part
of the verdict. The whole verdict is the worst of the other lines: BLOCK, then INCONCLUSIVE, WARN,
PASS; a gate without limits gives NONE.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import scipy  # its parts load when they are first used

from beam_ray.compare.comparison import Comparison
from beam_ray.compare.formatting import amount, found_text, plural
from beam_ray.compare.gate import LEVELS, PERCENTAGES, Gate, Level, Limit
from beam_ray.compare.metric_definitions import OF_CALLS
from beam_ray.compare.metrics import NOT_COMPARED, NOT_RECORDED, Metric
from beam_ray.compare.power import POWER, Planning, two_digits
from beam_ray.compare.regressions import DEFAULT_REPEATS
from beam_ray.compare.rule_parts import Part, as_metric, part_of
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval
from beam_ray.compare.subgroups import SubgroupMetric
from beam_ray.compare.verdict_json import LineDocument, VerdictDocument, Word

EXIT_CODES: dict[Word, int] = {"PASS": 0, "WARN": 0, "BLOCK": 4, "INCONCLUSIVE": 5, "NONE": 0}
WORST_FIRST: tuple[Word, ...] = ("BLOCK", "INCONCLUSIVE", "WARN", "PASS", "NONE")
ENOUGH_TASKS = 10
MOST_TASKS = 100_000
BEYOND_DOUBT = 99.0
"""Confidence, in percent, with which ``any_loss: block`` wants a loss shown."""
NO_NUMBER = "no number"


@dataclass(frozen=True)
class Line:
    """One limit and what was found."""

    rule: str
    allowed: str
    found: str
    word: Word
    reason: str
    """In a sentence."""
    level: Level = "block"
    tasks_needed: int | None = None
    """How many tasks would decide with 80% power; None when the line is decided, or when no number would."""

    def document(self) -> LineDocument:
        """The line as plain JSON."""
        return {
            "rule": self.rule,
            "allowed": self.allowed,
            "found": self.found,
            "word": self.word,
            "reason": self.reason,
            "level": self.level,
            "tasks_needed": self.tasks_needed,
        }


@dataclass(frozen=True)
class Verdict:
    """The word, and the lines that it follows from."""

    gate: str
    word: Word
    lines: tuple[Line, ...]
    own_word: Word | None = None
    """Of one of several candidates, the word without a correction for their number; otherwise None."""

    @property
    def exit_code(self) -> int:
        """0 for PASS, WARN and NONE, 4 for BLOCK, 5 for INCONCLUSIVE."""
        return EXIT_CODES[self.word]

    def document(self) -> VerdictDocument:
        """The verdict as plain JSON."""
        found: VerdictDocument = {"gate": self.gate, "word": self.word, "exit_code": self.exit_code, "lines": [line.document() for line in self.lines]}
        return found if self.own_word is None else {**found, "own_word": self.own_word}


def judge(comparison: Comparison, gate: Gate) -> Verdict:
    """
    What *gate* says of *comparison*.

    Raises:
        Unusable: the gate names a node or criterion that neither side has.
    """
    if comparison.confidence != gate.confidence:
        raise ValueError(f"compared with {comparison.confidence:g}% intervals, but the gate requires {gate.confidence:g}%")
    lines = tuple(_softened(_line(limit, comparison), limit, gate) for limit in gate.limits if not _left_out(limit, comparison))
    words = {line.word for line in lines if line.level != "target"} | {"PASS" if gate.limits else "NONE"}
    return Verdict(gate.name, next(word for word in WORST_FIRST if word in words), lines)


def settled(comparison: Comparison, gate: Gate) -> Word | None:
    """
    The word that more tasks like these would not change, if there is one: PASS or BLOCK.

    For a backtest that may stop early: *comparison* has intervals that are valid at every interim analysis. It
    is BLOCK as soon as one limit is broken by its whole interval, and PASS when every limit
    that can block is kept by its whole interval. Counts say nothing about tasks that were not
    looked at: of those, only route changes beyond the limit settle anything.
    """
    words = [word for limit in gate.limits if limit.level == "block" and not _left_out(limit, comparison) for word in _settled(limit, comparison)]
    return "BLOCK" if "BLOCK" in words else "PASS" if words and all(word == "PASS" for word in words) else None


def _settled(limit: Limit, comparison: Comparison) -> list[Word | None]:
    if limit.rule in ("regressions", "compared"):
        return []
    line = _line(limit, comparison)
    if limit.rule == "route_changes":
        # a share of all planned tasks may still be kept
        over = comparison.route_changes > _allowed_count(limit, comparison.planned * max(comparison.trials, 1))
        return ["BLOCK"] if over else []
    part = part_of(limit, comparison)
    metric = as_metric(part) if part else comparison.metric(limit.rule)
    if not _has_number(limit, metric):
        return [None]
    found = _oriented(limit, metric)
    if found.interval is None:
        return [None]
    # of a guard no gain is asked, so it is settled when the harm is excluded
    if found.interval.low >= (found.limit if found.guard else max(found.limit, found.proof)) and line.word == "PASS":
        return ["PASS"]
    broken = found.interval.high < (0.0 if limit.any_loss == "block" else found.limit)
    return ["BLOCK"] if broken and line.word == "BLOCK" else [None]


class _Found(NamedTuple):
    """What a limit is held against. Everything is oriented so that more is better."""

    value: float
    interval: Interval | None
    limit: float
    proof: float
    """What the whole interval must lie beyond for the limit to be kept beyond doubt."""
    guard: bool
    planning: Planning | None = None
    """Of a change in the metric's own unit: what more tasks are planned with."""


def _line(limit: Limit, comparison: Comparison) -> Line:
    if limit.rule == "regressions":
        return _regressions(limit, comparison)
    if limit.rule == "route_changes":
        allowed = _allowed_count(limit, comparison.pairs)
        if comparison.pairs and not comparison.route_flips:
            return Line(limit.rule, limit.text, NO_NUMBER, "INCONCLUSIVE", "There is no number to check: the routes of one side are not recorded.")
        return _counted(limit, comparison.route_changes, allowed, "pairs with a changed route")
    if limit.rule == "compared":
        return _compared(limit, comparison)
    if limit.rule == "in_recording":
        return _in_recording(limit, comparison)
    part = part_of(limit, comparison)
    metric = as_metric(part) if part else comparison.metric(limit.rule)
    if not _has_number(limit, metric):
        alone = "" if metric.after is None else " Limits at_least and at_most judge the candidate alone."
        return Line(limit.rule, limit.text, NO_NUMBER, "INCONCLUSIVE", f"There is no number to check: {metric.note}.{alone}")
    found = _oriented(limit, metric)
    line = Line(limit.rule, limit.text, found_text(metric, limit.kind in LEVELS, limit.percent), "PASS", "")
    if limit.by == "estimate":
        word: Word = "PASS" if _meets(found) else "BLOCK"
        return replace(line, word=word, reason=f"The estimate {'meets' if word == 'PASS' else 'violates'} the limit; the gate ignores its confidence interval.")
    return _weighed(line, limit, found, comparison, part)


def _has_number(limit: Limit, metric: Metric) -> bool:
    """Whether the metric has what the limit is about: a level is about the candidate alone, whatever is known of the baseline."""
    return metric.after is not None and (limit.kind in LEVELS or metric.change is not None)


def _weighed(line: Line, limit: Limit, found: _Found, comparison: Comparison, part: Part | None) -> Line:
    if found.interval is None:
        return replace(line, word="INCONCLUSIVE", reason="There are too few tasks for an interval.", tasks_needed=ENOUGH_TASKS)
    level = limit.kind in LEVELS
    share = level and limit.rule in PERCENTAGES
    if limit.kind == "not_worse_than":
        if limit.any_loss == "block" and _shown(found.interval, comparison) and not _chance(part, comparison):
            return replace(line, word="BLOCK", reason=f"A loss is shown, whatever its size: the interval of {BEYOND_DOUBT:g}% confidence excludes none.")
        if found.interval.low > found.limit:
            return _kept(line, found, limit, comparison, share)
        if found.interval.high >= found.limit:
            reason = "The confidence interval includes a loss beyond the limit"
            return _open(line, _tasks_needed(found, found.limit, comparison, share), comparison.tasks, reason)
    elif _meets(found):
        return _kept(line, found, limit, comparison, share)
    if found.interval.high >= found.limit:
        reason = "The estimate violates the limit but the confidence interval crosses it"
        return _open(line, _tasks_needed(found, found.limit, comparison, share), comparison.tasks, reason)
    if (found.guard or limit.kind == "not_worse_than") and part and _chance(part, comparison):
        wanted, seen = (-scipy.special.ndtri(p / 2) for p in (1 - comparison.confidence / 100, part.p_adjusted))
        reason = "The limit is violated, but with this many criteria and candidates that can be chance"
        return _open(line, comparison.tasks * (wanted / seen) ** 2 if seen > 0 else math.inf, comparison.tasks, reason)
    return replace(line, word="BLOCK", reason="The entire confidence interval violates the limit.")


def _kept(line: Line, found: _Found, limit: Limit, comparison: Comparison, share: bool) -> Line:
    """The estimate meets the limit: does the entire confidence interval?"""
    assert found.interval is not None
    tasks, level = comparison.tasks, limit.kind in LEVELS
    units = comparison.units
    proven = found.guard or found.interval.low > found.proof or (level and found.interval.low == found.limit)
    if not proven:
        doubt = (
            "The estimate meets the limit but the confidence interval crosses it"
            if level
            else "The target is met, but the confidence interval includes no gain"
        )
        return _open(line, _tasks_needed(found, found.proof, comparison, share), tasks, doubt)
    if units < ENOUGH_TASKS:
        reason = f"The limit is met, but {plural(units, 'cluster' if comparison.clustering else 'task')} are too few to judge."
        needed = ENOUGH_TASKS if not comparison.clustering else math.ceil(tasks * ENOUGH_TASKS / max(units, 1))
        return replace(line, word="INCONCLUSIVE", reason=reason, tasks_needed=needed)
    if limit.kind == "not_worse_than":
        return replace(line, reason="A loss beyond the limit is excluded: the confidence interval ends before it.")
    if found.guard:
        return replace(line, reason="The observed change meets the limit; no harm is shown.")
    return replace(
        line, reason="The entire confidence interval meets the limit." if level else "Target met; the entire confidence interval shows an improvement."
    )


def _shown(ends: Interval, comparison: Comparison) -> bool:
    """Whether the interval would be a loss as a whole if it had confidence beyond doubt."""
    tasks = max(comparison.units, 2)
    percents = comparison.confidence, max(comparison.confidence, BEYOND_DOUBT)
    usual, wide = (Confidence(percent, comparison.planned, tasks).quantile(tasks) for percent in percents)
    middle = (ends.low + ends.high) / 2
    return middle + (ends.high - middle) * wide / usual < 0


def _chance(part: Part | None, comparison: Comparison) -> bool:
    """Whether the change of a node, criterion or class can be chance, with all of its kind in mind."""
    return part is not None and part.p_adjusted > 1 - comparison.confidence / 100


def _tasks_needed(found: _Found, bound: float, comparison: Comparison, share: bool) -> float:
    """How many tasks, if the truth is what was found, hold the interval off *bound* with 80% power."""
    assert found.interval is not None
    distance = abs(found.value - bound)
    if not distance:
        return math.inf
    tasks, sure = comparison.tasks, float(scipy.special.ndtri(POWER))
    wanted = _sure(comparison).quantile(comparison.units)
    if found.planning:
        return found.planning.tasks(found.value, bound, wanted, _sure(comparison).padding) * tasks / max(comparison.units, 1)
    if share and not comparison.clustering:
        # Wilson's interval of a share excludes *bound* when the score test does
        limit, truth = abs(bound) / 100, abs(found.value) / 100
        spread = wanted * math.sqrt(limit * (1 - limit)) + sure * math.sqrt(truth * (1 - truth))
        return (spread / (distance / 100)) ** 2
    reach = found.interval.high - found.value if found.value < bound else found.value - found.interval.low
    return tasks * (reach * (1 + sure / wanted) / distance) ** 2


def _open(line: Line, needed: float, tasks: int, reason: str) -> Line:
    if needed > MOST_TASKS:
        return replace(line, word="INCONCLUSIVE", reason=f"{reason}. The effect is so close to the limit that more than {MOST_TASKS:,} tasks would be needed.")
    count = two_digits(max(needed, tasks + 1, ENOUGH_TASKS))
    return replace(line, word="INCONCLUSIVE", reason=f"{reason}. About {count:,} tasks would decide (80% power).", tasks_needed=count)


def _oriented(limit: Limit, metric: Metric) -> _Found:
    assert metric.after is not None
    upward = metric.better == "up" if limit.kind == "not_worse_than" else limit.kind in ("at_least", "up_by", "down_by_at_most")
    sign = 1 if upward else -1
    guard = limit.kind.endswith("_at_most")
    if limit.kind in LEVELS:
        return _turned(sign, _Found(metric.after, metric.after_interval, limit.amount, limit.amount, False))
    assert metric.change is not None
    # a tolerated loss lies below no change, a wanted gain above it
    tolerated = guard or limit.kind == "not_worse_than"
    bound = -sign * limit.amount if tolerated else sign * limit.amount
    change = None if metric.low is None or metric.high is None else Interval(metric.low, metric.high)
    proof = bound if limit.kind == "not_worse_than" else 0.0
    if limit.percent and metric.relative is None:
        # nothing can be a share of a baseline of 0: all that is left is not to be worse
        return _turned(sign, _Found(metric.change, change, 0.0, 0.0, limit.kind != "not_worse_than"))
    if limit.percent and metric.relative is not None:
        return _turned(sign, _Found(metric.relative, metric.relative_interval, bound, proof, guard))
    return _turned(sign, _Found(metric.change, change, bound, proof, guard, metric.planning))


def _left_out(limit: Limit, comparison: Comparison) -> bool:
    """Whether neither side has the number of an optional limit, or the limit is about a change that is not compared."""
    if not limit.optional:
        return False
    if any(metric.name == limit.rule and metric.note.startswith((NOT_RECORDED, NOT_COMPARED)) for metric in comparison.metrics):
        return limit.kind not in LEVELS
    part = part_of(limit, comparison)
    if isinstance(part, SubgroupMetric):
        return part.metric.after is None
    if part:
        return not part.before_count + part.after_count
    if limit.rule in OF_CALLS:
        return not comparison.metric(limit.rule).pairs
    if limit.rule == "in_recording":
        return comparison.replay is None
    name = limit.rule.removeprefix("first_").removesuffix("_sd").partition("_p")[0]
    columns = [f"{side}_{name}" for side in ("before", "after")]
    return all(column in comparison.table.schema.names and comparison.table[column].null_count == comparison.table.num_rows for column in columns)


def _turned(sign: int, found: _Found) -> _Found:
    if sign > 0:
        return found
    interval = found.interval and Interval(-found.interval.high, -found.interval.low)
    return _Found(-found.value, interval, -found.limit, -found.proof, found.guard, found.planning)


def _meets(found: _Found) -> bool:
    return found.value >= found.limit - 1e-9


def _sure(comparison: Comparison) -> Confidence:
    return Confidence(comparison.confidence, comparison.planned, comparison.units)


def _regressions(limit: Limit, comparison: Comparison) -> Line:
    allowed = _allowed_count(limit, comparison.tasks)
    confirmed, noise, unrepeated = comparison.regressions
    line = _counted(limit, len(confirmed), allowed, "confirmed by repeats")
    if noise:
        line = replace(line, found=f"{line.found}, {len(noise)} not")
    if unrepeated:
        line = replace(line, found=f"{line.found}, {plural(len(unrepeated), 'newly failing task')} not repeated")
    if line.word == "PASS" and len(confirmed) + len(unrepeated) > allowed:
        reason = f"{plural(len(unrepeated), 'task')} newly failing and not repeated, so they may be flaky. Add 'confirm: {DEFAULT_REPEATS}' to the backtest."
        return replace(line, word="WARN", reason=reason)
    return line


def _counted(limit: Limit, count: int, allowed: int, what: str) -> Line:
    if count > allowed:
        return Line(limit.rule, limit.text, f"{count} {what}", "BLOCK", f"{count:,} {what}; the limit is {allowed:,}.")
    return Line(limit.rule, limit.text, f"{count} {what}", "PASS", f"{count:,} {what}; the limit is {allowed:,}.")


def _compared(limit: Limit, comparison: Comparison) -> Line:
    missing = comparison.unpaired.count
    total = comparison.tasks + missing
    share = 100 * comparison.tasks / total if total else 0.0
    found = f"{amount(share, '%')}, {comparison.tasks:,} of {total:,} tasks"
    if share >= limit.amount and total:
        return Line(limit.rule, limit.text, found, "PASS", f"{plural(missing, 'task')} could not be compared." if missing else "Every task was compared.")
    reason = f"{plural(missing, 'task')} could not be compared: missing on one side, different inputs, or no answer from the model."
    return Line(limit.rule, limit.text, found, "INCONCLUSIVE", reason if total else "There are no tasks.")


def _in_recording(limit: Limit, comparison: Comparison) -> Line:
    found = comparison.replay
    if found is None or found.share is None:
        return Line(limit.rule, limit.text, NO_NUMBER, "INCONCLUSIVE", "There is no number to check: the candidate has no agents or programs.")
    said = f"{amount(found.share, '%')}, {found.all_recorded + found.models_live:,} of {plural(found.tasks, 'task')}"
    if found.share >= limit.amount:
        return Line(limit.rule, limit.text, said, "PASS", "The tools of these tasks were all answered from the recording.")
    reason = "In too many tasks, tools were called live or refused: they may have answered otherwise than when the baseline was recorded."
    return Line(limit.rule, limit.text, said, "INCONCLUSIVE", reason)


def _allowed_count(limit: Limit, total: int) -> int:
    return math.floor(total * limit.amount / 100 + 1e-9) if limit.percent else math.floor(limit.amount)


def _softened(line: Line, limit: Limit, gate: Gate) -> Line:
    if line.word in ("PASS", "WARN"):
        return replace(line, level=limit.level)
    # too few compared tasks, and a number that is asked for and not there, leave nothing to go by: no mere warning
    left_open = line.word == "INCONCLUSIVE" and limit.rule != "compared" and (line.found != NO_NUMBER or limit.optional)
    soft = limit.level != "block" or (left_open and not gate.strict)
    return replace(line, level=limit.level, word="WARN" if soft else line.word)
