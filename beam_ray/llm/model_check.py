"""
Find out what an endpoint accepts, with a few short requests.

Each question is one small call. What the endpoint refuses is told from its reply; what it ignores is
told from its answers: a schema that does not bind, or a seed that changes nothing.
"""

import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import stamina

from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.errors import BadAnswer
from beam_ray.llm.answer import parse_answer
from beam_ray.llm.client import UNANSWERED, OpenAIModel, Refused
from beam_ray.llm.families import STRUCTURED, Api, Capabilities, Structured
from beam_ray.llm.prices import Tokens, price_of
from beam_ray.llm.refusals import Kind
from beam_ray.llm.reply_headers import read_rate_limits
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.settings import ModelSettings, lines

SHORT = 16
"""Output tokens of a question about which only acceptance matters."""

LONG = 512
"""Output tokens of a question whose answer is read: a reasoning model thinks first."""

INPUT = 150
"""Input tokens of a question, at most."""

TIMEOUT_S = 60.0

Result = Literal["accepted", "refused", "ignored", "works", "unknown"]
"""accepted: the endpoint takes it; works: and it has its effect; ignored: it takes it and nothing changes."""


@dataclass(frozen=True)
class Finding:
    """What the endpoint does with one setting."""

    setting: str
    result: Result
    detail: str = ""


@dataclass(frozen=True)
class ModelCheck:
    """What was found about a model."""

    name: str
    """Its name in the models file."""
    base_url: str
    """As written in the models file."""
    model: str
    error: str
    """Why the model could not be checked; empty where it answered."""
    findings: tuple[Finding, ...]
    found: Capabilities
    """What the settings that are ``auto`` use from now on."""
    lines: tuple[str, ...]
    """Lines for the models file that state what was found; empty where its family is known to be so."""
    latency_s: float | None
    """Median time of a call in seconds."""
    usage_reported: bool | None
    calls: int
    usd: float | None
    """US dollars that the check cost; None where the model has no price."""


def most(settings: ModelSettings) -> tuple[int, float | None]:
    """The most calls that a check makes, and the most that they cost in US dollars (None without a price)."""
    short, long = 4, 3 + len(STRUCTURED) + 1
    price = price_of(settings)
    usd = price.cost(Tokens((short + long) * INPUT, short * SHORT + long * LONG)) if price else None
    return short + long, usd


async def check_model(settings: ModelSettings, name: str) -> ModelCheck:
    """
    Ask the endpoint of *settings* what it accepts; at most ``most(settings)`` calls.

    Raises:
        Unusable: an environment variable that the settings use is not set.
    """
    check = _Check(settings, name)
    try:
        return await check.run()
    finally:
        await check.close()


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}, "count": {"type": "integer"}},
    "required": ["city", "count"],
    "additionalProperties": False,
}


TOOL: JsonObject = {
    "name": "find_order",
    "description": "Find an order.",
    "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}, "required": ["number"], "additionalProperties": False},
}


class _Check:
    def __init__(self, settings: ModelSettings, name: str):
        self.written, self.name = settings, name
        self.price = price_of(settings)
        # nothing is sent that was not asked for: what an earlier check found is asked again
        self.settings = settings.with_found({})
        self.models: list[OpenAIModel] = []
        self.findings: list[Finding] = []
        self.found: Capabilities = {}
        self.seconds: list[float] = []
        self.calls, self.usd = 0, 0.0 if self.price else None
        self.reported: bool | None = None

    async def close(self) -> None:
        for model in self.models:
            await model.close()

    async def run(self) -> ModelCheck:
        try:
            answer = await self._answers()
        except (Refused, *UNANSWERED) as error:
            return self._result(_said(error))
        self.reported = answer.reported
        self._note("usage", "accepted" if answer.reported else "ignored", "reported" if answer.reported else "not reported; tokens and price will be estimates")
        if answer.reasoning_tokens or answer.reasoning:
            shown = "its text is returned" if answer.reasoning else "its text is not returned"
            self._note("reasoning", "works", f"the model thinks before it answers; {shown}")
        try:
            await self._temperature()
            await self._seeds()
            await self._structured()
            await self._tools()
        except (Refused, *UNANSWERED) as error:
            self._note("the check", "unknown", f"stopped early: {_said(error)}")
        return self._result("")

    async def _answers(self) -> Answer:
        """An answer to a plain question: which API, and how the limit is called."""
        plain = {"temperature": "omit", "seeds": False, "structured": "none", "reasoning_effort": "auto"}
        self.settings = self.settings.model_copy(update=plain)
        try:
            answer = await self._ask(_request("Say OK.", SHORT))
        except Refused as error:
            if error.refusal.status in (404, 405) and self.written.api == "auto":
                answer = await self._other_api(error)
            elif error.kind is Kind.SETTING and error.parameter in ("max_tokens", "max_completion_tokens") and self.written.max_tokens_as == "auto":
                refused = self.settings.call.max_tokens_as
                self._set(max_tokens_as="max_completion_tokens" if refused == "max_tokens" else "max_tokens")
                self._note(refused, "refused", error.refusal.message)
                answer = await self._ask(_request("Say OK.", SHORT))
            else:
                raise
        call = self.settings.call
        if call.api == "chat":
            self._note(call.max_tokens_as, "accepted")
            self.found["max_tokens_as"] = call.max_tokens_as
        self.found["api"] = call.api
        self._note("api", "accepted", call.api)
        return answer

    async def _other_api(self, error: Refused) -> Answer:
        other: Api = "responses" if self.settings.call.api == "chat" else "chat"
        refused = self.settings.call.api
        self._set(api=other)
        try:
            answer = await self._ask(_request("Say OK.", SHORT))
        except Refused:
            raise error from None
        self._note(f"api: {refused}", "refused", error.refusal.message)
        return answer

    async def _temperature(self) -> None:
        asked = self.settings.model_copy(update={"temperature": "auto"}).with_found({"temperature": True})
        accepted = await self._accepts("temperature", replace(_request("Say OK.", SHORT), temperature=0.5), asked)
        if accepted is not None:
            self.found["temperature"] = accepted

    async def _seeds(self) -> None:
        if self.settings.call.api == "responses":
            return  # this API has no seed
        update = {"seeds": True, **({"temperature": "auto"} if self.found.get("temperature") else {})}
        asked = self.settings.model_copy(update=update).with_found({"temperature": True})
        answers = []
        for seed in (1, 1, 2):
            request = replace(_request("Write one random number between 1 and 1000000 and nothing else.", LONG), seed=seed, temperature=1.0)
            try:
                answers.append((await self._ask(request, asked)).text.strip())
            except Refused as error:
                if error.kind is not Kind.SETTING:
                    raise
                self.found["seeds"] = False
                self._note("seed", "refused", error.refusal.message)
                return
        self.found["seeds"] = True
        if not all(answers):
            self._note("seed", "accepted", "its effect is unknown: the answers were empty")
        elif answers[0] != answers[1]:
            self._note("seed", "ignored", "the same seed gave two different answers")
        elif answers[0] == answers[2]:
            self._note("seed", "ignored", "another seed gave the same answer")
        else:
            self._note("seed", "works", "equal seeds gave equal answers, another seed another one")

    async def _structured(self) -> None:
        """The first way of asking for JSON that binds, beginning with the one that is expected to."""
        expected = self.written.with_found({}).call.structured
        tried: tuple[Structured, ...] = tuple(dict.fromkeys((expected, *STRUCTURED)))
        best: Structured | None = None
        for way in tried:
            asked = self.settings.model_copy(update={"structured": way})
            try:
                answer = await self._ask(replace(_request("Reply with the word hello.", LONG), schema=SCHEMA, node="answer"), asked)
            except Refused as error:
                if error.kind is not Kind.SETTING:
                    raise
                self._note(f"structured: {way}", "refused", error.refusal.message)
                continue
            try:
                parse_answer(answer.text, SCHEMA)
            except BadAnswer as error:
                if answer.finish == "length":
                    self._note(f"structured: {way}", "unknown", f"the answer was cut off at {LONG} tokens")
                else:
                    self._note(f"structured: {way}", "ignored", f"the answer does not follow the schema: {error}")
                continue
            best = way
            self._note(f"structured: {way}", "works", "the answer followed a schema that the question contradicts")
            break
        if best:
            self.found["structured"] = best

    async def _tools(self) -> None:
        """Whether the model calls a tool that it is offered, which agents need."""
        request = replace(_request("Look up order 7 with the tool find_order.", LONG), tools=(TOOL,), node="answer")
        try:
            answer = await self._ask(request)
        except Refused as error:
            if error.kind is not Kind.SETTING:
                raise
            self._note("tools", "refused", error.refusal.message)
            return
        if answer.tool_calls:
            self._note("tools", "works", f"the model called {answer.tool_calls[0].name!r}")
        else:
            self._note("tools", "ignored", "the model answered without a call; agents need a model that calls tools")

    async def _accepts(self, setting: str, request: Request, asked: ModelSettings) -> bool | None:
        try:
            await self._ask(request, asked)
        except Refused as error:
            if error.kind is not Kind.SETTING:
                raise
            self._note(setting, "refused", error.refusal.message)
            return False
        self._note(setting, "accepted")
        return True

    async def _ask(self, request: Request, settings: ModelSettings | None = None) -> Answer:
        """One answer; a rate limit or a fault is tried again."""
        model = OpenAIModel(settings or self.settings, name=self.name)
        self.models.append(model)
        body: JsonObject = model.body_of(request)
        async for attempt in stamina.retry_context(on=_passing, attempts=3, timeout=TIMEOUT_S, wait_initial=1.0):
            with attempt:
                self.calls += 1
                started = time.monotonic()
                reply, headers = await model.post(body, TIMEOUT_S)
                self.seconds.append(time.monotonic() - started)
                answer = model.read(reply, body, request)
                self._limits(headers)
        if self.price and self.usd is not None:
            usd = self.price.cost(Tokens(answer.input_tokens, answer.output_tokens, answer.cached_tokens or 0), answer.tier)
            self.usd = None if usd is None else self.usd + usd
        return answer

    def _limits(self, headers: Mapping[str, str]) -> None:
        limits = read_rate_limits(headers)
        if limits and not any(finding.setting == "rate limit headers" for finding in self.findings):
            parts = [f"{limits.requests.remaining:,} requests" if limits.requests else "", f"{limits.tokens.remaining:,} tokens" if limits.tokens else ""]
            self._note("rate limit headers", "works", f"{' and '.join(filter(None, parts))} left in this period")

    def _set(self, **values: Json) -> None:
        self.settings = self.settings.model_copy(update=values)

    def _note(self, setting: str, result: Result, detail: str = "") -> None:
        self.findings.append(Finding(setting, result, " ".join(detail.split())[:300]))

    def _result(self, error: str) -> ModelCheck:
        unknown = self.written.with_found({}).call
        usual: dict[str, Json] = {
            "api": unknown.api,
            "max_tokens_as": unknown.max_tokens_as,
            "temperature": unknown.send_temperature,
            "seeds": unknown.seeds,
            "structured": unknown.structured,
        }
        changed: dict[str, Json] = {name: value for name, value in self.found.items() if value != usual[name]}
        if "temperature" in changed:
            changed["temperature"] = "auto" if changed["temperature"] else "omit"
        return ModelCheck(
            name=self.name,
            base_url=self.written.base_url,
            model=self.written.model,
            error=error,
            findings=tuple(self.findings),
            found=self.found,
            lines=tuple(lines(self.name, changed)) if changed else (),
            latency_s=statistics.median(self.seconds) if self.seconds else None,
            usage_reported=self.reported,
            calls=self.calls,
            usd=self.usd,
        )


def _request(text: str, max_tokens: int) -> Request:
    return Request(({"role": "user", "content": text},), max_tokens=max_tokens, timeout_s=TIMEOUT_S)


def _passing(error: Exception) -> bool:
    if isinstance(error, Refused):
        return error.kind in (Kind.RATE_LIMIT, Kind.BUSY)
    return isinstance(error, UNANSWERED)


def _said(error: Exception) -> str:
    if isinstance(error, Refused):
        return f"Error code: {error.refusal.status} - {error.refusal.message}".removesuffix(" - ")
    return f"no answer within {TIMEOUT_S:g} s" if isinstance(error, TimeoutError) else str(error)
