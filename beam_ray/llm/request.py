"""A request to a model, its answer, and what a model must be able to do."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NotRequired, Protocol, TypedDict

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.llm.usage import Usage


class ImageUrl(TypedDict):
    """Where an image is; a ``data:`` URL holds it."""

    url: str


class Part(TypedDict):
    """A part of a message: text, or an image."""

    type: str
    """text or image_url"""
    text: NotRequired[str]
    image_url: NotRequired[ImageUrl]


class Message(TypedDict):
    """One turn of a chat."""

    role: str
    """system, user, assistant or tool"""
    content: str | Sequence[Part]
    """For a tool: its result, or its error in words."""
    tool_calls: NotRequired[Sequence[JsonObject]]
    """Functions that the assistant called, as chat completions write them."""
    raw: NotRequired[Sequence[JsonObject]]
    """The assistant's turn as the endpoint wrote it: what it thought goes back to it with the results."""
    tool_call_id: NotRequired[str]
    """The call that a tool's result belongs to."""


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model."""

    messages: tuple[Message | Mapping[str, Json], ...]
    schema: Mapping[str, Json] | None = None
    """The JSON schema of the answer; None for plain text."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int = 1024
    """The most tokens that the model may write."""
    seed: int = 0
    timeout_s: float = 120
    """Seconds for one call, without the time spent waiting for a permit."""
    node: str = ""
    task_id: str = ""
    trial: int = 1
    attempt: int = 1
    """Counted from 1."""
    judges: bool = False
    """Whether a judge is asked about an output."""
    question: str = ""
    """Identifies what is asked where the messages contain random text; empty where the messages themselves do."""
    tools: tuple[JsonObject, ...] = ()
    """Functions that the model may call: name, description, and the JSON schema of their parameters."""
    by_program: bool = False
    """Whether a program wrote the body: it never waits for a batch, and what an endpoint refuses in it concerns its row alone."""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's call of a function."""

    name: str
    arguments: str = "{}"
    """As the model wrote them: JSON, unless it erred."""
    id: str = ""
    """By which the function's result names the call."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer of a model."""

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    finish: str = "stop"
    """Why the model stopped, in the endpoint's words: stop, length or content_filter."""
    refusal: str = ""
    """The model's words where it declined to answer."""
    reasoning: str = ""
    """What the model wrote while thinking, kept apart from the answer."""
    reasoning_tokens: int | None = None
    """Output tokens that were reasoning; None where the endpoint does not say."""
    cached_tokens: int | None = None
    """Input tokens that were read from the provider's cache; None where the endpoint does not say."""
    cache_write_tokens: int | None = None
    """Input tokens that were written to the provider's cache; None where the endpoint does not say."""
    reported: bool = True
    """Whether the endpoint reported the tokens; otherwise they are estimates."""
    tier: str = ""
    """The service tier that the endpoint used, where it says so."""
    tool_calls: tuple[ToolCall, ...] = ()
    """Functions that the model called."""
    answer_call: ToolCall | None = None
    """The call by which it gave the answer, where that was asked for as a function; its arguments are the text."""
    raw: tuple[JsonObject, ...] = ()
    """Where it called functions: the message of the chat completion, or the items of the response."""


def tool_turns(answer: Answer, results: Sequence[tuple[ToolCall, str]]) -> tuple[Message, ...]:
    """The turns that follow an answer with tool calls: the answer itself, and what each call gave."""
    calls = [{"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}} for call, _ in results]
    asked: Message = {"role": "assistant", "content": "" if answer.answer_call else answer.text, "tool_calls": calls, "raw": answer.raw}
    told: list[Message] = [{"role": "tool", "tool_call_id": call.id, "content": text} for call, text in results]
    return (asked, *told)


class Deferred(Exception):
    """The request was put aside for a batch: its row waits for the answer, and has neither failed nor finished."""


class Model(Protocol):
    """Anything that answers requests: ``ask`` is ``body_of``, ``reply`` and ``read``, one after the other."""

    async def ask(self, request: Request, usage: Usage) -> Answer:
        """
        The answer to *request*. Every call is counted in *usage*, failed ones included.

        Raises:
            ModelUnavailable: no answer within the deadline.
            ModelRefused: the model declined to answer.
            Stopped: no row could be answered, for example because the key is wrong or the quota is used up.
        """

    def body_of(self, request: Request) -> JsonObject:
        """The body of the HTTP request for *request*."""

    async def reply(self, body: JsonObject, request: Request, usage: Usage, *, api: str | None = None) -> JsonObject:
        """
        The endpoint's whole reply to *body*, as it came except that secrets are hidden; retried, limited and counted as in ``ask``.

        Args:
            request: Whose call it is. Where it has messages, *body* is made of it.
            api: chat, responses or embeddings; None for the one that ``body_of`` writes for.

        Raises:
            as ``ask``.
        """

    def read(self, reply: Json, body: JsonObject, request: Request) -> Answer:
        """The answer in the *reply* to the *body* of *request*."""
