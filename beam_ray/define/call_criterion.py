"""
Criteria over the calls of an agent or a program: what it called, with what, in which order, and how often.

    - called: find                                        # or a list of tools
    - called: {tool: find, with: {po_number: extract.po_number}, times: {at_most: 2}}
    - not_called: send
    - order: [find, send]                                 # send is not called before find has answered
    - calls: {at_most: 6}                                 # of all tools, or of one: {tool: find, at_most: 2}
    - turns: {at_most: 4}
    - tool_errors: {at_most: 0}

Values under ``with`` are expressions; a literal text stands in a list of one, as in ``equals``.
"""

import re
from collections.abc import Mapping
from typing import Literal

from beam_ray.define.fingerprint import Json

CallKind = Literal["called", "not_called", "order", "calls", "turns", "tool_errors"]
LIMITS = ("at_least", "at_most")
_TOOL = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_EXAMPLES = {
    "called": "'called: find' or 'called: {tool: find, with: {number: extract.number}, times: 1}'",
    "not_called": "'not_called: send' or 'not_called: {tool: send, with: {to: expected.customer}}'",
    "order": "'order: [find, send]'",
    "calls": "'calls: {at_most: 6}' or 'calls: {tool: find, at_most: 2}'",
    "turns": "'turns: {at_most: 4}'",
    "tool_errors": "'tool_errors: {at_most: 0}'",
}


def call_rules(kind: str, spec: Json) -> list[tuple[Json, str]]:
    """
    The rules that a criterion over calls stands for: the argument of each, and its words.

    Raises:
        ValueError: it is no such criterion.
    """
    if kind in ("called", "not_called"):
        entries = spec if isinstance(spec, list) else [spec]
        if not entries:
            raise ValueError(f"{kind!r} names no tool; write {_EXAMPLES[kind]}")
        return [_called(kind, entry) for entry in entries]
    if kind == "order":
        if not isinstance(spec, list) or len(spec) < 2 or not all(isinstance(name, str) and _TOOL.fullmatch(name) for name in spec):
            raise ValueError(f"'order' must be a list of two or more tools, such as {_EXAMPLES[kind]}")
        twice = next((name for place, name in enumerate(spec) if name in spec[:place]), None)
        if twice:
            raise ValueError(f"'order' names {twice!r} twice; it compares the first calls of different tools")
        return [(list(spec), f"calls {' before '.join(spec)}")]
    limits = _limits(kind, spec, ("tool",) if kind != "turns" else ())
    tool = f" of {spec['tool']}" if "tool" in spec else ""
    noun = {"calls": "tool call", "turns": "turn", "tool_errors": "tool error"}[kind]
    return [(dict(spec), f"{_range(limits, noun)}{tool}")]


def limits_of(spec: Json) -> tuple[int | None, int | None]:
    """The least and the greatest number that a rule allows; None for no limit."""
    if isinstance(spec, int):
        return spec, spec
    return spec.get("at_least"), spec.get("at_most")


def tools_named(kind: str, want: Json) -> list[str]:
    """The tools that a rule names."""
    if kind == "order":
        return list(want)
    return [want["tool"]] if "tool" in want else []


def expressions_in(kind: str, want: Json) -> list[str]:
    """The expressions of a rule: the values under ``with`` that are texts."""
    given = want.get("with", {}) if kind in ("called", "not_called") else {}
    return [value for value in given.values() if isinstance(value, str)]


def _called(kind: str, written: Json) -> tuple[Json, str]:
    entry = {"tool": written} if isinstance(written, str) else written
    if not isinstance(entry, Mapping) or not isinstance(entry.get("tool"), str) or not _TOOL.fullmatch(entry["tool"]):
        raise ValueError(f"{kind!r} must name a tool: {_EXAMPLES[kind]}")
    allowed = ("tool", "with", "times") if kind == "called" else ("tool", "with")
    other = next((name for name in entry if name not in allowed), None)
    if other is not None:
        raise ValueError(f"{kind!r} has no {other!r}; it has {', '.join(allowed)}")
    given = entry.get("with", {})
    if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
        raise ValueError(f"'with' must map arguments of {entry['tool']!r} to values, such as {{number: extract.number}}")
    for name, value in given.items():
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"the value of {name!r} under 'with' is empty; a literal text stands in a list: ['']")
    times = ""
    if "times" in entry:
        number = entry["times"]
        if isinstance(number, bool) or not isinstance(number, (int, Mapping)) or (isinstance(number, int) and number < 1):
            raise ValueError(f"'times' must be a number from 1, or {{at_least: 1, at_most: 2}}, not {number!r}")
        limits = (number, number) if isinstance(number, int) else _limits("times", number, ())
        times = f", {_range(limits, 'time')}"
    conditions = " and ".join(f"{name} = {_literal(value)}" for name, value in given.items())
    verb = "calls" if kind == "called" else "does not call"
    return dict(entry), f"{verb} {entry['tool']}{f' with {conditions}' if conditions else ''}{times}"


def _literal(value: Json) -> str:
    return str(value) if isinstance(value, str) else repr(value[0] if isinstance(value, list) and len(value) == 1 else value)


def _limits(kind: str, spec: Json, more: tuple[str, ...]) -> tuple[int | None, int | None]:
    if not isinstance(spec, Mapping) or not set(spec) & set(LIMITS):
        raise ValueError(f"{kind!r} must give at_most, at_least or both, such as {_EXAMPLES.get(kind, '{at_most: 2}')}")
    other = next((name for name in spec if name not in (*LIMITS, *more)), None)
    if other is not None:
        raise ValueError(f"{kind!r} has no {other!r}; it has {', '.join((*more, *LIMITS))}")
    for name in LIMITS:
        if name in spec and (isinstance(spec[name], bool) or not isinstance(spec[name], int) or spec[name] < 0):
            raise ValueError(f"{name!r} must be a whole number from 0, not {spec[name]!r}")
    if "tool" in spec and not (isinstance(spec["tool"], str) and _TOOL.fullmatch(spec["tool"])):
        raise ValueError(f"'tool' must be the name of a tool, not {spec['tool']!r}")
    low, high = limits_of(spec)
    if low is not None and high is not None and low > high:
        raise ValueError(f"'at_least: {low}' is more than 'at_most: {high}'")
    return low, high


def _range(limits: tuple[int | None, int | None], noun: str) -> str:
    low, high = limits
    if high == 0:
        return f"no {noun}s"
    if low == high:
        return f"exactly {_plural(low, noun)}"
    words = [f"at least {_plural(low, noun)}"] if low is not None else []
    words += [f"at most {_plural(high, noun)}"] if high is not None else []
    return " and ".join(words)


def _plural(count: int | None, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"
