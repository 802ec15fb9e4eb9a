"""Criteria decided without a model: expressions, comparisons, patterns, ranges, schemas and functions."""

import math
import re
import unicodedata
from collections.abc import Callable, Mapping

from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import Json
from beam_ray.define.template import evaluate
from beam_ray.errors import BadTemplate, StepFailed
from beam_ray.evaluate.score import Finding
from beam_ray.llm.answer import MAX_TEXT, first_fault, pattern

Function = Callable[[str], Callable[..., Json]]


def judge_by_rule(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> Finding:
    """
    The finding of a rule about *output*; *values* are what the rule's expressions may use.

    A rule that cannot be evaluated is not met, with the reason. A comparison with an expected
    value that the task does not have does not apply.
    """
    try:
        met, reason, applies = _RULES[criterion.kind](criterion, output, values, function)
    except (BadTemplate, StepFailed) as error:
        met, reason, applies = False, str(error), True
    return Finding(criterion.id, criterion.text, met, reason, None, criterion.weight, applies)


_Verdict = tuple[bool | None, str, bool]


def _check(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> _Verdict:
    if "expected" in criterion.want and not values.get("expected"):
        return None, "the task has no expected outcome", False
    met = bool(evaluate(criterion.want, values))
    return met, "holds" if met else "does not hold", True


def _equals(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> _Verdict:
    if isinstance(criterion.want, list):
        want = criterion.want[0]
    else:
        if re.match(r"\s*expected\b", criterion.want):
            if not values.get("expected"):
                return None, "the task has no expected outcome", False
            field = re.fullmatch(r"\s*expected\.(\w+)\s*", criterion.want)
            if field and field[1] not in values["expected"]:
                return None, f"the task expects no {field[1]!r}", False
        want = evaluate(criterion.want, values)
    found, there = look(output, criterion.field)
    if not there:
        return False, f"the output has no {criterion.field!r}", True
    met = same(found, want, criterion.ignore)
    return met, f"{show(found)}" if met else f"{show(found)} is not {show(want)}", True


def _one_of(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> _Verdict:
    found, there = look(output, criterion.field)
    met = there and any(same(found, option, criterion.ignore) for option in criterion.want)
    return met, show(found) if met else f"{show(found)} is none of {show(criterion.want)}", True


def _matches(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> _Verdict:
    found, _ = look(output, criterion.field)
    met = isinstance(found, str) and pattern(criterion.want).search(found[:MAX_TEXT]) is not None
    return met, show(found) if met else f"{show(found)} does not match", True


def _range(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> _Verdict:
    found, _ = look(output, criterion.field)
    number = _number(found)
    if number is None:
        return False, f"{show(found)} is not a number", True
    low, high = criterion.want
    met = (low is None or number >= low) and (high is None or number <= high)
    return met, show(found) if met else f"{show(found)} lies outside", True


def _schema(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> _Verdict:
    fault = first_fault(output, criterion.want)
    return fault is None, fault or "fits", True


def _python(criterion: Criterion, output: Mapping[str, Json], values: Mapping[str, Json], function: Function) -> _Verdict:
    try:
        said = function(criterion.want)(output=output, expected=values.get("expected"), values=dict(values))
    except Exception as error:  # the author's own code; the exception becomes the reason
        return None, f"{criterion.want} raised {type(error).__name__}: {error}", True
    met, reason = said if isinstance(said, tuple) and len(said) == 2 else (said, "")
    if met is not None and not isinstance(met, bool):
        return None, f"{criterion.want} returned {met!r} and not True or False", True
    return met, str(reason) or ("holds" if met else "does not hold"), True


_RULES: dict[str, Callable[[Criterion, Mapping[str, Json], Mapping[str, Json], Function], _Verdict]] = {
    "check": _check,
    "equals": _equals,
    "one_of": _one_of,
    "matches": _matches,
    "range": _range,
    "schema": _schema,
    "python": _python,
}


def look(output: Json, field: str) -> tuple[Json, bool]:
    """The value at the dotted path *field* of *output*, and whether it exists."""
    for name in field.split("."):
        if not isinstance(output, Mapping) or name not in output:
            return None, False
        output = output[name]
    return output, True


def same(found: Json, want: Json, ignore: tuple[str, ...] = ()) -> bool:
    """Whether two values are equal as people mean it: 12 equals 12.0 and "12.00"; strings are compared by Unicode normal form, ignoring extra space."""
    if isinstance(found, bool) or isinstance(want, bool) or found is None or want is None:
        return found is want
    if isinstance(found, (int, float)) or isinstance(want, (int, float)):
        left, right = _number(found), _number(want)
        return left is not None and right is not None and math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
    if isinstance(found, str) and isinstance(want, str):
        return _folded(found, ignore) == _folded(want, ignore)
    if isinstance(found, list) and isinstance(want, list):
        return len(found) == len(want) and all(same(left, right, ignore) for left, right in zip(found, want, strict=True))
    if isinstance(found, Mapping) and isinstance(want, Mapping):
        return set(found) == set(want) and all(same(found[key], want[key], ignore) for key in found)
    return False


def _number(value: Json) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, (int, float)):
        return float(value) if abs(value) < 1e300 else None
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?\d{1,15}(\.\d{1,15})?\s*", value):
        return float(value)
    return None


def _folded(text: str, ignore: tuple[str, ...]) -> str:
    text = unicodedata.normalize("NFC", text).strip()
    if "case" in ignore:
        text = text.casefold()
    if "punctuation" in ignore:
        text = "".join(" " if unicodedata.category(character)[0] in "PS" else character for character in text)
    return "".join(text.split()) if "space" in ignore else " ".join(text.split())


def show(value: Json) -> str:
    """*value* as Python writes it, at most 80 characters of it."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
