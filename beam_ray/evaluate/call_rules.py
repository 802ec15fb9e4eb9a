"""Criteria over calls, decided from a trajectory: what was called, with what, in which order, and how often."""

import re
from collections.abc import Callable, Mapping, Sequence

from beam_ray.define.call_criterion import limits_of
from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import Json
from beam_ray.define.template import evaluate
from beam_ray.errors import BadTemplate
from beam_ray.evaluate.rules import look, same, show
from beam_ray.evaluate.score import Finding
from beam_ray.evaluate.tool_uses import ToolUse, Trajectory

MAX_NAMED = 5
"""Calls that a reason names."""


class _NotExpected(Exception):
    """The task does not have the expected value that the criterion compares with."""


def judge_by_calls(criterion: Criterion, calls: Trajectory | None, values: Mapping[str, Json]) -> Finding:
    """
    The finding of a rule about *calls*; *values* are what its expressions may use.

    Where it is not known what was called, it stays undecided. A rule that cannot be evaluated is not met, with the reason. A comparison with an expected
    value that the task does not have does not apply.
    """
    if calls is None:
        return Finding(criterion.id, criterion.text, None, "the calls of the step are not recorded", None, criterion.weight)
    try:
        met, reason, applies = *_RULES[criterion.kind](criterion.want, calls, values), True
    except _NotExpected as error:
        met, reason, applies = None, str(error), False
    except BadTemplate as error:
        met, reason, applies = False, str(error), True
    return Finding(criterion.id, criterion.text, met, reason, None, criterion.weight, applies)


_Verdict = tuple[bool | None, str]


def _called(want: Json, calls: Trajectory, values: Mapping[str, Json]) -> _Verdict:
    fitting, others = _fitting(want, calls, values)
    low, high = limits_of(want["times"]) if "times" in want else (1, None)
    met = (low is None or len(fitting) >= low) and (high is None or len(fitting) <= high)
    if fitting:
        return met, f"{_times(len(fitting))}: {_listed(fitting)}"
    if others:
        return met, f"only otherwise: {_listed(others)}"
    return met, _nothing(calls, want["tool"])


def _not_called(want: Json, calls: Trajectory, values: Mapping[str, Json]) -> _Verdict:
    fitting, _ = _fitting(want, calls, values)
    return not fitting, f"{_times(len(fitting))}: {_listed(fitting)}" if fitting else "not called"


def _order(want: Json, calls: Trajectory, values: Mapping[str, Json]) -> _Verdict:
    first: dict[str, ToolUse] = {}
    for use in calls.tools:
        first.setdefault(use.name, use)
    for place, later in enumerate(want):
        if later not in first:
            continue
        for earlier in want[:place]:
            if earlier not in first:
                return False, f"{later} was called as {_nth(first[later])}, and {earlier} was not called"
            if first[earlier].number > first[later].number:
                return False, f"{later} was called as {_nth(first[later])}, {earlier} as {_nth(first[earlier])}"
            if first[earlier].turn == first[later].turn:
                return False, f"{earlier} and {later} were called in one turn, before the result of {earlier} was known"
    called = [name for name in want if name in first]
    return True, f"first calls: {', '.join(f'{name} {_nth(first[name])}' for name in called)}" if called else "none of them was called"


def _calls(want: Json, calls: Trajectory, values: Mapping[str, Json]) -> _Verdict:
    uses = [use for use in calls.tools if want.get("tool") in (None, use.name)]
    return _within(want, len(uses)), f"{len(uses)}{f': {_names(uses)}' if uses else ''}"


def _turns(want: Json, calls: Trajectory, values: Mapping[str, Json]) -> _Verdict:
    return _within(want, len(calls.turns)), str(len(calls.turns))


def _tool_errors(want: Json, calls: Trajectory, values: Mapping[str, Json]) -> _Verdict:
    # a refusal is the test's, not the tool's
    unknown = [use for use in calls.tools if not use.checked and want.get("tool") in (None, use.name)]
    if unknown:
        return None, f"it is not known whether {_names(unknown)} failed; record the program's tools with recorded_tool"
    failed = [use for use in calls.tools if use.error is not None and use.source != "refused" and want.get("tool") in (None, use.name)]
    said = f": {failed[0].name}: {_cut(str(failed[0].error), 200)}" if failed else ""
    return _within(want, len(failed)), f"{len(failed)}{said}"


_RULES: dict[str, Callable[[Json, Trajectory, Mapping[str, Json]], _Verdict]] = {
    "called": _called,
    "not_called": _not_called,
    "order": _order,
    "calls": _calls,
    "turns": _turns,
    "tool_errors": _tool_errors,
}


def _fitting(want: Json, calls: Trajectory, values: Mapping[str, Json]) -> tuple[list[ToolUse], list[ToolUse]]:
    """The calls of the tool with the arguments that the rule names, and those with others."""
    given = {name: _value(written, values) for name, written in want.get("with", {}).items()}
    uses = [use for use in calls.tools if use.name == want["tool"]]
    fitting = [use for use in uses if all(_has(use.arguments, name, value) for name, value in given.items())]
    return fitting, [use for use in uses if use not in fitting]


def _value(written: Json, values: Mapping[str, Json]) -> Json:
    if not isinstance(written, str):
        return written[0] if isinstance(written, list) and len(written) == 1 else written
    if re.match(r"\s*expected\b", written):
        if not values.get("expected"):
            raise _NotExpected("the task has no expected outcome")
        field = re.fullmatch(r"\s*expected\.(\w+)\s*", written)
        if field and field[1] not in values["expected"]:
            raise _NotExpected(f"the task expects no {field[1]!r}")
    return evaluate(written, values)


def _has(arguments: Json, name: str, value: Json) -> bool:
    found, there = look(arguments, name)
    return there and same(found, value)


def _within(want: Json, count: int) -> bool:
    low, high = limits_of(want)
    return (low is None or count >= low) and (high is None or count <= high)


def _nothing(calls: Trajectory, tool: str) -> str:
    return f"{tool} was not called; called: {_names(calls.tools)}" if calls.tools else "no tool was called"


def _names(uses: Sequence[ToolUse]) -> str:
    counts: dict[str, int] = {}
    for use in uses:
        counts[use.name] = counts.get(use.name, 0) + 1
    return ", ".join(f"{name} {count} times" if count > 1 else name for name, count in counts.items())


def _listed(uses: Sequence[ToolUse]) -> str:
    shown = [shown_call(use) for use in uses[:MAX_NAMED]]
    return ", ".join([*shown, *([f"and {len(uses) - MAX_NAMED} more"] if len(uses) > MAX_NAMED else [])])


def shown_call(use: ToolUse) -> str:
    """A call as people write it: ``find(number='PO-7')``, with long values cut."""
    return f"{use.name}({_arguments(use.arguments)})"


def _arguments(arguments: Json) -> str:
    if not isinstance(arguments, Mapping):
        return show(arguments)
    return ", ".join(f"{name}={show(value)}" for name, value in arguments.items())


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _nth(use: ToolUse) -> str:
    return f"call {use.number}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"
