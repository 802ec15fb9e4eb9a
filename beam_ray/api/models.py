"""Models: what the models file has, what they cost, and what their endpoints accept."""

import asyncio
import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.llm.families import Capabilities, EndpointFindings, FindingDocument
from beam_ray.llm.model_check import Finding, ModelCheck, check_model, most
from beam_ray.llm.prices import Pricing, Tokens, price_of
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.settings import ModelSettings
from beam_ray.store.model_findings import read_findings, write_findings

MILLION = 1_000_000


class ModelDocument(TypedDict):
    """One model as ``beam-ray models --json`` prints it."""

    name: str
    model: str
    base_url: str
    usd_per_million_input: float | None
    usd_per_million_output: float | None
    price_source: str
    concurrency: int
    requests_per_minute: float | None
    tokens_per_minute: float | None
    settings: dict[str, str | bool | float | None]
    sources: dict[str, str]
    checked_at: str | None


@dataclass(frozen=True, repr=False)
class ModelInfo(Displayed):
    """A model of the models file, with what is known about it."""

    name: str
    """Its name in the models file."""
    model: str
    """The endpoint's name for it; ``scripted`` for a model object."""
    base_url: str
    """The address as written; empty for a model object."""
    usd_per_million_input: float | None
    """US dollars per million input tokens; None where unknown."""
    usd_per_million_output: float | None
    """US dollars per million output tokens; None where unknown."""
    price_source: str
    """Where the price comes from: the models file, genai-prices or the model object; empty where unknown."""
    concurrency: int
    """Calls in flight at most, over the whole cluster."""
    requests_per_minute: float | None
    tokens_per_minute: float | None
    settings: Mapping[str, str | bool | float | None]
    """How it is called, every ``auto`` replaced by a value."""
    sources: Mapping[str, str]
    """Setting to where its value comes from: models file, models check, a family, or default."""
    checked_at: str | None
    """Time of the last ``check_model``, UTC; None if it was never checked."""
    key_variables: tuple[str, ...]
    """Names of the environment variables that its settings take secrets from."""
    check_calls: int
    """The most calls that ``check_model`` makes."""
    check_usd: float | None
    """The most that these calls cost in US dollars; None where the price is unknown."""

    def display(self) -> Display:
        facts = (
            ("model", self.model),
            ("address", self.base_url),
            ("$/M input", self.usd_per_million_input),
            ("$/M output", self.usd_per_million_output),
            ("price from", self.price_source),
            ("checked", self.checked_at),
        )
        return Display(self.name, facts, ("setting", "value", "from"), [(name, value, self.sources.get(name, "")) for name, value in self.settings.items()])

    def document(self) -> ModelDocument:
        """The model as a JSON document."""
        return {
            "name": self.name,
            "model": self.model,
            "base_url": self.base_url,
            "usd_per_million_input": self.usd_per_million_input,
            "usd_per_million_output": self.usd_per_million_output,
            "price_source": self.price_source,
            "concurrency": self.concurrency,
            "requests_per_minute": self.requests_per_minute,
            "tokens_per_minute": self.tokens_per_minute,
            "settings": dict(self.settings),
            "sources": dict(self.sources),
            "checked_at": self.checked_at,
        }


class ModelCheckDocument(TypedDict):
    """A check as ``beam-ray models check --json`` prints it."""

    name: str
    base_url: str
    model: str
    error: str
    findings: list[FindingDocument]
    found: Capabilities
    lines: list[str]
    latency_s: float | None
    usage_reported: bool | None
    calls: int
    usd: float | None


@dataclass(frozen=True, repr=False)
class ModelCheckResult(Displayed):
    """What an endpoint takes, refuses and ignores."""

    check: ModelCheck

    @property
    def name(self) -> str:
        """The model's name in the models file."""
        return self.check.name

    @property
    def error(self) -> str:
        """Why the model could not be checked; empty where it answered."""
        return self.check.error

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Setting, result (accepted, refused, ignored, works or unknown) and detail."""
        return self.check.findings

    @property
    def lines(self) -> tuple[str, ...]:
        """Lines for the models file that state what was found; empty where nothing differs from what is known of the family."""
        return self.check.lines

    @property
    def latency_s(self) -> float | None:
        """Median time of a call in seconds."""
        return self.check.latency_s

    @property
    def usage_reported(self) -> bool | None:
        """Whether the endpoint reports tokens."""
        return self.check.usage_reported

    @property
    def calls(self) -> int:
        """Calls that were made."""
        return self.check.calls

    @property
    def usd(self) -> float | None:
        """What they cost in US dollars; None where the price is unknown."""
        return self.check.usd

    def display(self) -> Display:
        facts = (("error", self.error), ("latency", f"{self.latency_s:.2f} s" if self.latency_s is not None else ""), ("calls", self.calls), ("usd", self.usd))
        return Display(self.name, facts, ("setting", "result", "detail"), [(each.setting, each.result, each.detail) for each in self.findings])

    def document(self) -> ModelCheckDocument:
        """The check as a JSON document."""
        found = dataclasses.asdict(self.check)
        return {**found, "findings": list(found["findings"]), "lines": list(found["lines"])}  # type: ignore[typeddict-item]


def list_models(store: Location) -> list[ModelInfo]:
    """See ``Store.list_models``."""
    return [_info(store, name, written) for name, written in store.known_models.items()]


def check_models(store: Location, name: str) -> ModelCheckResult:
    """See ``Store.check_model``."""
    known = store.known_models
    if name not in known:
        raise Unusable("\n  ".join([f"the models file has no model {name!r}", f"it has: {', '.join(known)}", *did_you_mean(name, known)]))
    written = known[name]
    if not isinstance(written, ModelSettings):
        raise Unusable(f"the model {name!r} is a model object and has no endpoint to check")
    found = asyncio.run(check_model(written, name))
    if not found.error:
        document: EndpointFindings = {
            "base_url": found.base_url,
            "model": found.model,
            "found": found.found,
            "findings": [{"setting": each.setting, "result": each.result, "detail": each.detail} for each in found.findings],
            "latency_s": found.latency_s,
            "usage_reported": found.usage_reported,
            "checked_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        }
        write_findings(store.objects, written.endpoint, document)
        store.__dict__.pop("known_models", None)  # read again with what was found
    return ModelCheckResult(found)


def _info(store: Location, name: str, written: ModelSettings | ScriptedModel) -> ModelInfo:
    if not isinstance(written, ModelSettings):
        price: Pricing | None = written.price
        settings: dict[str, str | bool | float | None] = {}
        sources: Mapping[str, str] = {}
        checked, calls, usd = None, 0, 0.0
    else:
        price, call = price_of(written), written.call
        settings = dict(_settings(written))
        sources = call.sources
        document = read_findings(store.objects, written.endpoint, EndpointFindings) if store.exists else None
        checked = document["checked_at"] if document else None
        calls, usd = most(written)  # type: ignore[assignment]
    return ModelInfo(
        name=name,
        model=written.model if isinstance(written, ModelSettings) else written.identity,
        base_url=written.base_url if isinstance(written, ModelSettings) else "",
        usd_per_million_input=price.cost(Tokens(MILLION, 0)) if price else None,
        usd_per_million_output=price.cost(Tokens(0, MILLION)) if price else None,
        price_source=price.source if price else "",
        concurrency=written.concurrency,
        requests_per_minute=written.requests_per_minute,
        tokens_per_minute=written.tokens_per_minute,
        settings=settings,
        sources=sources,
        checked_at=checked,
        key_variables=written.variables if isinstance(written, ModelSettings) else (),
        check_calls=calls,
        check_usd=usd,
    )


def _settings(written: ModelSettings) -> Iterator[tuple[str, str | bool | float | None]]:
    call = written.call
    yield "api", call.api
    if call.api == "chat":
        yield "max_tokens_as", call.max_tokens_as
    yield "temperature", (call.temperature if call.temperature is not None else "as nodes say") if call.send_temperature else "omit"
    if call.api == "chat":
        yield "seeds", call.seeds
    yield "structured", call.structured
    if call.reasoning_effort:
        yield "reasoning_effort", call.reasoning_effort
