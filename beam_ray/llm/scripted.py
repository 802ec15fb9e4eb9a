"""A model that answers from a function, for tests, dry runs and teaching."""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from beam_ray.errors import BeamRayError, ModelUnavailable
from beam_ray.llm.permits import Permits, Unlimited
from beam_ray.llm.prices import Price
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage

FREE = Price()


@dataclass
class ScriptedModel:
    """
    Answers each request with ``function(request)``.

    The function returns text, a value that becomes JSON text, or an ``Answer``, or it raises an
    exception. It runs in the worker processes, so it must be picklable. A token is counted per four
    characters, unless an ``Answer`` says otherwise.
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
            text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
            said = Answer(text, tokens, len(text) // 4 + 1)
        price = self.price.of(said.input_tokens, said.output_tokens) if self.price else None
        spent = Usage(1, said.input_tokens, said.output_tokens, price, time.monotonic() - started, waited)
        spent.cached_tokens, spent.reasoning_tokens, spent.estimated_calls = said.cached_tokens, said.reasoning_tokens, int(not said.reported)
        usage.add(spent)
        return said

    async def close(self) -> None:
        """Nothing to close."""


Models = Mapping[str, ModelSettings | ScriptedModel]
"""Models by their name in the models file."""
