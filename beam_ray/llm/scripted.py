"""A model that answers from a function, for tests, dry runs and teaching."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.errors import BeamRayError, ModelUnavailable
from beam_ray.llm import chat_api, responses_api, scripted_replies
from beam_ray.llm.permits import Permits, Unlimited
from beam_ray.llm.prices import Price
from beam_ray.llm.request import Answer, Request, ToolCall
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage

FREE = Price()


@dataclass
class ScriptedModel:
    """
    Answers each request with ``function(request)``.

    The function returns text, a value that becomes JSON text, a ``ToolCall`` or a list of them, or an
    ``Answer``, or it raises an exception. It runs in the worker processes, so it must be picklable. A
    token is counted per four characters, unless an ``Answer`` says otherwise.

    For a program it makes chat completions, responses and embeddings: the function sees the program's
    messages as a request, and embeddings are numbers derived from the text.
    """

    function: Callable[[Request], Any]
    price: Price | None = FREE
    latency_s: float = 0.0
    concurrency: int = 64
    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None

    identity: str = "scripted"
    permits: Permits | None = None

    async def ask(self, request: Request, usage: Usage) -> Answer:
        """The function's answer."""
        tokens = sum(len(str(message.get("content", ""))) for message in request.messages) // 4 + 1
        async with (self.permits or Unlimited()).hold(tokens + request.max_tokens) as waited:
            started = time.monotonic()
            if self.latency_s:
                await asyncio.sleep(self.latency_s)
            try:
                said = self.function(request)
            except BeamRayError:
                usage.add(Usage(1, 0, 0, 0.0 if self.price else None, time.monotonic() - started, waited))
                raise
            except Exception as error:  # an exception of the script means that there is no answer
                usage.add(Usage(1, 0, 0, 0.0 if self.price else None, time.monotonic() - started, waited))
                raise ModelUnavailable(f"{type(error).__name__}: {error}") from None
        if not isinstance(said, Answer):
            said = _answer(said, tokens)
        price = self.price.of(said.input_tokens, said.output_tokens) if self.price else None
        spent = Usage(1, said.input_tokens, said.output_tokens, price, time.monotonic() - started, waited)
        spent.cached_tokens, spent.reasoning_tokens, spent.estimated_calls = said.cached_tokens, said.reasoning_tokens, int(not said.reported)
        usage.add(spent)
        return said

    def body_of(self, request: Request) -> JsonObject:
        """The body of a chat completion for *request*."""
        return chat_api.body_of(request, _SETTINGS)

    async def reply(self, body: JsonObject, request: Request, usage: Usage, *, api: str | None = None) -> JsonObject:
        """The function's answer as a chat completion, a response or embeddings."""
        api = api or "chat"
        if api == "embeddings":
            found = scripted_replies.embeddings(body)
            tokens = found["usage"]["prompt_tokens"]
            usage.add(Usage(1, tokens, 0, self.price.of(tokens, 0) if self.price else None))
            return found
        asked = request if request.messages else scripted_replies.request_of(body, request)
        answer = await self.ask(asked, usage)
        return scripted_replies.response(answer, body) if api == "responses" else scripted_replies.chat_completion(answer, body)

    def read(self, reply: Json, body: JsonObject, request: Request) -> Answer:
        """The answer in the *reply*."""
        return responses_api.read_reply(reply, body) if "output" in reply else chat_api.read_reply(reply, body)

    async def close(self) -> None:
        """Nothing to close."""


def _answer(said: Any, tokens: int) -> Answer:
    calls = (said,) if isinstance(said, ToolCall) else tuple(said) if isinstance(said, (list, tuple)) else ()
    if calls and all(isinstance(call, ToolCall) for call in calls):
        written = sum(len(call.name) + len(call.arguments) for call in calls)
        return Answer("", tokens, written // 4 + 1, finish="tool_calls", tool_calls=calls)
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    return Answer(text, tokens, len(text) // 4 + 1)


_SETTINGS = ModelSettings(base_url="http://scripted", model="scripted", structured="full", max_tokens_as="max_tokens", seeds=True)

Models = Mapping[str, ModelSettings | ScriptedModel]
"""Models by their name in the models file."""
