"""
The gate: a file of what a candidate must reach and what it may not lose.

    gate: default
    confidence: 95                       # percent, of every interval
    rules:
      success_rate: {at_least: 90}       # a level, in the metric's own unit
      score: {up_by: 10}                 # a target: so much better than the baseline
      failing: {down_by: 50 %}           # in percent of the baseline
      score_sd: {up_by_at_most: 0}       # a guard: no more than so much worse
      seconds: {up_by_at_most: 25 %, level: warn}
      extract/score: {down_by_at_most: 2}        # a node's score
      extract/vendor: {down_by_at_most: 1}       # a criterion: percent of steps that meet it
      regressions: {at_most: 0}          # confirmed newly failing tasks; or 5 %, of all compared tasks

A rule is a name and limits; several limits of one rule are judged one by one. Levels are
``at_least`` and ``at_most``, targets ``up_by`` and ``down_by``, guards ``up_by_at_most`` and
``down_by_at_most``. ``level: warn`` never blocks. ``by: estimate`` lets the found value
alone decide, whatever its interval.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from beam_ray.compare.metric_definitions import KINDS
from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.validation import as_written
from beam_ray.define.workflow import Frozen, Workflow
from beam_ray.define.yaml_file import Source, read_yaml
from beam_ray.errors import BadDefinition, Problem, did_you_mean

Kind = Literal["at_least", "at_most", "up_by", "down_by", "up_by_at_most", "down_by_at_most"]
LIMITS: tuple[Kind, ...] = ("at_least", "at_most", "up_by", "down_by", "up_by_at_most", "down_by_at_most")
LEVELS = LIMITS[:2]
COUNTS: Mapping[str, tuple[Kind, ...]] = {"regressions": ("at_most",), "route_changes": ("at_most",), "compared": ("at_least",)}
"""Rules about counts that are known exactly, and the limits that make sense for them."""
NAMES = (*KINDS, *COUNTS)
PERCENTAGES = {name for name, kind in KINDS.items() if kind.unit == "%"} | {"compared"}
BOUNDED = PERCENTAGES | {"score", "first_score"}


class Limit(Frozen):
    """One limit of one rule."""

    rule: str
    """A metric, a count, ``node/score`` or ``node/criterion``."""
    kind: Kind
    amount: float
    percent: bool = False
    """The amount is in percent of the baseline, or of the compared tasks, and not in the metric's unit."""
    level: Literal["block", "warn"] = "block"
    by: Literal["interval", "estimate"] = "interval"

    @property
    def text(self) -> str:
        """The limit as people read it: ``up by at most 25 %``."""
        percent = self.percent or (self.rule in PERCENTAGES and self.kind in LEVELS)
        return f"{self.kind.replace('_', ' ')} {self.amount:g}{' %' if percent else ''}"


class Gate(Frozen):
    """Allowed changes: a name, the confidence of the intervals, and the limits in order."""

    name: str
    confidence: float = 95.0
    limits: tuple[Limit, ...]

    def document(self) -> JsonObject:
        """The gate as plain JSON."""
        return self.model_dump(mode="json")


DEFAULT_GATE = Gate(
    name="default",
    limits=(
        Limit(rule="success_rate", kind="at_least", amount=90),
        Limit(rule="score", kind="up_by", amount=10),
        Limit(rule="failing", kind="down_by", amount=50, percent=True),
        # all-or-nothing scores spread most at 50 %: there an improvement spreads them wider
        Limit(rule="score_sd", kind="up_by_at_most", amount=0, level="warn"),
        Limit(rule="regressions", kind="at_most", amount=0),
        Limit(rule="compared", kind="at_least", amount=95),
    ),
)


def load_gate(path: str | Path, workflow: Workflow | None = None) -> Gate:
    """
    The gate in the file. With *workflow*, rules about nodes and criteria must name some of its own.

    Raises:
        BadDefinition: with every problem found, each at its place.
    """
    source = read_yaml(Path(path))
    if not isinstance(source.data, Mapping):
        raise BadDefinition(problems=[source.problem((), "a gate file begins with 'gate: NAME'")])
    data, problems = source.data, list[Problem]()
    for key in data:
        if key not in ("gate", "confidence", "rules"):
            problems.append(
                source.problem((key,), f"unknown key {key!r}", "known here: gate, confidence, rules", *did_you_mean(key, ("gate", "confidence", "rules")))
            )
    name, confidence, rules = data.get("gate"), data.get("confidence", 95), data.get("rules")
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        problems.append(source.problem(("gate",), f"'gate' must be a name of 1 to 64 lower-case letters, digits, _ or -, not {as_written(name)}"))
    if not _is_number(confidence) or not 50 <= confidence <= 99.9:
        problems.append(source.problem(("confidence",), f"'confidence' must be a number of percent from 50 to 99.9, not {as_written(confidence)}"))
    if not isinstance(rules, Mapping) or not rules:
        problems.append(source.problem(("rules",), "'rules' must be a mapping from a metric to its limits, with at least one"))
        rules = {}
    limits: list[Limit] = []
    for rule, written in rules.items():
        found = _rule(str(rule), written, source, workflow)
        limits += [entry for entry in found if isinstance(entry, Limit)]
        problems += [entry for entry in found if isinstance(entry, Problem)]
    if problems:
        raise BadDefinition(problems=problems)
    return Gate(name=str(name), confidence=float(confidence), limits=tuple(limits))


def _rule(rule: str, written: Any, source: Source, workflow: Workflow | None) -> list[Limit | Problem]:
    at = ("rules", rule)
    found: list[Limit | Problem] = list(_unknown(rule, source, workflow))
    if not isinstance(written, Mapping):
        return [*found, source.problem(at, f"{rule!r} must be a mapping such as {{up_by: 10}}, not {as_written(written)}")]
    allowed = COUNTS.get(rule, LIMITS)
    options = {"level": ("block", "warn"), "by": ("interval", "estimate")} if rule not in COUNTS else {"level": ("block", "warn")}
    chosen = {}
    for key, words in options.items():
        chosen[key] = written.get(key, words[0])
        if chosen[key] not in words:
            found.append(source.problem((*at, key), f"{key!r} must be {' or '.join(map(repr, words))}, not {chosen[key]!r}", *did_you_mean(chosen[key], words)))
    for key, amount in written.items():
        if key in options:
            continue
        if key not in allowed:
            known = (*allowed, *options)
            found.append(source.problem((*at, key), f"unknown limit {key!r} of {rule!r}", f"known here: {', '.join(known)}", *did_you_mean(key, known)))
            continue
        read = _amount(rule, key, amount)
        if isinstance(read, str):
            found.append(source.problem((*at, key), read))
        elif not any(isinstance(entry, Problem) for entry in found):
            found.append(Limit(rule=rule, kind=key, amount=read[0], percent=read[1], **chosen))
    if not set(written) - set(options):
        found.append(source.problem(at, f"{rule!r} has no limit", f"known here: {', '.join(allowed)}"))
    return found


def _amount(rule: str, kind: Kind, written: Any) -> tuple[float, bool] | str:
    """The number and whether it is in percent of something; or what is wrong with it."""
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?%", written.strip()) if isinstance(written, str) else None
    if not match and not _is_number(written):
        return f"{kind!r} must be a number, or a percentage such as 25 %, not {as_written(written)}"
    number, percent = (float(match[1]), True) if match else (float(written), False)
    level = kind in LEVELS
    if percent and level and rule in PERCENTAGES:
        percent = False
    bounded = rule in BOUNDED or "/" in rule
    if percent and level and rule not in COUNTS:
        return f"{kind!r} is a level and cannot be in percent of the baseline; write it in the metric's unit, or use up_by and the like"
    if number < 0:
        return f"{kind!r} must be 0 or more, not {as_written(written)}"
    if number > 100 and (kind == "down_by" or rule in COUNTS if percent else bounded):
        return f"{kind!r} must be at most 100, not {written!r}"
    return number, percent


def _unknown(rule: str, source: Source, workflow: Workflow | None) -> list[Problem]:
    at = ("rules", rule)
    node, slash, criterion = rule.partition("/")
    if not slash:
        if rule in NAMES:
            return []
        return [source.problem(at, f"there is no metric {rule!r}", f"known here: {', '.join(NAMES)}, NODE/score, NODE/CRITERION", *did_you_mean(rule, NAMES))]
    if workflow is None:
        return []
    if node not in workflow.nodes:
        known = tuple(workflow.nodes)
        return [source.problem(at, f"the workflow has no node {node!r}", f"known here: {', '.join(known)}", *did_you_mean(node, known))]
    evaluate = workflow.nodes[node].evaluate
    ids = ("score", *(entry.id for entry in evaluate.criteria)) if evaluate else ()
    if criterion not in ids:
        return [
            source.problem(at, f"the node {node!r} has no criterion {criterion!r}", f"known here: {', '.join(ids) or 'none'}", *did_you_mean(criterion, ids))
        ]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
