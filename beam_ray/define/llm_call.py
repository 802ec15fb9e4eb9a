"""A call to a model as a node defines it: its prompt, what it returns, and the sampling settings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field, StrictFloat, StrictInt, field_validator

from beam_ray.define.fingerprint import Json, JsonSchema
from beam_ray.define.frozen import Frozen
from beam_ray.define.returns import Faults, object_schema

TEXT_SCHEMA = object_schema({"text": {"type": "string"}})
ROLES = ("system", "user", "assistant")
CONVERSATION = "messages"
"""Stands for a role where a prompt takes in messages that it does not write itself."""
TASK = "task"
"""Where a prompt takes in messages: those of the task."""


class Turn(Frozen):
    """One message of a prompt, or the messages of a conversation that it takes in."""

    role: Literal["system", "user", "assistant", "messages"]
    content: str
    """A template. With the role ``messages``: ``task``, the name of a node, or an expression in ``{{ }}`` that gives a list of messages."""
    file: str = ""
    """The file that the text came from, for messages; not part of the definition's identity."""


def turn_fault(turn: Turn | Json) -> str:
    """Why *turn* is not a valid turn of a prompt, or an empty string."""
    if isinstance(turn, Turn):
        return ""
    if isinstance(turn, Mapping) and {"role", "content"} <= set(turn):
        role, content = turn["role"], turn["content"]
    elif isinstance(turn, Mapping) and len(turn) == 1:
        [(role, content)] = turn.items()
    else:
        return "a turn must be one role with its text, such as '- user: …'"
    if role == CONVERSATION:
        taken = isinstance(content, str) and content.strip()
        return "" if taken else "'messages' must be 'task', the name of an earlier node, or an expression such as '{{ variables.history }}'"
    if role not in ROLES:
        return f"the role of a turn must be {', '.join(ROLES[:-1])} or {ROLES[-1]}, not {role!r}; '- messages: task' takes in a conversation"
    if not isinstance(content, str):
        return f"the text of a turn must be a string, not {'null' if content is None else repr(content)}; put it in quotes"
    return "" if content.strip() else "the prompt is empty"


class LlmCall(Frozen):
    """A call to a model. Sampling settings are those of the models file unless given here."""

    prompt: tuple[Turn, ...] = Field(min_length=1)
    """A Jinja2 template, or a list of turns, inline or in a file."""
    returns: JsonSchema | None = None
    """Field to type of the output, kept as a JSON schema; without it the output is ``{text: …}``."""
    model: str | None = None
    """A name from the models file. Default: the workflow's model."""
    temperature: StrictFloat | None = Field(default=None, ge=0, le=2)
    top_p: StrictFloat | None = Field(default=None, gt=0, le=1)
    max_tokens: StrictInt = Field(default=1024, ge=1, le=1_000_000)
    seed: StrictInt = Field(default=0, ge=0, le=2**31)
    """The numbers of the trial and the attempt are added, so that each is a different sample."""

    if TYPE_CHECKING:  # what the validators below accept

        def __init__(
            self,
            *,
            prompt: str | Sequence[Turn | Mapping[str, str]],
            returns: Mapping[str, Json] | None = None,
            model: str | None = None,
            temperature: float | None = None,
            top_p: float | None = None,
            max_tokens: int = 1024,
            seed: int = 0,
        ) -> None: ...

    @field_validator("prompt", mode="before")
    @classmethod
    def _turns(cls, written: Json) -> Json:
        if isinstance(written, str):
            written = [{"user": written}]
        if not isinstance(written, (list, tuple)):
            quotes = "\nquote text that begins with {{" if isinstance(written, Mapping) else ""
            raise ValueError(f"a prompt must be text or a list of turns such as '- user: …'{quotes}")
        turns = []
        for turn in written:
            if isinstance(turn, Mapping) and len(turn) == 1:
                [(role, content)] = turn.items()
                turn = {"role": role, "content": content}
            turns.append(turn)
        faults: list[tuple[int | str, str]] = [(index, fault) for index, fault in enumerate(map(turn_fault, turns)) if fault]
        if faults:
            raise Faults(faults)
        return turns

    @field_validator("returns", mode="before")
    @classmethod
    def _schema(cls, written: Json) -> Json:
        if not isinstance(written, Mapping):
            return written
        if written.get("type") == "object" and isinstance(written.get("properties"), Mapping):
            return object_schema(written["properties"])
        return object_schema(written)
