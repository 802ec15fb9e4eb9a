"""
The verdict: may the candidate replace the baseline?

Each limit of the gate gets a line with one word.

- A **level** (``at_least``, ``at_most``) PASSes when the candidate's whole interval keeps it,
  and BLOCKs when the whole interval breaks it.
- A **target** (``up_by``, ``down_by``) PASSes when the change found reaches it and the whole
  interval is an improvement; it BLOCKs when the whole interval falls short of the target.
- A **guard** (``up_by_at_most``, ``down_by_at_most``) asks whether harm is shown: it PASSes when
  the change found keeps it, and BLOCKs when the whole interval breaks it. A guard of a node
  or criterion BLOCKs only if the change also holds after Holm's correction, because a gate
  with many guards would otherwise find harm by chance.
- Whatever is between is INCONCLUSIVE and names the number of tasks that would decide. Below
  ten tasks nothing that has an interval PASSes, because so few cannot show it.
- Counts (``regressions``, ``route_changes``) are exact. Only regressions that repeats confirmed
  can BLOCK; those that nobody repeated WARN. Too few compared tasks are INCONCLUSIVE: a
  missing task is neither a pass nor a failure.

Under ``level: warn`` what would be BLOCK or INCONCLUSIVE is WARN. The whole verdict is the
worst line: BLOCK, then INCONCLUSIVE, WARN, PASS.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from scipy import special

from beam_ray.compare.breakdown import Slice
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.formatting import amount, found_text, plural
from beam_ray.compare.gate import LEVELS, PERCENTAGES, Gate, Limit
from beam_ray.compare.metrics import Metric
from beam_ray.compare.regressions import DEFAULT_REPEATS
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval
from beam_ray.compare.verdict_json import LineDocument, VerdictDocument, Word
from beam_ray.errors import Unusable, did_you_mean

EXIT_CODES: dict[Word, int] = {"PASS": 0, "WARN": 0, "BLOCK": 4, "INCONCLUSIVE": 5}
WORST_FIRST: tuple[Word, ...] = ("BLOCK", "INCONCLUSIVE", "WARN", "PASS")
ENOUGH_TASKS = 10
MOST_TASKS = 100_000


@dataclass(frozen=True)
class Line:
    """One limit and what was found."""

    rule: str
    allowed: str
    found: str
    word: Word
    reason: str
    """In a sentence."""
    level: Literal["block", "warn"] = "block"
    tasks_needed: int | None = None
    """How many tasks would decide; None when the line is decided, or when no number would."""

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

    @property
    def exit_code(self) -> int:
        """0 for PASS and WARN, 4 for BLOCK, 5 for INCONCLUSIVE."""
        return EXIT_CODES[self.word]

    def document(self) -> VerdictDocument:
        """The verdict as plain JSON."""
        return {"gate": self.gate, "word": self.word, "exit_code": self.exit_code, "lines": [line.document() for line in self.lines]}


def judge(comparison: Comparison, gate: Gate) -> Verdict:
    """
    What *gate* says of *comparison*.

    Raises:
        Unusable: the gate names a node or criterion that neither side has.
    """
    if comparison.confidence != gate.confidence:
        raise ValueError(f"compared with {comparison.confidence:g}% intervals, but the gate requires {gate.confidence:g}%")
    lines = tuple(_softened(_line(limit, comparison), limit) for limit in gate.limits)
    word = next(word for word in WORST_FIRST if word == "PASS" or any(line.word == word for line in lines))
    return Verdict(gate.name, word, lines)


def settled(comparison: Comparison, gate: Gate) -> Word | None:
    """
    The word that more tasks like these would not change, if there is one: PASS or BLOCK.

    For a backtest that may stop early: *comparison* has intervals that are valid at every interim analysis. It
    is BLOCK as soon as one limit is broken by its whole interval, and PASS when every limit
    that can block is kept by its whole interval. Counts say nothing about tasks that were not
    looked at: of those, only route changes beyond the limit settle anything.
    """
    words = [word for limit in gate.limits if limit.level == "block" for word in _settled(limit, comparison)]
    return "BLOCK" if "BLOCK" in words else "PASS" if words and all(word == "PASS" for word in words) else None


def _settled(limit: Limit, comparison: Comparison) -> list[Word | None]:
    if limit.rule in ("regressions", "compared"):
        return []
    line = _line(limit, comparison)
    if limit.rule == "route_changes":
        # a share of all planned tasks may still be kept
        over = comparison.route_changes > _allowed_count(limit, comparison.planned * max(comparison.trials, 1))
        return ["BLOCK"] if over else []
    part = _slice(limit, comparison) if "/" in limit.rule else None
    metric = _as_metric(part, _sure(comparison)) if part else comparison.metric(limit.rule)
    if metric.change is None:
        return [None]
    found = _oriented(limit, metric)
    if found.interval is None:
        return [None]
    if found.interval.low >= max(found.limit, found.proof) and line.word == "PASS":
        return ["PASS"]
    return ["BLOCK"] if found.interval.high < found.limit and line.word == "BLOCK" else [None]


class _Found(NamedTuple):
    """What a limit is held against. Everything is oriented so that more is better."""

    value: float
    interval: Interval | None
    limit: float
    proof: float
    """What the whole interval must lie beyond for the limit to be kept beyond doubt."""
    guard: bool


def _line(limit: Limit, comparison: Comparison) -> Line:
    if limit.rule == "regressions":
        return _regressions(limit, comparison)
    if limit.rule == "route_changes":
        allowed = _allowed_count(limit, comparison.pairs)
        return _counted(limit, comparison.route_changes, allowed, "pairs with a changed route")
    if limit.rule == "compared":
        return _compared(limit, comparison)
    part = _slice(limit, comparison) if "/" in limit.rule else None
    metric = _as_metric(part, _sure(comparison)) if part else comparison.metric(limit.rule)
    if metric.after is None or metric.before is None or metric.change is None:
        return Line(limit.rule, limit.text, "no number", "INCONCLUSIVE", f"There is no number to check: {metric.note}.")
    found = _oriented(limit, metric)
    line = Line(limit.rule, limit.text, found_text(metric, limit.kind in LEVELS, limit.percent), "PASS", "")
    if limit.by == "estimate" or metric.name.startswith("seconds_p"):
        word: Word = "PASS" if _meets(found) else "BLOCK"
        return replace(line, word=word, reason=f"The estimate {'meets' if word == 'PASS' else 'violates'} the limit; the gate ignores its confidence interval.")
    return _weighed(line, limit, found, comparison, part)


def _weighed(line: Line, limit: Limit, found: _Found, comparison: Comparison, part: Slice | None) -> Line:
    if found.interval is None:
        return replace(line, word="INCONCLUSIVE", reason="There are too few tasks for an interval.", tasks_needed=ENOUGH_TASKS)
    level = limit.kind in LEVELS
    confidence = _sure(comparison) if level and limit.rule in PERCENTAGES else None
    if _meets(found):
        return _kept(line, found, level, comparison.tasks, confidence)
    if found.interval.high >= found.limit:
        reason = "The estimate violates the limit but the confidence interval crosses it"
        return _open(line, _tasks_needed(found, found.limit, comparison.tasks, confidence), comparison.tasks, reason)
    chance = 1 - comparison.confidence / 100
    if found.guard and part and part.p_adjusted > chance:
        wanted, seen = (-special.ndtri(p / 2) for p in (chance, part.p_adjusted))
        reason = "The limit is violated, but with this many criteria and candidates that can be chance"
        return _open(line, comparison.tasks * (wanted / seen) ** 2 if seen > 0 else math.inf, comparison.tasks, reason)
    return replace(line, word="BLOCK", reason="The entire confidence interval violates the limit.")


def _kept(line: Line, found: _Found, level: bool, tasks: int, confidence: Confidence | None) -> Line:
    """The estimate meets the limit: does the entire confidence interval?"""
    assert found.interval is not None
    proven = found.guard or found.interval.low > found.proof or (level and found.interval.low == found.limit)
    if not proven:
        doubt = (
            "The estimate meets the limit but the confidence interval crosses it"
            if level
            else "The target is met, but the confidence interval includes no gain"
        )
        return _open(line, _tasks_needed(found, found.proof, tasks, confidence), tasks, doubt)
    if tasks < ENOUGH_TASKS:
        reason = f"The limit is met, but {plural(tasks, 'task')} are too few to judge."
        return replace(line, word="INCONCLUSIVE", reason=reason, tasks_needed=ENOUGH_TASKS)
    if found.guard:
        return replace(line, reason="The observed change meets the limit; no harm is shown.")
    return replace(
        line, reason="The entire confidence interval meets the limit." if level else "Target met; the entire confidence interval shows an improvement."
    )


def _tasks_needed(found: _Found, bound: float, tasks: int, confidence: Confidence | None) -> float:
    """How many tasks, like these, would hold the interval off *bound*: it narrows with the square root of their number."""
    assert found.interval is not None
    distance = abs(found.value - bound)
    if not distance:
        return math.inf
    if confidence:
        # Wilson's interval of a share excludes *bound* exactly when the score test does
        limit = abs(bound) / 100
        return float(confidence.boundary(tasks) ** 2 * limit * (1 - limit) / (distance / 100) ** 2)
    reach = found.interval.high - found.value if found.value < bound else found.value - found.interval.low
    return tasks * (reach / distance) ** 2


def _open(line: Line, needed: float, tasks: int, reason: str) -> Line:
    if needed > MOST_TASKS:
        return replace(line, word="INCONCLUSIVE", reason=f"{reason}. The effect is so close to the limit that more than {MOST_TASKS:,} tasks would be needed.")
    count = _two_digits(max(needed, tasks + 1, ENOUGH_TASKS))
    return replace(line, word="INCONCLUSIVE", reason=f"{reason}. About {count:,} tasks would decide.", tasks_needed=count)


def _oriented(limit: Limit, metric: Metric) -> _Found:
    assert metric.after is not None and metric.before is not None and metric.change is not None
    sign = 1 if limit.kind in ("at_least", "up_by", "down_by_at_most") else -1
    guard = limit.kind.endswith("_at_most")
    if limit.kind in LEVELS:
        return _turned(sign, _Found(metric.after, metric.after_interval, limit.amount, limit.amount, False))
    # a tolerated loss lies below no change, a wanted gain above it
    bound = -sign * limit.amount if guard else sign * limit.amount
    change = None if metric.low is None or metric.high is None else Interval(metric.low, metric.high)
    if limit.percent and metric.relative is None:
        # nothing can be a share of a baseline of 0: all that is left is not to be worse
        return _turned(sign, _Found(metric.change, change, 0.0, 0.0, True))
    if limit.percent and metric.relative is not None:
        return _turned(sign, _Found(metric.relative, metric.relative_interval, bound, 0.0, guard))
    return _turned(sign, _Found(metric.change, change, bound, 0.0, guard))


def _turned(sign: int, found: _Found) -> _Found:
    if sign > 0:
        return found
    interval = found.interval and Interval(-found.interval.high, -found.interval.low)
    return _Found(-found.value, interval, -found.limit, -found.proof, found.guard)


def _meets(found: _Found) -> bool:
    return found.value >= found.limit - 1e-9


def _sure(comparison: Comparison) -> Confidence:
    return Confidence(comparison.confidence, comparison.planned)


def _slice(limit: Limit, comparison: Comparison) -> Slice:
    node, _, criterion = limit.rule.partition("/")
    kind, name = ("node", node) if criterion == "score" else ("criterion", limit.rule)
    known = {entry.name: entry for entry in comparison.of_kind(kind)}
    if name not in known:
        raise Unusable("\n  ".join([f"the gate has a rule for {limit.rule!r}, which neither side has", *did_you_mean(name, known)]))
    return known[name]


def _as_metric(part: Slice, confidence: Confidence) -> Metric:
    """A node or criterion as a metric. The interval of its level is that of its change, moved; of a share, Wilson's."""
    relative = ends = level = change = None
    if part.low is not None and part.high is not None and part.after is not None and part.change is not None:
        change = Interval(part.low, part.high)
        level = Interval(*(part.after - part.change + end for end in change))
        ends = Interval(*(100 * end / part.before for end in change)) if part.before else None
    if part.before and part.change is not None:
        relative = 100 * part.change / part.before
    if part.unit == "%" and part.after is not None:
        level = confidence.of_share(part.after, part.pairs)
    note = "" if part.pairs else "no pair has this number on both sides"
    numbers = (part.before, part.after, part.change, relative, part.low, part.high, ends, level)
    return Metric(part.name, part.name, part.unit, "up", *numbers, part.pairs, note)


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


def _allowed_count(limit: Limit, total: int) -> int:
    return math.floor(total * limit.amount / 100 + 1e-9) if limit.percent else math.floor(limit.amount)


def _softened(line: Line, limit: Limit) -> Line:
    if limit.level == "warn":
        return replace(line, level="warn", word="WARN" if line.word in ("BLOCK", "INCONCLUSIVE") else line.word)
    return line


def _two_digits(number: float) -> int:
    step: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / step) * step
