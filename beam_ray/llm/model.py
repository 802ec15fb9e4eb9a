"""
A model behind an OpenAI-compatible endpoint: the only importer of openai.

Our tries are the only ones: the client's own are off, so that a limiter sees every 429 and
every call that may be billed is counted.
"""

import asyncio
import functools
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2
import openai
import stamina

from beam_ray.errors import BadAnswer, ModelRefused, ModelUnavailable, Stopped, Unusable
from beam_ray.llm.permits import Permits, Unlimited
from beam_ray.llm.prices import Price
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage

MAX_RETRY_AFTER_S = 120.0
"""An endpoint that asks for a longer pause is asked again after this one."""

MAX_REPLY = 4_000_000
"""Bytes of a reply that are read; one that goes on is a bad answer."""

MAX_COMPLAINT = 64_000
"""Bytes of a refusal to answer that are read."""

_NOT_STRICT = ("maxLength", "minLength", "maxItems", "minItems", "default", "examples")


class OpenAIModel:
    """Answers through ``/chat/completions``."""

    def __init__(self, settings: ModelSettings, permits: Permits | None = None, *, transport: httpx2.AsyncBaseTransport | None = None):
        self.settings = settings
        self.permits = permits or Unlimited()
        prices = settings.usd_per_million
        self.price = Price(prices.input, prices.output) if prices else None
        # aiohttp takes half the CPU of httpx2's own connections; what is in flight is bounded by permits, not here
        self._http = openai.DefaultAioHttpClient(
            limits=httpx2.Limits(max_connections=1_000_000, keepalive_expiry=30),
            transport=transport,
            verify=_certificates(),
            timeout=None,
            follow_redirects=False,
            # a few bytes may unpack to gigabytes, and a limit on what is read would not see it
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [_bound]},
        )
        self._client = openai.AsyncOpenAI(base_url=settings.url, api_key=settings.secret, max_retries=0, http_client=self._http)

    async def ask(self, request: Request, usage: Usage) -> Answer:
        """The answer, after as many tries as the settings allow."""
        arguments = self._arguments(request)
        estimate = sum(len(str(message.get("content", ""))) for message in request.messages) // 4 + request.max_tokens
        try:
            async for attempt in stamina.retry_context(
                on=self._pause, attempts=self.settings.tries, timeout=self.settings.deadline_s, wait_initial=0.5, wait_max=20.0
            ):
                with attempt:
                    return await self._once(arguments, estimate, request.timeout_s, usage)
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise Stopped(f"{self.settings.model} at {self.settings.base_url} cannot be asked: {_said(error, self.settings)}") from None
        except openai.APIStatusError as error:
            if _quota(error):
                raise Stopped(f"{self.settings.model}: {_said(error, self.settings)}; when there is quota again, run the same command again") from None
            if error.code in _REFUSALS:
                raise ModelRefused(f"the endpoint declined: {_said(error, self.settings)}") from None
            raise ModelUnavailable(f"{'rate limit: ' if error.status_code == 429 else ''}{_said(error, self.settings)}") from None
        except TimeoutError:
            raise ModelUnavailable(f"no answer within {request.timeout_s:g} s") from None
        except openai.APIError as error:
            raise ModelUnavailable(_said(error, self.settings)) from None
        raise AssertionError("unreachable")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _once(self, arguments: dict[str, Any], estimate: int, timeout_s: float, usage: Usage) -> Answer:
        async with self.permits.hold(estimate) as waited:
            started = time.monotonic()
            spent = Usage(1, 0, 0, 0.0 if self.price else None, 0.0, waited)
            try:
                # a limit of the client's would be on the silence between two pieces; an answer in drops would never end
                async with asyncio.timeout(timeout_s):
                    # its typed method walks every message to turn nothing into anything, at a fifth of a call's CPU
                    reply = await self._client.post("/chat/completions", cast_to=httpx2.Response, body=arguments, options={"timeout": None})
                answer = _read(reply, self.settings)
            finally:
                spent.seconds = time.monotonic() - started
                usage.add(spent)
        usage.input_tokens += answer.input_tokens
        usage.output_tokens += answer.output_tokens
        if self.price and usage.usd is not None:
            usage.usd += self.price.of(answer.input_tokens, answer.output_tokens)
        self.permits.answered(estimate, answer.input_tokens + answer.output_tokens)
        return answer

    def _arguments(self, request: Request) -> dict[str, Any]:
        messages = [dict(message) for message in request.messages]
        arguments: dict[str, Any] = {"model": self.settings.model, "messages": messages, "max_tokens": request.max_tokens}
        temperature = request.temperature if request.temperature is not None else self.settings.temperature
        if temperature is not None:
            arguments["temperature"] = temperature
        if request.top_p is not None:
            arguments["top_p"] = request.top_p
        if self.settings.seeds:
            arguments["seed"] = request.seed
        if request.schema is not None and self.settings.structured != "none":
            strict = self.settings.structured == "strict"
            schema = _strict(request.schema) if strict else request.schema
            arguments["response_format"] = {"type": "json_schema", "json_schema": {"name": request.node or "answer", "schema": schema, "strict": strict}}
        return {**arguments, **self.settings.extra}

    def _pause(self, error: Exception) -> bool | float:
        """Whether to ask again after *error*, and after how many seconds if the endpoint said."""
        if isinstance(error, openai.APIStatusError) and _quota(error):
            return False
        if isinstance(error, openai.RateLimitError):
            seconds = _retry_after(error.response.headers)
            self.permits.throttled(seconds or 0.0)
            return seconds or True
        if isinstance(error, openai.APIStatusError):
            if error.status_code in (408, 409) or error.status_code >= 500:
                return _retry_after(error.response.headers) or True
            return False
        return isinstance(error, (openai.APIConnectionError, TimeoutError))


def probe(settings: ModelSettings, name: str) -> None:
    """
    Ask the endpoint for its models, which costs nothing.

    Raises:
        Unusable: nothing answers there, or it does not take the key.
    """
    client = openai.OpenAI(base_url=settings.url, api_key=settings.secret, max_retries=1, timeout=10)
    try:
        client.models.list()
    except (openai.AuthenticationError, openai.PermissionDeniedError):
        raise Unusable(f"the model {name!r}: {settings.base_url} does not take the key ({settings.api_key})") from None
    except openai.APIConnectionError as error:
        hint = "\n  beam-ray serve  starts the embedded model" if "127.0.0.1" in settings.url or "localhost" in settings.url else ""
        raise Unusable(f"the model {name!r}: nothing answers at {settings.base_url} ({settings.hide(str(error.__cause__ or error))}){hint}") from None
    except openai.APIError:
        pass  # an endpoint that does not list its models may well answer questions
    finally:
        client.close()


def _read(response: httpx2.Response, settings: ModelSettings) -> Answer:
    """The reply's answer; a body that is no chat completion counts as a fault of the connection, and is tried again."""
    try:
        said = response.json()
        choice, used = said["choices"][0], said.get("usage")
        message = choice.get("message") or {}
        return Answer(
            settings.hide(_text(message.get("content"))),
            _count(used, "prompt_tokens"),
            _count(used, "completion_tokens"),
            finish=str(choice.get("finish_reason") or "stop"),
            refusal=settings.hide(str(message.get("refusal") or "")),
        )
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        pass
    raise openai.APIConnectionError(message=f"the reply is not a chat completion: {settings.hide(response.text)[:80]!r}", request=response.request)


def _text(content: Any) -> str:
    """A message's content, which some endpoints give in parts."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part["text"] for part in content)


def _count(used: Any, name: str) -> int:
    """A number of tokens; an endpoint that does not say, or says nonsense, has not said."""
    found = used.get(name) if isinstance(used, Mapping) else None
    return found if isinstance(found, int) and 0 < found < 2**31 else 0


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Whom to trust, read once in a process: it takes as long as ten calls."""
    return httpx2.create_ssl_context()


async def _bound(response: httpx2.Response) -> None:
    """Let no more of the reply be read than there is any use for, whatever it says of its length."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx2.DecodingError("the reply is packed, which was not asked for", request=response.request)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    response.stream = _Bounded(response.stream, complains=response.is_error)


class _Bounded(httpx2.AsyncByteStream):
    """A body of which only so much is read."""

    def __init__(self, body: httpx2.AsyncByteStream, *, complains: bool):
        self._body, self._complains = body, complains

    async def __aiter__(self) -> AsyncIterator[bytes]:
        start, length = b"", 0
        async for piece in self._body:
            length += len(piece)
            if self._complains and length > MAX_COMPLAINT:
                return
            if length > MAX_REPLY:
                raise BadAnswer(f"the reply has more than {MAX_REPLY:,} bytes; no more are read", raw=start.decode("utf-8", "replace"), again=False)
            start = start or piece[:10_000]
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


def _retry_after(headers: Mapping[str, str]) -> float:
    """Seconds that the endpoint asks us to wait, 0 if it does not say; capped."""
    for name, scale in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if not value:
            continue
        try:
            seconds = float(value) * scale
        except ValueError:
            from email.utils import parsedate_to_datetime

            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                continue
        if 0 < seconds < float("inf"):
            return min(seconds, MAX_RETRY_AFTER_S)
    return 0.0


def _quota(error: openai.APIStatusError) -> bool:
    return error.status_code == 402 or error.code in ("insufficient_quota", "billing_hard_limit_reached")


_REFUSALS = ("content_filter", "content_policy_violation")


def _said(error: openai.APIError, settings: ModelSettings) -> str:
    # a connection that was lost is told as one that timed out, which only our own clock says
    text = "Connection error." if isinstance(error, openai.APITimeoutError) else str(error).strip() or type(error).__name__
    cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
    # hidden before it is cut: half a key is also one
    return f"{settings.hide(text)[:300]}{settings.hide(cause)[:120]}"


def _strict(schema: Mapping[str, Any]) -> dict[str, Any]:
    """*schema* without the keywords that a strict endpoint refuses; the answer is still checked against all of it."""
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key in _NOT_STRICT:
            continue
        if isinstance(value, Mapping):
            result[key] = (
                {name: _strict(inner) if isinstance(inner, Mapping) else inner for name, inner in value.items()} if key == "properties" else _strict(value)
            )
        elif isinstance(value, list):
            result[key] = [_strict(inner) if isinstance(inner, Mapping) else inner for inner in value]
        else:
            result[key] = value
    return result
