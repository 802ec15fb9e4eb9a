"""
What an agent or a program called, read from the calls that were recorded of it.

Of an agent every call of a tool is recorded, of a program those of its recorded tools. Its other
tools are visible in the replies of its models and in the messages that follow, in the words of Chat
Completions and of the Responses API, and are read from there.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.llm.structured import ANSWER_FUNCTION
from beam_ray.store.call_table import CallRow

ReadText = Callable[[str], str]
"""Reads a request or a reply that is kept as an attachment, by its sha256."""


@dataclass(frozen=True, slots=True)
class ToolUse:
    """One call of a tool."""

    number: int
    """Its place among the calls of tools, in the order in which they began; 1 is the first."""
    turn: int
    """The model call that asked for it; those of one turn were asked for at once. 0 is before the first."""
    name: str
    arguments: Json
    """An object; a text where the model's arguments are no JSON."""
    result: Json = None
    answered: bool = True
    """Whether a result is known: a program may end without another model call, in which it would be seen."""
    error: str | None = None
    """What went wrong, also where an agent's call could not be made."""
    source: str = "live"
    """live, recorded, static or refused; of a call that stands in messages alone, the source of its model call."""
    checked: bool = True
    """Whether it is known if it failed: not of a call that stands in messages alone."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One call of a model, in the order in which they began; 1 is the first."""

    number: int
    model: str
    text: str
    """What the model said besides the calls of tools."""
    error: str | None = None
    source: str = "live"


@dataclass(frozen=True)
class Trajectory:
    """The calls of one attempt."""

    turns: tuple[Turn, ...]
    tools: tuple[ToolUse, ...]


def trajectory(calls: Sequence[CallRow], read_text: ReadText, *, agent: bool) -> Trajectory:
    """
    The trajectory of the attempt that made *calls*.

    Args:
        agent: Whether they are those of an agent, and not of a program.
    """
    rows = sorted(calls, key=lambda row: row["number"])
    models = [row for row in rows if row["kind"] == "model"]
    replies = [_object(row["reply"], row["reply_sha256"], read_text) for row in models]
    turns = tuple(
        Turn(number, row["name"], said_in(reply), row["error"], row["source"]) for number, (row, reply) in enumerate(zip(models, replies, strict=True), 1)
    )
    recorded = list(_recorded(rows, read_text))
    others = _without_rows(list(_seen(models, replies, read_text)), recorded)
    in_order = sorted([*recorded, *(map(_not_made, others) if agent else others)], key=lambda use: use.turn)
    return Trajectory(turns, tuple(replace(use, number=number) for number, use in enumerate(in_order, 1)))


def tool_counts(calls: Sequence[CallRow], *, agent: bool) -> tuple[int, int | None]:
    """
    How many calls of tools an attempt made, and how many failed: as its trajectory has them, from the replies alone.

    A refusal is the test's failure and not the tool's; whether tools of a program failed is not known.
    """
    asked = [name for row in calls if row["kind"] == "model" and row["reply"] for _, name, _ in tool_calls_in(_object(row["reply"], None, str))]
    recorded = [row for row in calls if row["kind"] == "tool"]
    failed = sum(row["error"] is not None and row["source"] != "refused" for row in recorded)
    # by name and not by turn, since replies alone do not say when a program's tools ran
    others = sum((Counter(name for name in asked if name != ANSWER_FUNCTION) - Counter(row["name"] for row in recorded)).values())
    return len(recorded) + others, failed + others if agent else None if others else failed


def _recorded(rows: Sequence[CallRow], read_text: ReadText) -> Iterator[ToolUse]:
    """The calls of tools that have rows of their own."""
    turn = 0
    for row in rows:
        turn += row["kind"] == "model"
        if row["kind"] == "tool":
            result = None if row["error"] is not None else _value(row["reply"], row["reply_sha256"], read_text)
            arguments = _value(row["request"], row["request_sha256"], read_text)
            yield ToolUse(0, turn, row["name"], arguments, result, True, row["error"], row["source"])


def _seen(models: Sequence[CallRow], replies: Sequence[JsonObject], read_text: ReadText) -> Iterator[ToolUse]:
    """The calls of tools that stand in the replies of models."""
    given = [_results(_object(row["request"], row["request_sha256"], read_text)) for row in models]
    for place, (row, reply) in enumerate(zip(models, replies, strict=True)):
        for identity, name, arguments in tool_calls_in(reply):
            found = next((results[identity] for results in given[place + 1 :] if identity in results), None)
            yield ToolUse(0, place + 1, name, _parsed(arguments), found, found is not None, None, row["source"], checked=False)


def _without_rows(seen: Sequence[ToolUse], recorded: Sequence[ToolUse]) -> list[ToolUse]:
    """Those calls in the replies of models that have no row of their own."""
    made = Counter((use.turn, use.name) for use in recorded)
    others = []
    for use in seen:
        if made[use.turn, use.name]:
            made[use.turn, use.name] -= 1
        elif use.name != ANSWER_FUNCTION:
            others.append(use)
    return others


def _not_made(use: ToolUse) -> ToolUse:
    """A call that an agent's model asked for and that was not made: of an unknown tool, or with arguments that do not fit."""
    return replace(use, result=None, answered=True, checked=True, error=str(use.result or "not called").removeprefix("Error: "))


def tool_calls_in(reply: JsonObject) -> Iterator[tuple[str, str, Json]]:
    """Id, name and arguments of each call of a tool in a model's reply."""
    for call in _message(reply).get("tool_calls") or ():
        function = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(function, Mapping):
            yield str(call.get("id") or ""), str(function.get("name") or ""), function.get("arguments")
    for item in _items(reply):
        if item.get("type") == "function_call":
            yield str(item.get("call_id") or item.get("id") or ""), str(item.get("name") or ""), item.get("arguments")


def _results(body: JsonObject) -> dict[str, Json]:
    """Id of a call to its result, of those in a request; of several with one id the last."""
    found: dict[str, Json] = {}
    for message in body.get("messages") or ():
        if isinstance(message, Mapping) and message.get("role") == "tool":
            found[str(message.get("tool_call_id") or "")] = _text(message.get("content"))
    given = body.get("input")
    for item in given if isinstance(given, list) else ():
        if isinstance(item, Mapping) and item.get("type") == "function_call_output":
            found[str(item.get("call_id") or "")] = _text(item.get("output"))
    return found


def said_in(reply: JsonObject) -> str:
    """The text of a model's reply."""
    texts = [_text(_message(reply).get("content"))]
    texts += [_text(item.get("content")) for item in _items(reply) if item.get("type") == "message"]
    return "\n".join(str(text) for text in texts if text)


def _message(reply: JsonObject) -> Mapping[str, Json]:
    choices = reply.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, Mapping) else None
    return message if isinstance(message, Mapping) else {}


def _items(reply: JsonObject) -> Iterator[Mapping[str, Json]]:
    output = reply.get("output")
    yield from (item for item in (output if isinstance(output, list) else ()) if isinstance(item, Mapping))


def _text(content: Json) -> Json:
    """The text of a message's content: itself, or its text parts."""
    if not isinstance(content, list):
        return content
    return "\n".join(str(part.get("text") or "") for part in content if isinstance(part, Mapping) and part.get("text"))


def _parsed(arguments: Json) -> Json:
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return arguments


def _value(text: str | None, sha256: str | None, read_text: ReadText) -> Json:
    written = read_text(sha256) if sha256 else text
    return json.loads(written) if written else None


def _object(text: str | None, sha256: str | None, read_text: ReadText) -> JsonObject:
    found = _value(text, sha256, read_text)
    return found if isinstance(found, dict) else {}
