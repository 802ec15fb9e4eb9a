"""
What identifies a call, and the recordings that answer it.

A model call is identified by everything that may change its answer: the model, the body of the
request, and which sample, trial and attempt it is. A tool call is identified by the tool and its
arguments. The number among equal calls tells these apart; otherwise the order of calls plays no
part, so that tools that run in parallel may end in any order.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TypedDict

from beam_ray.address import Address
from beam_ray.define.fingerprint import Json, JsonObject, canonical, digest
from beam_ray.llm.usage import Usage
from beam_ray.store.call_table import CallRow, PlacedCallRow, unplaced

NOT_ASKED = frozenset({"model", "stream", "stream_options", "user", "metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier"})
"""Keys of a request's body that do not change the answer; the model's identity stands for its name."""

MAX_SHOWN = 300
"""Characters of each of two differing values that are kept."""

BEFORE_DIFFERENCE = 60
"""Characters of them before the place where they begin to differ."""


def model_fingerprint(identity: str, api: str, body: Mapping[str, Json], sample: int, trial: int, attempt: int) -> str:
    """Identifies a request to a model; ids of tool calls, which models make up, count by their order of appearance."""
    asked: JsonObject = {name: _plain_number(value) for name, value in body.items() if name not in NOT_ASKED}
    named: dict[str, str] = {}
    for key in ("messages", "input"):
        if isinstance(asked.get(key), list):
            asked[key] = [_with_plain_ids(turn, named) for turn in asked[key]]
    # without the recursion of canonical(): a conversation is long, and grows with each call
    return digest("model call/1", identity, api, json.dumps(asked, sort_keys=True), sample, trial, attempt)


def _plain_number(value: Json) -> Json:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _with_plain_ids(turn: Json, named: dict[str, str]) -> Json:
    """The *turn* of a conversation with its ids replaced by the order in which they appear; *named* has those that appeared before."""
    if not isinstance(turn, dict) or turn.get("type") == "item_reference":
        return turn  # what a reference stands for is known to the endpoint alone
    plain = {name: _plain_id(value, named) if name in ("id", "call_id", "tool_call_id") else value for name, value in turn.items()}
    if isinstance(turn.get("tool_calls"), list):
        plain["tool_calls"] = [_with_plain_ids(call, named) for call in turn["tool_calls"]]
    return plain


def _plain_id(value: Json, named: dict[str, str]) -> Json:
    return named.setdefault(value, f"#{len(named) + 1}") if isinstance(value, str) else value


def tool_fingerprint(name: str, identity: Json) -> str:
    """Identifies a call of the tool *name*; *identity* are its canonical arguments, or what a declared key makes of them."""
    return digest("tool call/1", name, identity)


def canonical_arguments(arguments: Json) -> Json:
    """Arguments without what does not count: white space at the ends of strings. Digests ignore key order, and take 1.0 for 1."""
    if isinstance(arguments, str):
        return arguments.strip()
    if isinstance(arguments, Mapping):
        return {name: canonical_arguments(value) for name, value in arguments.items()}
    if isinstance(arguments, (list, tuple)):
        return [canonical_arguments(value) for value in arguments]
    return arguments


def static_answer(cases: Sequence[Mapping[str, Json]], arguments: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """The first of a tool's static *cases* whose ``when`` the arguments have; None where there is none."""
    for case in cases:
        when = case.get("when") or {}
        if all(name in arguments and _same(arguments[name], wanted) for name, wanted in when.items()):
            return case
    return None


def _same(one: Json, other: Json) -> bool:
    return canonical(canonical_arguments(one)) == canonical(canonical_arguments(other))


class Recording:
    """The calls that an earlier execution of a step recorded. Answers of models and tools answer: not errors of models, refusals and static answers."""

    def __init__(self, calls: Sequence[PlacedCallRow] = ()):
        self.calls = calls
        self._by_key: dict[tuple[str, int, int], PlacedCallRow] = {}
        self._by_number = {(call["attempt"], call["number"]): call for call in calls}
        self._refused = {(call["fingerprint"], call["occurrence"], call["attempt"]) for call in calls if call["source"] == "refused"}
        for call in calls:
            if call["source"] not in ("refused", "static") and is_answer(call):
                self._by_key[call["fingerprint"], call["occurrence"], call["attempt"]] = call
        self._attempts = sorted({call["attempt"] for call in calls})

    def __bool__(self) -> bool:
        return bool(self.calls)

    def model_call(self, fingerprint: str, occurrence: int, attempt: int) -> PlacedCallRow | None:
        """The recorded answer to a request; its fingerprint names the attempt."""
        return self._by_key.get((fingerprint, occurrence, attempt))

    def tool_call(self, fingerprint: str, occurrence: int, attempt: int) -> PlacedCallRow | None:
        """The recorded result of a tool: of the same attempt, else of the first that has it."""
        attempts = [attempt, *self._attempts]
        return next((found for each in attempts if (found := self._by_key.get((fingerprint, occurrence, each)))), None)

    def refused_too(self, call: CallRow) -> bool:
        """Whether the very same was refused in the recording as *call* is now."""
        return call["source"] == "refused" and (call["fingerprint"], call["occurrence"], call["attempt"]) in self._refused

    def at(self, attempt: int, number: int) -> PlacedCallRow | None:
        """The call that is recorded at a place."""
        return self._by_number.get((attempt, number))


def replayed(row: PlacedCallRow) -> CallRow:
    """A recorded call, as the call of another step that it answers: nothing is paid for it."""
    address = str(Address(row["run_id"], row["task_id"], row["trial"], row["node"], row["attempt"]))
    return {**unplaced(row), "source": "recorded", "recorded_from": row["recorded_from"] or address, "calls": 0, "waited": 0.0}


def is_answer(row: CallRow) -> bool:
    """Whether the call brought an answer: an error of a tool is one, an error of a model is none."""
    return row["kind"] == "tool" or row["error"] is None


def usage_of(row: CallRow) -> Usage:
    """What the call's answer takes, whoever paid for it."""
    return Usage(
        row["calls"],
        row["input_tokens"],
        row["output_tokens"],
        row["usd"],
        row["seconds"],
        row["waited"],
        row["cached_tokens"],
        row["reasoning_tokens"],
        int(row["estimated"]),
    )


def work_of(rows: Iterable[CallRow]) -> Usage:
    """What the answers of these calls take, whoever paid for them."""
    total = Usage()
    for row in rows:
        spent = usage_of(row)
        spent.calls = max(row["calls"], 0 if row["kind"] == "tool" else 1)
        total.add(spent)
    return total


def paid_for(row: CallRow) -> Usage:
    """What a call cost in its run: nothing unless it was made."""
    return usage_of(row) if row["source"] == "live" else Usage()


class CallSummary(TypedDict):
    """A call, as a divergence names it."""

    number: int
    kind: str
    name: str


class DivergenceDocument(TypedDict):
    """The first call of a step that left the recording: the column ``divergence``."""

    attempt: int
    made: CallSummary
    source: str
    """How it was answered: live, static, refused; empty where it failed."""
    recorded: CallSummary | None
    """What the recording has in its place; None where it has ended."""
    where: str
    """Where the two requests differ first, such as ``messages[2].content``; empty where it is another model or tool."""
    before: str | None
    """JSON of the recorded value there, cut; None where there is none."""
    after: str | None


_ABSENT = object()


def divergence(made: CallRow, recorded: CallRow | None) -> DivergenceDocument:
    """How the call *made* differs from the one that is *recorded* in its place."""
    where, before, after = "", None, None
    if recorded and recorded["kind"] == made["kind"] and recorded["name"] == made["name"] and recorded["request"] and made["request"]:
        where, before, after = _first_difference(_compared(recorded), _compared(made), "")
    return {
        "attempt": made["attempt"],
        "made": _summary(made),
        "source": "" if made["error"] and made["source"] == "live" and made["kind"] != "tool" else made["source"],
        "recorded": _summary(recorded) if recorded else None,
        "where": where,
        "before": before,
        "after": after,
    }


def _summary(call: CallRow) -> CallSummary:
    return {"number": call["number"], "kind": call["kind"], "name": call["name"]}


def _compared(call: CallRow) -> Json:
    request: JsonObject = json.loads(call["request"] or "{}")
    return {name: value for name, value in request.items() if name not in NOT_ASKED} if call["kind"] != "tool" else canonical_arguments(request)


def _first_difference(before: Json, after: Json, path: str) -> tuple[str, str | None, str | None]:
    """Path, and both values as JSON, of the first place where the two differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = {f"{path}.{name}" if path else name: (before.get(name, _ABSENT), after.get(name, _ABSENT)) for name in dict.fromkeys([*before, *after])}
    elif isinstance(before, list) and isinstance(after, list):
        pairs = {f"{path}[{place}]": pair for place, pair in enumerate(zip_longest(before, after, fillvalue=_ABSENT))}
    else:
        return path, *_both_shown(before, after)
    for inner, (one, other) in pairs.items():
        if one is not _ABSENT and other is not _ABSENT and one != other:
            return _first_difference(one, other, inner)
        if one is _ABSENT or other is _ABSENT:
            return inner, _shown(one), _shown(other)
    return "", None, None


def _both_shown(before: Json, after: Json) -> tuple[str | None, str | None]:
    """Two values as JSON; of long texts the place where they begin to differ."""
    if not (isinstance(before, str) and isinstance(after, str)):
        return _shown(before), _shown(after)
    same = next((place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), min(len(before), len(after)))
    start = max(same - BEFORE_DIFFERENCE, 0) if max(len(before), len(after)) > MAX_SHOWN else 0
    return _shown(before[start:], "…" * (start > 0)), _shown(after[start:], "…" * (start > 0))


def _shown(value: Json, begins: str = "") -> str | None:
    if value is _ABSENT:
        return None
    text = json.dumps(begins + value if begins else value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"
