"""
Gates in YAML: those that come with the package, and those of a project.

    gate: orders
    extends: no-harm                     # a named gate or a file; rules of the same name replace its rules
    confidence: 95                       # percent, of every interval
    margin: 3                            # what ``not_worse_than: margin`` stands for, in points
    strict: true                         # a limit that the interval leaves open is INCONCLUSIVE, not WARN
    rules:
      success_rate: {at_least: 90}       # a level, in the metric's own unit
      score: {up_by: 10}                 # a target: so much better than the baseline
      failing: {down_by: 50 %}           # in percent of the baseline
      score_sd: {up_by_at_most: 0}       # a guard: no more than so much worse is shown
      seconds: {up_by_at_most: 25 %, level: warn}
      extract/score: {not_worse_than: 2}         # a node's score: a loss of more than 2 is excluded
      extract/vendor: {down_by_at_most: 1}       # a criterion: percent of steps that meet it
      extract/team.recall[billing]: {not_worse_than: 2}  # of a class; also precision, f1, and without [ ] their averages
      regressions: {at_most: 0}          # confirmed newly failing tasks; or 5 %, of all compared tasks
      usd: null                          # without this rule of the gate that is extended
    targets:                             # shown, met or not; they never decide
      tokens: {down_by: 10 %}

``level: warn`` never blocks. ``by: estimate`` lets the found value alone decide, whatever its
interval. ``optional: true`` leaves the line out where neither side has the number, or where a
change is limited and the number was not recorded on one side.
``any_loss: block`` lets ``not_worse_than`` block on any loss that is shown with 99% confidence.
"""

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from beam_ray.compare.class_questions import BY_CLASS, class_criteria, class_rule
from beam_ray.compare.gate import BOUNDED, COUNTS, LEVELS, LIMITS, NAMES, NONE, PERCENTAGES, SLICED, Gate, Kind, Limit, sliced_rule
from beam_ray.define.validation import as_written
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import Source, read_yaml
from beam_ray.errors import BadDefinition, Problem, Unusable, did_you_mean
from beam_ray.tasks.fields import field_fault

NAMED = ("no-harm", "improve", "cheaper", "none")
"""Gates that come with the package."""
DEFAULT = NAMED[0]
MARGIN = 5.0
KEYS = ("gate", "extends", "confidence", "margin", "strict", "rules", "targets")
OPTIONS: Mapping[str, tuple[Any, ...]] = {"level": ("block", "warn"), "by": ("interval", "estimate"), "any_loss": ("allow", "block"), "optional": (False, True)}
"""What else a rule may say, and the values; the first is the default."""
Section = Mapping[str, tuple[Any, Source]]
"""Rules as written, each with the file that it stands in."""


class _Written(NamedTuple):
    """A gate before its rules are read: what it says itself, and what it extends."""

    name: str
    confidence: float
    margin: float
    strict: bool
    rules: Section
    targets: Section


@cache
def default_gate() -> Gate:
    """The gate that judges where none is named."""
    return load_gate(DEFAULT)


def load_gate(written: str | Path, workflow: Workflow | None = None) -> Gate:
    """
    The gate of that name, or in that file. With *workflow*, rules about nodes and criteria must name some of its own.

    Raises:
        BadDefinition: with every problem found, each at its place.
        Unusable: there is no such file.
    """
    if str(written) == NONE.name:
        return NONE
    problems = list[Problem]()
    found = _read(_file(written), problems, ())
    limits: list[Limit] = []
    for section, rules in (("rules", found.rules), ("targets", found.targets)):
        for rule, (entry, source) in rules.items():
            made = _rule(section, rule, entry, source, workflow, found.margin)
            limits += [each for each in made if isinstance(each, Limit)]
            problems += [each for each in made if isinstance(each, Problem)]
    if problems:
        raise BadDefinition(problems=list(dict.fromkeys(problems)))
    return Gate(name=found.name, confidence=found.confidence, strict=found.strict, limits=tuple(limits))


def _file(written: str | Path, folder: Path = Path()) -> Path:
    if str(written) in NAMED:
        return Path(__file__).parent / "gates" / f"{written}.yaml"
    path = folder / written
    if not path.is_file() and not path.suffix:
        raise Unusable("\n  ".join([f"there is no gate {str(written)!r}", f"there are: {', '.join(NAMED)}, or a file", *did_you_mean(str(written), NAMED)]))
    return path


def _read(path: Path, problems: list[Problem], inside: tuple[Path, ...]) -> _Written:
    source = read_yaml(path)
    if not isinstance(source.data, Mapping):
        raise BadDefinition(problems=[source.problem((), "a gate file begins with 'gate: NAME'")])
    data = source.data
    for key in data:
        if key not in KEYS:
            problems.append(source.problem((key,), f"unknown key {key!r}", f"known here: {', '.join(KEYS)}", *did_you_mean(key, KEYS)))
    base = _Written("", 95.0, MARGIN, True, {}, {})
    extends = data.get("extends")
    if extends is not None:
        base = _extended(extends, path, source, problems, inside)
    name, confidence, margin, strict = (
        data.get(key, default) for key, default in zip(("gate", "confidence", "margin", "strict"), (None, *base[1:4]), strict=True)
    )
    if not isinstance(name, str) or not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", name):
        problems.append(source.problem(("gate",), f"'gate' must be a name of 1 to 64 lower-case letters, digits, _ or -, not {as_written(name)}"))
    if not _is_number(confidence) or not 50 <= confidence <= 99.9:
        problems.append(source.problem(("confidence",), f"'confidence' must be a number of percent from 50 to 99.9, not {as_written(confidence)}"))
    if not _is_number(margin) or not 0 < margin <= 100:
        problems.append(source.problem(("margin",), f"'margin' must be a number of points above 0 and up to 100, not {as_written(margin)}"))
        margin = MARGIN
    if not isinstance(strict, bool):
        problems.append(source.problem(("strict",), f"'strict' must be true or false, not {as_written(strict)}"))
    rules, targets = (_section(key, source, inherited, problems) for key, inherited in (("rules", base.rules), ("targets", base.targets)))
    if not rules and not problems:
        problems.append(source.problem(("rules",), "'rules' must be a mapping from a metric to its limits, with at least one"))
    return _Written(
        str(name), float(confidence) if _is_number(confidence) else 95.0, float(margin) if _is_number(margin) else MARGIN, bool(strict), rules, targets
    )


def _extended(extends: Any, path: Path, source: Source, problems: list[Problem], inside: tuple[Path, ...]) -> _Written:
    """The gate that the file extends."""
    try:
        if not isinstance(extends, str):
            raise Unusable(f"'extends' must be the name of a gate or a file, not {as_written(extends)}")
        if extends == NONE.name:
            raise Unusable("'extends: none' has no rules to extend; leave it out")
        base = _file(extends, path.parent)
        if base.resolve() in (*inside, path.resolve()):
            raise Unusable(f"{extends!r} extends this file in turn")
        return _read(base, problems, (*inside, path.resolve()))
    except BadDefinition:
        raise
    except Unusable as error:
        raise BadDefinition(problems=[source.problem(("extends",), str(error))]) from None


def _section(key: str, source: Source, inherited: Section, problems: list[Problem]) -> Section:
    """The rules under *key*: the inherited ones, with the file's own in their place. An empty mapping leaves none of ``targets``."""
    assert isinstance(source.data, Mapping)
    if key not in source.data and (inherited or key == "targets"):
        return inherited
    own = source.data.get(key)
    if key == "targets" and not own and (own is None or isinstance(own, Mapping)):
        return {}
    if not isinstance(own, Mapping) or not own:
        problems.append(source.problem((key,), f"{key!r} must be a mapping from a metric to its limits, with at least one"))
        return inherited
    for rule, entry in own.items():
        if entry is None and rule not in inherited:
            problems.append(source.problem((key, rule), f"there is no rule {rule!r} to leave out", *did_you_mean(str(rule), tuple(inherited))))
    return {
        str(rule): (entry, place)
        for rule, (entry, place) in {**inherited, **{rule: (entry, source) for rule, entry in own.items()}}.items()
        if entry is not None
    }


def _rule(section: str, rule: str, written: Any, source: Source, workflow: Workflow | None, margin: float) -> list[Limit | Problem]:
    at = (section, rule)
    found: list[Limit | Problem] = list(_unknown(at, source, workflow))
    if not isinstance(written, Mapping):
        return [*found, source.problem(at, f"{rule!r} must be a mapping such as {{up_by: 10}}, not {as_written(written)}")]
    allowed = COUNTS.get(rule, LIMITS)
    options = {key: words for key, words in OPTIONS.items() if (rule not in COUNTS or key == "level") and (section == "rules" or key != "level")}
    chosen: dict[str, Any] = {} if section == "rules" else {"level": "target"}
    for key, words in options.items():
        chosen[key] = written.get(key, words[0])
        if not any(chosen[key] is word or (isinstance(word, str) and chosen[key] == word) for word in words):
            says = " or ".join(repr(word) if isinstance(word, str) else str(word).lower() for word in words)
            texts = [word for word in words if isinstance(word, str)]
            found.append(source.problem((*at, key), f"{key!r} must be {says}, not {as_written(chosen[key])}", *did_you_mean(str(chosen[key]), texts)))
    if chosen.get("any_loss") == "block" and "not_worse_than" not in written:
        found.append(source.problem((*at, "any_loss"), "'any_loss' belongs to 'not_worse_than', which is not here"))
    for key, amount in written.items():
        if key in options:
            continue
        if key not in allowed:
            known = (*allowed, *options)
            found.append(source.problem((*at, key), f"unknown limit {key!r} of {rule!r}", f"known here: {', '.join(known)}", *did_you_mean(key, known)))
            continue
        read = _amount(rule, key, margin if key == "not_worse_than" and amount == "margin" else amount)
        if isinstance(read, str):
            found.append(source.problem((*at, key), read))
        elif not any(isinstance(entry, Problem) for entry in found):
            own = chosen if key == "not_worse_than" else {**chosen, "any_loss": "allow"}
            found.append(Limit(rule=rule, kind=key, amount=read[0], percent=read[1], **own))
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
    sliced = sliced_rule(rule)
    rule = sliced.metric if sliced else rule
    if percent and level and rule in PERCENTAGES:
        percent = False
    bounded = rule in BOUNDED or "/" in rule
    if percent and level and rule not in COUNTS:
        return f"{kind!r} is a level and cannot be in percent of the baseline; write it in the metric's unit, or use up_by and the like"
    if number < 0:
        return f"{kind!r} must be 0 or more, not {as_written(written)}"
    if kind == "not_worse_than" and not number:
        return "'not_worse_than' must be more than 0: no number of tasks can exclude every loss"
    if number > 100 and (kind == "down_by" or rule in COUNTS if percent else bounded):
        return f"{kind!r} must be at most 100, not {written!r}"
    return number, percent


def _unknown(at: tuple[str, str], source: Source, workflow: Workflow | None) -> list[Problem]:
    rule = at[1]
    if sliced := sliced_rule(rule):
        fault = field_fault(sliced.field)
        return [
            *([] if sliced.metric in SLICED else [source.problem(at, f"a slice has no metric {sliced.metric!r}", f"it has: {', '.join(SLICED)}")]),
            *([source.problem(at, *fault.split("\n"))] if fault else []),
        ]
    node, slash, criterion = rule.partition("/")
    if not slash:
        if rule in NAMES:
            return []
        return [
            source.problem(
                at,
                f"there is no metric {rule!r}",
                f"known here: {', '.join(NAMES)}, NODE/score, NODE/CRITERION, METRIC[FIELD=VALUE]",
                *did_you_mean(rule, NAMES),
            )
        ]
    if workflow is None:
        return []
    if node not in workflow.nodes:
        known = tuple(workflow.nodes)
        return [source.problem(at, f"the workflow has no node {node!r}", f"known here: {', '.join(known)}", *did_you_mean(node, known))]
    evaluate = workflow.nodes[node].evaluate
    ids = ("score", *(entry.id for entry in evaluate.criteria)) if evaluate else ()
    if criterion not in ids and (measured := class_rule(criterion)):
        return [source.problem(at, *said) for said in _class_problems(workflow, node, *measured)]
    if criterion not in ids:
        return [
            source.problem(at, f"the node {node!r} has no criterion {criterion!r}", f"known here: {', '.join(ids) or 'none'}", *did_you_mean(criterion, ids))
        ]
    return []


def _class_problems(workflow: Workflow, node: str, criterion: str, kind: str, label: str | None) -> list[tuple[str, ...]]:
    """What is wrong with a rule about precision, recall or F1, each as a message with its notes."""
    classes = {entry.id: options for name, entry, options in class_criteria(workflow) if name == node}
    if criterion not in classes:
        known = (
            f"known here: {', '.join(classes)}" if classes else "a classification is a criterion such as 'equals: {team: expected.team}' on a 'one of' field"
        )
        return [(f"the criterion {criterion!r} of the node {node!r} compares no 'one of' field with the expected value", known)]
    if label is not None and kind not in BY_CLASS:
        return [(f"{kind!r} is of all classes together", f"of one class there are: {', '.join(BY_CLASS)}")]
    if label is not None and label not in classes[criterion]:
        return [
            (f"the field of {criterion!r} has no class {label!r}", f"known here: {', '.join(classes[criterion])}", *did_you_mean(label, classes[criterion]))
        ]
    return []


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e12
