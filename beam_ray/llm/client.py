"""
The client of an OpenAI-compatible endpoint, with its retries; of all modules only this one and ``batch_endpoint`` import openai.

Retries are ours: those of the client library are off, so that the limiter sees every 429 and every
call that may be billed is counted.
"""

import asyncio
import dataclasses
import functools
import json
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, cast

import httpx2
import openai
import stamina

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.errors import BadAnswer, BeamRayError, ModelRefused, ModelUnavailable, OutOfQuota, WrongSetting
from beam_ray.llm import chat_api, embeddings_api, responses_api
from beam_ray.llm.permits import Permits, Unlimited
from beam_ray.llm.prices import Tokens, price_of
from beam_ray.llm.refusals import Kind, Refusal, kind_of, read_refusal, status_within
from beam_ray.llm.remedies import remedy
from beam_ray.llm.reply_headers import read_rate_limits, retry_after
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage

MAX_REPLY = 4_000_000
"""Bytes of a reply that are read; a longer one is a bad answer."""

MAX_COMPLAINT = 64_000
"""Bytes of an error reply that are read."""

MAX_REASONING = 64_000
"""Characters of reasoning that are kept with an attempt."""

MAX_EMBEDDINGS = 64_000_000
"""Bytes of a reply with embeddings that are read."""

PATHS = {"chat": chat_api.PATH, "responses": responses_api.PATH, "embeddings": embeddings_api.PATH}

_READERS = {"chat": chat_api.read_reply, "responses": responses_api.read_reply, "embeddings": embeddings_api.read_reply}
_NAMES = {"chat": "a chat completion", "responses": "a response", "embeddings": "a list of embeddings"}

_NOT_SENT = {f"X-Stainless-{name}": openai.Omit() for name in ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")}
"""Headers in which the openai client describes this machine: no endpoint needs them, and they take 5% of a call's CPU time."""

_FOR_EVERY_ROW = (Kind.SETTING, Kind.ACCESS, Kind.QUOTA)
_TRY_AGAIN = (Kind.RATE_LIMIT, Kind.BUSY)


UNANSWERED = (openai.APIError, TimeoutError)
"""Errors of a call that got no reply that can be read."""


class Refused(Exception):
    """The endpoint replied with an error."""

    def __init__(self, refusal: Refusal, sent: JsonObject, headers: Mapping[str, str]):
        self.refusal, self.sent, self.headers = refusal, sent, headers
        self.kind, self.parameter = kind_of(refusal, sent)
        super().__init__(refusal.message)


def http_client(transport: httpx2.AsyncBaseTransport | None = None) -> httpx2.AsyncClient:
    """An HTTP client for any number of models; a connection is closed when it was idle for 30 seconds."""
    # aiohttp takes half the CPU of httpx2's own connections; permits limit what is in flight, not this pool
    return openai.DefaultAioHttpClient(
        limits=httpx2.Limits(max_connections=1_000_000, keepalive_expiry=30),
        transport=transport,
        verify=_certificates(),
        timeout=None,
        follow_redirects=False,
        # a few bytes may unpack to gigabytes, which the limit on the reply's size would not notice
        headers={"Accept-Encoding": "identity"},
        event_hooks={"response": [_bound]},
    )


def default_headers(settings: ModelSettings) -> Mapping[str, Any]:
    """The headers that an openai client adds to each request: those of the settings, and none that describes this machine."""
    return {**_NOT_SENT, **settings.own_headers}


class OpenAIModel:
    """Answers requests through an OpenAI-compatible API."""

    def __init__(self, settings: ModelSettings, permits: Permits | None = None, *, name: str = "", http: httpx2.AsyncClient | None = None):
        """
        Args:
            http: A client from ``http_client``, which several models may share and the caller closes; None makes one for this model.
        """
        self.settings = settings
        self.name = name or settings.model
        """The model's name in the models file, for messages."""
        self.permits = permits or Unlimited()
        self.price = price_of(settings)
        self._is_shared = http is not None
        self._http = http or http_client()
        self._options: Any = {"timeout": None, "headers": {"Authorization": openai.Omit()} if settings.key_elsewhere else {}}
        self._client = openai.AsyncOpenAI(
            base_url=settings.url,
            api_key=settings.secret,
            max_retries=0,
            http_client=self._http,
            default_headers=default_headers(settings),
            default_query=settings.own_query,
        )
        # joining path and base address in each call would take another 5%
        self._addresses = {api: f"{self._client.base_url}{path.removeprefix('/')}" for api, path in PATHS.items()}

    async def ask(self, request: Request, usage: Usage) -> Answer:
        """The answer, after as many tries as the settings allow."""
        _, answer = await self._retried(self.body_of(request), request, usage, self.settings.call.api)
        return answer

    async def reply(self, body: JsonObject, request: Request, usage: Usage, *, api: str | None = None) -> JsonObject:
        """The endpoint's reply to *body* as it came, without secrets, after as many tries as the settings allow."""
        reply, _ = await self._retried(body, request, usage, api or self.settings.call.api)
        return cast(JsonObject, hidden_in(reply, self.settings))

    async def _retried(self, body: JsonObject, request: Request, usage: Usage, api: str) -> tuple[JsonObject, Answer]:
        estimate = characters(request) // 4 + request.max_tokens if request.messages else tokens_of(body)
        try:
            return await self._tried(body, estimate, request, usage, api)
        except Refused as error:
            raise self.failure(error, request) from None
        except TimeoutError:
            raise ModelUnavailable(f"no answer within {request.timeout_s:g} s", status=504) from None
        except openai.APIError as error:
            raise ModelUnavailable(_said(error, self.settings)) from None

    async def _tried(self, body: JsonObject, estimate: int, request: Request, usage: Usage, api: str) -> tuple[JsonObject, Answer]:
        began = time.monotonic()
        try:
            return await self._once(body, estimate, request, usage, api)
        except Exception as error:
            failed = error
        # the retry library is used only after a failure: its objects take a tenth of a call's CPU time to create and to collect
        left_s = max(self.settings.deadline_s - (time.monotonic() - began), 1e-9)
        async for attempt in stamina.retry_context(on=self._pause, attempts=self.settings.tries, timeout=left_s, wait_initial=0.5, wait_max=20.0):
            with attempt:
                if attempt.num == 1:
                    raise failed
                return await self._once(body, estimate, request, usage, api)
        raise AssertionError("unreachable")

    def body_of(self, request: Request) -> JsonObject:
        """The body of the HTTP request for *request*."""
        return responses_api.body_of(request, self.settings) if self.settings.call.api == "responses" else chat_api.body_of(request, self.settings)

    async def post(self, body: JsonObject, timeout_s: float, *, api: str | None = None) -> tuple[Json, Mapping[str, str]]:
        """
        The endpoint's reply to *body*, and its headers; one call.

        Raises:
            Refused: the endpoint replied with an error, also where the status of that reply is 200.
            one of UNANSWERED: there was no reply that can be read.
        """
        api = api or self.settings.call.api
        try:
            # the client's own limit is on the silence between two pieces; an answer in drops would never end
            async with asyncio.timeout(timeout_s):
                # its typed method walks every message, at a fifth of a call's CPU
                reply = await self._client.post(self._addresses[api], cast_to=httpx2.Response, body=body, options=self._options)
        except openai.APIStatusError as error:
            raise Refused(
                self._hidden(read_refusal(error.status_code, _json(error.response) or error.body or error.message)), body, error.response.headers
            ) from None
        found = _json(reply)
        if isinstance(found, Mapping) and not found.get("choices") and not found.get("output") and not found.get("data"):
            status = status_within(found)
            if status:
                raise Refused(self._hidden(read_refusal(status, found)), body, reply.headers)
        if found is None:
            raise openai.APIConnectionError(message=f"the reply is not {_NAMES[api]}: {self.settings.hide(reply.text)[:80]!r}", request=reply.request)
        return found, reply.headers

    def read(self, reply: Json, body: JsonObject, request: Request, *, api: str | None = None) -> Answer:
        """
        The answer in a reply; a reply that is none counts as a fault of the connection, which is tried again.

        Raises:
            Refused: the reply says that the endpoint had an error while it wrote the answer.
        """
        api = api or self.settings.call.api
        try:
            answer = _READERS[api](reply, body)
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            shown = self.settings.hide(str(reply) if isinstance(reply, str) else _compact(reply))[:80]
            message = f"the reply is not {_NAMES[api]}: {shown!r}"
            raise openai.APIConnectionError(message=message, request=httpx2.Request("POST", "http://model")) from None
        if answer.finish in ("insufficient_system_resource", "error"):
            choice = reply["choices"][0] if isinstance(reply, Mapping) and reply.get("choices") else {}
            status = status_within(choice) or 503
            fault = read_refusal(status, choice) if choice.get("error") else Refusal(status, answer.finish, message=f"the endpoint stopped: {answer.finish}")
            raise Refused(self._hidden(fault), body, {})
        hidden = {name: self.settings.hide(getattr(answer, name)) for name in ("text", "refusal", "reasoning")}
        hidden["reasoning"] = hidden["reasoning"][:MAX_REASONING]
        if answer.reported:
            return _replaced(answer, **hidden)
        written = (len(answer.text) + len(answer.reasoning)) // 4 + 1
        asked = characters(request) if request.messages else len(_compact(body))
        return _replaced(answer, **hidden, input_tokens=asked // 4 + 1, output_tokens=0 if api == "embeddings" else written)

    async def close(self) -> None:
        """Close the connections, unless other models share them."""
        if not self._is_shared:
            await self._http.aclose()

    async def _once(self, body: JsonObject, estimate: int, request: Request, usage: Usage, api: str) -> tuple[JsonObject, Answer]:
        async with self.permits.hold(estimate) as waited:
            started = time.monotonic()
            spent = Usage(1, 0, 0, 0.0 if self.price else None, 0.0, waited)
            try:
                reply, headers = await self.post(body, request.timeout_s, api=api)
                limits = read_rate_limits(headers)
                if limits:
                    self.permits.observed(limits)
                answer = self.read(reply, body, request, api=api)
            except Refused as error:
                if error.kind in _FOR_EVERY_ROW and not _concerns_row(error, request):
                    # before the permit is given back: the next row's call would be refused too
                    self.permits.refuse(self.failure(error, request))
                raise
            finally:
                spent.seconds = time.monotonic() - started
                usage.add(spent)
        usage.add(self.cost(answer))
        self.permits.answered(estimate, answer.input_tokens + answer.output_tokens)
        await _let_others_ask()
        return reply, answer

    def cost(self, answer: Answer) -> Usage:
        """What an answer cost, its call not counted again."""
        tokens = Tokens(answer.input_tokens, answer.output_tokens, answer.cached_tokens or 0, answer.cache_write_tokens or 0)
        return Usage(
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            usd=self.price.cost(tokens, answer.tier) if self.price else None,
            cached_tokens=answer.cached_tokens,
            reasoning_tokens=answer.reasoning_tokens,
            estimated_calls=0 if answer.reported else 1,
        )

    def failure(self, error: Refused, request: Request) -> BeamRayError:
        """The error of ours that a refusal becomes after the last try."""
        said = _refusal_text(error.refusal)
        where = f"{self.settings.model} at {self.settings.base_url}"
        if error.kind is Kind.ACCESS:
            hint = (
                "\n  the program asked by the Responses API; where the endpoint has none, let it use chat completions" if _by_responses(error, request) else ""
            )
            return WrongSetting(f"{where} cannot be called: {said}{hint}")
        if error.kind is Kind.QUOTA:
            return OutOfQuota(f"{self.settings.model}: {said}; once there is quota again, run the same command again")
        if error.kind is Kind.SETTING and not _concerns_row(error, request):
            return WrongSetting(
                f"{where} refuses {error.parameter!r}: {said}\n{remedy(error.parameter, error.refusal, self.settings, self.name, request.node, node_is_agent=bool(request.tools))}"
            )
        found = error.refusal
        kind, prefix = (ModelRefused, "the endpoint declined: ") if error.kind is Kind.CONTENT else (ModelUnavailable, "")
        prefix = "rate limit: " if error.kind is Kind.RATE_LIMIT else prefix
        return kind(f"{prefix}{said}", status=found.status, code=found.code, param=found.param or error.parameter)

    def _hidden(self, refusal: Refusal) -> Refusal:
        return Refusal(refusal.status, refusal.code, refusal.param, self.settings.hide(refusal.message)[:1_000])

    def _pause(self, error: Exception) -> bool | float:
        """Whether to try again after *error*, and after how many seconds where the endpoint says so."""
        if isinstance(error, Refused):
            if error.kind not in _TRY_AGAIN:
                return False
            seconds = retry_after(error.headers)
            if error.kind is Kind.RATE_LIMIT:
                self.permits.throttled(seconds)
            return seconds or True
        return isinstance(error, (openai.APIConnectionError, TimeoutError))


async def _let_others_ask() -> None:
    """Let the calls that wait for a permit go out before an answer is worked on: many come at once, and the endpoint would be idle meanwhile."""
    for _ in range(2):  # who waited is told in the first turn of the event loop, and asks in the second
        await asyncio.sleep(0)


def _by_responses(error: Refused, request: Request) -> bool:
    """Whether a program's library chose an API that the endpoint may not have."""
    return request.by_program and error.refusal.status in (404, 405) and "input" in error.sent and "messages" not in error.sent


def _concerns_row(error: Refused, request: Request) -> bool:
    """Whether a setting is refused that a program chose, perhaps for this row alone."""
    return error.kind is Kind.SETTING and request.by_program


def hidden_in(value: Json, settings: ModelSettings) -> Json:
    """*value* with secrets hidden in all of its strings."""
    if not settings.hides or settings.hide(text := _compact(value)) == text:
        return value
    if isinstance(value, str):
        return settings.hide(value)
    if isinstance(value, Mapping):
        return {settings.hide(key): hidden_in(inner, settings) for key, inner in value.items()}
    return [hidden_in(inner, settings) for inner in value] if isinstance(value, list) else value


def tokens_of(body: Mapping[str, Json]) -> int:
    """About how many tokens a call with a *body* that a program wrote takes."""
    limit = next((body[name] for name in ("max_completion_tokens", "max_tokens", "max_output_tokens") if isinstance(body.get(name), int)), 1024)
    return len(_compact(body)) // 4 + (limit if "messages" in body or "input" in body else 0)


def characters(request: Request) -> int:
    """Characters of the messages."""
    return sum(len(str(message.get("content", ""))) for message in request.messages)


def _json(response: httpx2.Response) -> Json:
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None


def _compact(value: Json) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (ValueError, RecursionError, TypeError):
        return "…"


def _replaced(answer: Answer, **changes: str | int) -> Answer:
    return dataclasses.replace(answer, **changes)  # type: ignore[arg-type]


def _refusal_text(refusal: Refusal) -> str:
    return f"Error code: {refusal.status} - {refusal.message[:300].strip()}" if refusal.message else f"Error code: {refusal.status}"


@functools.cache
def _certificates() -> ssl.SSLContext:
    """The trusted certificates, read once per process: that takes as long as ten calls."""
    return httpx2.create_ssl_context()


async def _bound(response: httpx2.Response) -> None:
    """Limit how much of the reply is read, whatever length it declares."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx2.DecodingError("the reply is compressed although this was not accepted", request=response.request)
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    most = MAX_EMBEDDINGS if response.request.url.path.endswith(embeddings_api.PATH) else MAX_REPLY
    response.stream = _Bounded(response.stream, most, complains=response.is_error)


class _Bounded(httpx2.AsyncByteStream):
    """A body of which only a limited number of bytes is read."""

    def __init__(self, body: httpx2.AsyncByteStream, most: int, *, complains: bool):
        self._body, self._most, self._complains = body, most, complains

    async def __aiter__(self) -> AsyncIterator[bytes]:
        start, length = b"", 0
        async for piece in self._body:
            length += len(piece)
            if self._complains and length > MAX_COMPLAINT:
                return
            if length > self._most:
                raise BadAnswer(f"the reply has more than {self._most:,} bytes", raw=start.decode("utf-8", "replace"), again=False)
            start = start or piece[:10_000]
            yield piece

    async def aclose(self) -> None:
        await self._body.aclose()


def _said(error: openai.APIError, settings: ModelSettings) -> str:
    # the client reports a lost connection as a timeout; only our own clock decides what a timeout is
    text = "Connection error." if isinstance(error, openai.APITimeoutError) else str(error).strip() or type(error).__name__
    cause = f" ({error.__cause__})" if error.__cause__ and str(error.__cause__) else ""
    # hidden before it is cut, since half a key is a secret too
    return f"{settings.hide(text)[:300]}{settings.hide(cause)[:120]}"
