"""
The settings of one model in the models file: where it answers, what it costs and what it accepts.

    hosted/large:
      base_url: https://api.openai.com/v1
      model: gpt-5-mini
      api_key: ${env:OPENAI_API_KEY}
      concurrency: 32
      requests_per_minute: 500

A key stands in the file only as ``${env:NAME}`` and is read by the process that needs it. What the
endpoint accepts is ``auto`` unless the file says otherwise: see ``families``.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from pydantic import Field, PrivateAttr, StrictBool, StrictFloat, StrictInt, field_validator

from beam_ray.define.fingerprint import Json, digest
from beam_ray.define.frozen import Frozen
from beam_ray.errors import Unusable
from beam_ray.llm.families import Api, Capabilities, MaxTokensAs, Structured, StructuredWithTools, known_of

_SECRET = re.compile(r"\$\{env:([A-Za-z_][A-Za-z0-9_]*)\}")
_SECRET_HEADERS = ("authorization", "api-key", "x-api-key", "proxy-authorization", "cookie")


class TierPrice(Frozen):
    """US dollars per million tokens in one service tier."""

    input: StrictFloat = Field(ge=0, le=1e6)
    output: StrictFloat = Field(ge=0, le=1e6)
    cached_input: StrictFloat | None = Field(default=None, ge=0, le=1e6)
    """Input tokens read from the provider's cache. Default: the price of input."""
    cache_write: StrictFloat | None = Field(default=None, ge=0, le=1e6)
    """Input tokens written to the provider's cache. Default: the price of input."""


class UsdPerMillion(TierPrice):
    """US dollars per million tokens, with the tiers that have a price of their own."""

    flex: TierPrice | None = None
    """Default: half the standard price."""
    priority: TierPrice | None = None
    """Default: unknown."""
    batch: TierPrice | None = None
    """Default: half the standard price."""


@dataclass(frozen=True)
class CallSettings:
    """How a model is called: every ``auto`` replaced by a value."""

    api: Api
    """chat: ``/chat/completions``; responses: ``/responses``."""
    max_tokens_as: MaxTokensAs
    """The name of the output limit in chat completions."""
    send_temperature: bool
    """Whether ``temperature`` and ``top_p`` are sent."""
    temperature: float | None
    """Sent where a node has none; None leaves it to the endpoint."""
    seeds: bool
    """Whether ``seed`` is sent."""
    structured: Structured
    """How JSON is asked for."""
    reasoning_effort: str | None
    """Sent where it is not None."""
    structured_with_tools: StructuredWithTools
    """How an agent's answer is asked for as JSON, while tools are offered."""
    reasoning_back: bool
    """Whether what the model thought is passed back with the results of its tool calls."""
    parallel_tool_calls: bool | None
    """Sent where it is not None."""
    sources: Mapping[str, str]
    """Setting to where its value comes from: the models file, ``models check``, a family or the default."""


Lane = Literal["interactive", "batch"]
"""How a model is asked: call by call, or through its batch endpoint."""

LANES: tuple[Lane, ...] = ("interactive", "batch")


class BatchSettings(Frozen):
    """How a model's batch endpoint is used."""

    rows: StrictInt = Field(default=50_000, ge=1, le=50_000)
    """Requests per batch at most."""
    megabytes: StrictFloat = Field(default=200, gt=0, le=200)
    """Size of a batch's input file at most."""
    window: str = "24h"
    """How long the endpoint may take for a batch."""
    fallback: Literal["fail", "interactive"] = "fail"
    """What becomes of a request that three batches did not answer: fail, or ask interactively."""

    @field_validator("window")
    @classmethod
    def _hours(cls, value: str) -> str:
        if not re.fullmatch(r"[1-9][0-9]{0,3}[hd]", value):
            raise ValueError(f"'window' must be hours or days, such as 24h, not {value!r}")
        return value


class ModelSettings(Frozen):
    """One model at one OpenAI-compatible endpoint."""

    base_url: str = Field(pattern=r"^(https?://|\$\{env:)")
    model: str
    """The name by which the endpoint knows it."""
    api_key: str = "none"
    """``${env:NAME}``, or none."""
    usd_per_million: UsdPerMillion | None = None
    """Default: the price in the genai-prices package, if it lists the model at this address."""
    concurrency: StrictInt = Field(default=16, ge=1, le=10_000)
    """Calls in flight over the whole cluster."""
    requests_per_minute: StrictFloat | None = Field(default=None, gt=0, le=1e9)
    tokens_per_minute: StrictFloat | None = Field(default=None, gt=0, le=1e12)
    tries: StrictInt = Field(default=6, ge=1, le=20)
    """Calls for one answer before the row fails."""
    deadline_s: StrictFloat = Field(default=300, gt=0, le=86_400)
    """Seconds for one answer, all its tries included."""
    lane: Literal["auto", "interactive", "batch"] = "auto"
    """batch asks through the batch endpoint at half the price; interactive never does; auto leaves it to --lane, the spec or the Python call."""
    batch: BatchSettings = BatchSettings()
    """Limits of the batch endpoint, and what becomes of requests that it does not answer."""
    api: Literal["auto", "chat", "responses"] = "auto"
    """Which API is called: ``/chat/completions`` or ``/responses``."""
    max_tokens_as: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """The endpoint's name for the limit on output tokens."""
    temperature: StrictFloat | Literal["auto", "omit"] | None = Field(default="auto")
    """a number from 0 to 2, auto or omit.
    Sent where a node sets none; omit never sends one."""
    seeds: StrictBool | Literal["auto"] = "auto"
    """true, false or auto.
    Whether a seed is sent with each request."""
    structured: Literal["auto", "strict", "full", "object", "tool", "none"] = "auto"
    """How JSON is asked for: strict and full send the JSON schema, object asks for any JSON object, tool for a function call, none in words only."""
    reasoning_effort: Literal["auto", "none", "minimal", "low", "medium", "high", "xhigh"] = "auto"
    """Sent unless auto, which leaves it to the endpoint."""
    structured_with_tools: Literal["auto", "same", "function", "words"] = "auto"
    """How an agent is asked for JSON while tools are offered: same as without tools, as a function to call, or in words only."""
    reasoning_back: StrictBool | Literal["auto"] = "auto"
    """true, false or auto.
    Whether what the model thought is passed back to it with the results of tool calls."""
    parallel_tool_calls: StrictBool | Literal["auto"] = "auto"
    """true, false or auto.
    Sent to agents' models unless auto, which leaves it to the endpoint."""
    headers: dict[str, str] = {}
    """Sent with every request; a secret stands as ${env:NAME}."""
    query: dict[str, str] = {}
    """Parameters of the address, such as {api-version: 2026-01-01}."""
    extra: dict[str, Json] = {}
    """Sent in the body of every request as it stands, such as {service_tier: flex}."""

    _found: Capabilities = PrivateAttr(default_factory=Capabilities)

    @field_validator("api_key")
    @classmethod
    def _no_secret(cls, value: str) -> str:
        if value != "none" and not _SECRET.fullmatch(value):
            raise ValueError("a key must not be written in the file; write ${env:NAME} and set NAME in the environment")
        return value

    @field_validator("temperature")
    @classmethod
    def _sampling(cls, value: float | str | None) -> float | str | None:
        if isinstance(value, float | int) and not 0 <= value <= 2:
            raise ValueError(f"'temperature' must be from 0 to 2, not {value:g}")
        return value

    @field_validator("headers")
    @classmethod
    def _no_secret_header(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            if name.lower() in _SECRET_HEADERS and not _SECRET.search(text):
                raise ValueError(f"the header {name!r} must not be written in the file; write ${{env:NAME}} and set NAME in the environment")
        return value

    @property
    def secret(self) -> str:
        """
        The key itself.

        Raises:
            Unusable: the environment variable is not set.
        """
        return resolve(self.api_key)

    @property
    def url(self) -> str:
        """The address with environment variables filled in."""
        return resolve(self.base_url)

    @cached_property
    def call(self) -> CallSettings:
        """How the model is called: what the file says, else what ``models check`` found, else what its family is known to accept."""
        sources: dict[str, str] = {}

        def choose(name: str, written: object) -> Json:
            if written not in ("auto", None):
                sources[name] = "models file"
                return written
            if name in self._found:
                sources[name] = "models check"
                return self._found[name]  # type: ignore[literal-required]
            sources[name] = known[name].family or "default"
            return known[name].value

        known = known_of(self.url_or_written, self.model)
        wanted = self.temperature
        accepted = choose("temperature", wanted if wanted != "omit" else False)
        structured, with_tools = choose("structured", self.structured), choose("structured_with_tools", self.structured_with_tools)
        return CallSettings(
            api=choose("api", self.api),
            max_tokens_as=choose("max_tokens_as", self.max_tokens_as),
            send_temperature=accepted is not False,
            temperature=float(wanted) if isinstance(wanted, float | int) else None,
            seeds=bool(choose("seeds", self.seeds)),
            structured=structured,
            reasoning_effort=None if self.reasoning_effort == "auto" else self.reasoning_effort,
            structured_with_tools="function" if (structured, with_tools) == ("tool", "same") else with_tools,
            reasoning_back=bool(choose("reasoning_back", self.reasoning_back)),
            parallel_tool_calls=None if self.parallel_tool_calls == "auto" else self.parallel_tool_calls,
            sources=sources,
        )

    @property
    def url_or_written(self) -> str:
        """The address, with variables that are not set left as written."""
        try:
            return self.url
        except Unusable:
            return self.base_url

    @property
    def key_elsewhere(self) -> bool:
        """Whether the key is in another header than ``Authorization``, which is then not sent."""
        return self.api_key == "none" and bool(self.headers) and "authorization" not in map(str.lower, self.headers)

    @property
    def own_headers(self) -> dict[str, str]:
        """The headers of the settings, with environment variables filled in."""
        return {name: resolve(value) for name, value in self.headers.items()}

    @property
    def own_query(self) -> dict[str, str]:
        """The query of every address, with environment variables filled in."""
        return {name: resolve(value) for name, value in self.query.items()}

    def lane_in(self, chosen: str) -> Lane:
        """The lane of the model in a run for which the lane *chosen* was asked; an empty string chooses none."""
        if self.lane == "interactive" or chosen == "interactive":
            return "interactive"
        return "batch" if "batch" in (self.lane, chosen) else "interactive"

    @property
    def identity(self) -> str:
        """Identifies what can change the answers: the model and how it is asked, not where it answers or what it costs."""
        call = self.call
        legacy = call.api == "chat" and call.send_temperature and call.structured in ("full", "strict") and call.reasoning_effort is None
        if legacy:  # as version 0.1 wrote it, so that its steps can still be borrowed
            found = digest("model/1", self.model, call.temperature, call.structured, self.extra)
        else:
            found = digest("model/2", self.model, call.api, call.send_temperature, call.temperature, call.structured, call.reasoning_effort, self.extra)
        with_tools = (self.structured_with_tools, self.reasoning_back, self.parallel_tool_calls)
        return found if with_tools == ("auto", "auto", "auto") else digest("model/3", found, *with_tools)

    @property
    def endpoint(self) -> str:
        """Identifies model and address as written; what ``models check`` finds is kept under it."""
        return digest("endpoint/2", self.base_url, self.model, self.query)

    @property
    def found(self) -> Capabilities:
        """What ``beam-ray models check`` found."""
        return self._found

    def with_found(self, found: Capabilities) -> "ModelSettings":
        """The same settings, with *found* used where the file says ``auto``."""
        copy = self.model_copy()
        copy._found = found
        return copy

    def model_copy(self, *, update: Mapping[str, Json] | None = None, deep: bool = False) -> "ModelSettings":
        """A copy with some settings changed, not validated."""
        copy = super().model_copy(update=update, deep=deep)
        for computed in ("call", "_variables"):  # from the settings before the change
            copy.__dict__.pop(computed, None)
        return copy

    @cached_property
    def variables(self) -> tuple[str, ...]:
        """Names of the environment variables whose values are sent."""
        return tuple(dict.fromkeys(_SECRET.findall(" ".join([self.api_key, self.base_url, *self.headers.values(), *self.query.values()]))))

    @property
    def hides(self) -> bool:
        """Whether there is anything that ``hide`` may hide."""
        return bool(self.variables)

    def hide(self, text: str) -> str:
        """*text* without the values of environment variables that were sent: an endpoint may repeat what it received."""
        for name in self.variables:
            value = os.environ.get(name)
            if value:
                text = text.replace(value, f"${{env:{name}}}")
        return text


def resolve(text: str, user: str = "the models file") -> str:
    """
    *text* with ``${env:NAME}`` replaced by the environment variable; *user* is what errors say uses it.

    Raises:
        Unusable: the environment variable is not set.
    """

    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found:
            raise Unusable(f"the environment variable {match[1]} is not set; {user} uses it")
        return found

    return _SECRET.sub(value, text)


def lines(name: str, values: Mapping[str, Json]) -> Iterator[str]:
    """The lines of a models file that set *values* of the model *name*."""
    yield f"{name}:"
    for key, value in values.items():
        yield f"  {key}: {str(value).lower() if isinstance(value, bool) else value}"
