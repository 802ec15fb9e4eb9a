"""A trace of any tool as one value, and what of it makes a task."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from beam_ray.tasks.messages import TaskMessage, decoded, read_messages

Json = Any
"""A JSON value: null, a boolean, a number, a text, a list or an object."""


SHAPE_ERRORS = (AttributeError, LookupError, TypeError, ValueError, OverflowError)
"""What reading a foreign document raises when a field holds a value of another type."""


class BadTrace(Exception):
    """A trace is not of the shape that its format has; the message says what is missing."""

    def __init__(self, message: str, line: int = 0):
        self.line = line
        super().__init__(message)


@dataclass(frozen=True)
class Feedback:
    """What a person or a program said of a trace."""

    name: str
    value: Json
    by: str = ""
    comment: str = ""


@dataclass(frozen=True)
class Trace:
    """One execution of an application in production."""

    id: str
    inputs: Json
    """What the application was given: a text, an object of fields, or a list of chat messages."""
    output: Json = None
    """What it answered; None when nothing was recorded."""
    steps: Mapping[str, Json] = field(default_factory=dict)
    """Outputs of named inner spans, in the order in which they began; of several with one name the last."""
    expected: Mapping[str, Json] = field(default_factory=dict)
    """Expectations that people wrote down, by field."""
    feedback: tuple[Feedback, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    failed: bool = False
    """Whether the application reported an error."""
    started_at: str = ""
    """ISO 8601 in UTC; empty when the format does not say."""
    line: int = 0
    """Line of the file that it begins in; 0 where there is none."""

    @property
    def route(self) -> tuple[str, ...]:
        """The names of the inner spans: what kind of execution it was."""
        return tuple(self.steps)


@dataclass(frozen=True)
class Span:
    """One span, whatever the format calls it."""

    id: str
    parent: str
    name: str
    start: float
    inputs: Json = None
    output: Json = None
    failed: bool = False
    is_model: bool = False
    """Whether it is a call to a model: its name is often the same for all of them."""


def each_document(documents: Iterable[tuple[int, Json]], make: Callable[[Json], Trace]) -> Iterator[Trace | BadTrace]:
    """The traces of a format that has one trace per document."""
    return (made(line, make, document) for line, document in documents)


def made(line: int, make: Callable[..., Trace], *parts: Any) -> Trace | BadTrace:
    """The trace that *make* makes of *parts*, with the line that it begins in; or what is wrong with them."""
    try:
        return replace(make(*parts), line=line)
    except BadTrace as error:
        return BadTrace(str(error), line)
    except SHAPE_ERRORS as error:
        return bad_shape(error, line)


def bad_shape(error: Exception, line: int) -> BadTrace:
    """What is said of a document with a value where its format has another type."""
    return BadTrace(f"a field does not have the type that this format gives it ({str(error)[:120]})", line)


def assemble(trace_id: str, spans: Sequence[Span]) -> tuple[Json, Json, dict[str, Json], bool]:
    """
    Inputs, output, outputs of the inner spans by name, and whether the execution failed.

    The root span says what was asked and answered. Where it says neither, as many instrumentations
    that only wrap the model do, the first and the last model call of the trace are taken.

    Raises:
        BadTrace: no span says what was asked.
    """
    if not spans:
        raise BadTrace(f"trace {trace_id!r} has no spans")
    ordered = sorted(spans, key=lambda span: span.start)
    known = {span.id for span in ordered}
    root = next((span for span in ordered if span.parent not in known), ordered[0])
    models = [span for span in ordered if span.is_model]
    inputs, output = root.inputs, root.output
    if inputs is None and models:
        inputs = models[0].inputs
    if output is None and models:
        output = models[-1].output
    if inputs is None:
        raise BadTrace(f"trace {trace_id!r} has no input: configure the instrumentation to record message content")
    steps = {span.name: span.output for span in ordered if span is not root and span.output is not None}
    return inputs, output, steps, root.failed


def parsed(value: Json) -> Json:
    """*value*, or the JSON that a text holds where it holds an object or a list."""
    if isinstance(value, str) and value[:1] in "{[":
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def text_of(content: Json) -> str:
    """The text of a chat message's content: a text itself, or the text parts of a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        parts = []
        for part in content:
            if isinstance(part, str):
                parts.append(part)
            elif isinstance(part, Mapping):
                parts.append(str(part.get("text") or part.get("content") or ""))
        return "\n".join(part for part in parts if part)
    return "" if content is None else json.dumps(content, ensure_ascii=False)


def is_messages(value: Json) -> bool:
    """Whether *value* is a list of chat messages."""
    return isinstance(value, list) and bool(value) and all(isinstance(entry, Mapping) and "role" in entry for entry in value)


def message(entry: Mapping[str, Json]) -> dict[str, str]:
    """A chat message with its role and its text alone."""
    return {"role": str(entry.get("role", "user")), "content": text_of(entry.get("content", entry.get("parts")))}


def conversation(messages: Sequence[Mapping[str, Json]]) -> list[TaskMessage]:
    """Chat messages of any tool in one form; images that are not in them become words."""

    def keep(url: str) -> str:
        if not url.startswith("data:"):
            raise ValueError("its file is elsewhere")
        decoded(url)
        return url

    return read_messages(messages, keep, lenient=True)


def answer_of(value: Json) -> Json:
    """
    What a recorded output says: the last assistant message's content of a chat completion or a list of messages.

    An output of another shape is kept as it is.
    """
    if isinstance(value, Mapping):
        choices = value.get("choices")
        if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) and isinstance(choices[0].get("message"), Mapping):
            return parsed(text_of(choices[0]["message"].get("content")))
        if is_messages(value.get("messages")):
            return answer_of(value["messages"])
        if set(value) >= {"role", "content"}:
            return parsed(text_of(value["content"]))
    if is_messages(value):
        said = [entry for entry in value if entry.get("role") in ("assistant", "ai", "model")] or value
        return parsed(message(said[-1])["content"])
    return value
