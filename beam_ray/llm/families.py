"""
What endpoints and model families are known to accept: the values behind ``auto``.

``FAMILIES`` is a table. A row applies to a model when its address and its name match; rows further
down overrule rows further up. What ``beam-ray models check`` found overrules the table, and the
models file overrules both.
"""

import re
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypedDict
from urllib.parse import urlsplit

Api = Literal["chat", "responses"]
MaxTokensAs = Literal["max_tokens", "max_completion_tokens"]
Structured = Literal["strict", "full", "object", "tool", "none"]
StructuredWithTools = Literal["same", "function", "words"]
STRUCTURED: tuple[Structured, ...] = ("strict", "full", "object", "tool", "none")
"""Ways to ask for JSON, from the most to the least binding."""


class Capabilities(TypedDict, total=False):
    """What an endpoint takes; a key that is absent is unknown."""

    api: Api
    max_tokens_as: MaxTokensAs
    temperature: bool
    """Whether ``temperature`` and ``top_p`` may be sent."""
    seeds: bool
    """Whether ``seed`` may be sent."""
    structured: Structured
    structured_with_tools: StructuredWithTools
    reasoning_back: bool
    """Whether what a model thought may be passed back with the results of tool calls."""


class FindingDocument(TypedDict):
    """What an endpoint does with one setting."""

    setting: str
    result: str
    detail: str


class EndpointFindings(TypedDict):
    """What the store keeps of a check, for every model at the endpoint."""

    base_url: str
    model: str
    found: Capabilities
    findings: list[FindingDocument]
    latency_s: float | None
    usage_reported: bool | None
    checked_at: str


DEFAULTS: Capabilities = {
    "api": "chat",
    "max_tokens_as": "max_tokens",
    "temperature": True,
    "seeds": True,
    "structured": "full",
    "structured_with_tools": "function",
    "reasoning_back": True,
}
"""For endpoints that no row of the table matches, such as vLLM, SGLang, Ollama and llama.cpp."""


@dataclass(frozen=True)
class Family:
    """A row of the table."""

    name: str
    host: str
    """Regular expression that the host of ``base_url`` must match whole; ``.*`` for any host."""
    settings: Capabilities
    model: str = ".*"
    """Regular expression that the endpoint's name of the model must match whole, in lower case."""
    why: str = field(default="", compare=False)
    """What the provider's documentation or its users report."""


_OPENAI = r"api\.openai\.com|.*\.openai\.azure\.com|.*\.services\.ai\.azure\.com|.*\.cognitiveservices\.azure\.com"
_REASONING = r"(.*/)?(o\d.*|gpt-5(?!.*-chat).*)"

FAMILIES = (
    Family(
        "OpenAI",
        _OPENAI,
        {"max_tokens_as": "max_completion_tokens", "structured": "strict", "structured_with_tools": "same", "reasoning_back": False},
        why="max_tokens is deprecated; other models than those below refuse to return encrypted reasoning",
    ),
    Family(
        "OpenAI reasoning models",
        _OPENAI,
        {"temperature": False, "reasoning_back": True},
        _REASONING,
        "they refuse temperature and top_p other than 1; without its reasoning a model thinks anew after every tool call",
    ),
    Family("Anthropic", r"api\.anthropic\.com", {"seeds": False, "structured": "tool"}, why="response_format and seed are ignored"),
    Family("Gemini", r"generativelanguage\.googleapis\.com", {"seeds": False}, why="an unknown field such as seed is refused"),
    Family("xAI", r"api\.x\.ai", {"max_tokens_as": "max_completion_tokens", "structured_with_tools": "same"}, why="max_tokens is deprecated"),
    Family(
        "DeepSeek",
        r"api\.deepseek\.com",
        {"structured": "object", "seeds": False},
        why="json_schema is refused; seed is not documented; a turn with tool calls is refused without its reasoning_content",
    ),
    Family("DeepSeek reasoner", r"api\.deepseek\.com", {"temperature": False}, r".*reasoner.*", "temperature is ignored while it thinks"),
    Family(
        "Groq",
        r"api\.groq\.com",
        {"max_tokens_as": "max_completion_tokens", "structured": "object", "reasoning_back": False},
        why="only some models take json_schema, and none together with tools; reasoning_content in a turn is refused",
    ),
    Family("Groq, gpt-oss", r"api\.groq\.com", {"structured": "strict"}, r"openai/gpt-oss-.*", "they take json_schema in strict mode"),
    Family("Mistral", r"api\.mistral\.ai", {"seeds": False, "structured": "strict"}, why="the seed is called random_seed; other fields are refused"),
    Family("OpenRouter, OpenAI reasoning models", r"openrouter\.ai", {"temperature": False}, r"openai/(o\d.*|gpt-5(?!.*-chat).*)", "as at OpenAI"),
    Family("Amazon Bedrock", r"bedrock-runtime\..*\.amazonaws\.com", {"max_tokens_as": "max_completion_tokens"}, why="its OpenAI models use the new name"),
)


class Known(NamedTuple):
    """A capability, and the family that it is known from."""

    value: Api | MaxTokensAs | Structured | StructuredWithTools | bool
    family: str
    """Empty for the default."""


def known_of(base_url: str, model: str) -> dict[str, Known]:
    """The capability of every setting, by the families that the address and the model's name match."""
    host = urlsplit(base_url).hostname or ""
    known = {name: Known(value, "") for name, value in _entries(DEFAULTS)}
    for family in FAMILIES:
        if re.fullmatch(family.host, host) and re.fullmatch(family.model, model.lower()):
            known |= {name: Known(value, family.name) for name, value in _entries(family.settings)}
    return known


def _entries(settings: Capabilities) -> list[tuple[str, Api | MaxTokensAs | Structured | StructuredWithTools | bool]]:
    return [(name, settings[name]) for name in Capabilities.__annotations__ if name in settings]  # type: ignore[literal-required]
