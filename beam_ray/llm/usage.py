"""What is asked of a model, what comes back, and what it cost."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Request:
    """One question to a model."""

    messages: tuple[Mapping[str, Any], ...]
    """Chat turns as ``{"role": …, "content": …}``."""
    schema: Mapping[str, Any] | None = None
    """The JSON schema that the answer must follow; none for free text."""
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int = 1024
    seed: int = 0
    timeout_s: float = 120
    node: str = ""
    task_id: str = ""
    trial: int = 1
    attempt: int = 1
    """1 is the first."""
    judges: bool = False
    """Whether the question is a judge's."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said."""

    text: str
    input_tokens: int = 0
    output_tokens: int = 0
    finish: str = "stop"
    """The endpoint's own word for why it ended: stop, length, content_filter."""
    refusal: str = ""


@dataclass(slots=True)
class Usage:
    """What calls cost so far. *usd* is None from the first call of a model without a price."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    seconds: float = 0.0
    """From request to answer, waiting for permits left out."""
    waited: float = 0.0
    """Seconds spent waiting for permits."""

    def add(self, other: "Usage") -> None:
        """Count *other* in."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        self.seconds += other.seconds
        self.waited += other.waited


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float = 0.0
    output: float = 0.0

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """The price of one call in US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000


class Permits(Protocol):
    """The right to have calls in flight at one endpoint."""

    def hold(self, tokens: int) -> AbstractAsyncContextManager[float]:
        """Wait for a permit for a call of about *tokens*, and keep it; gives the seconds waited."""

    def throttled(self, seconds: float) -> None:
        """The endpoint said that calls come too fast and that *seconds* may help."""

    def answered(self, estimated: int, actual: int) -> None:
        """A call for which *estimated* tokens were asked used *actual*."""


@dataclass
class Free:
    """Permits without a limit."""

    def hold(self, tokens: int) -> AbstractAsyncContextManager[float]:
        """At once."""
        return _AtOnce()

    def throttled(self, seconds: float) -> None:
        """Nothing to slow down."""

    def answered(self, estimated: int, actual: int) -> None:
        """Nothing to count."""


class _AtOnce(AbstractAsyncContextManager[float]):
    async def __aenter__(self) -> float:
        return 0.0

    async def __aexit__(self, *error: object) -> None:
        return None


class Model(Protocol):
    """Whatever answers requests."""

    async def ask(self, request: Request, usage: Usage) -> Answer:
        """
        The answer to *request*; every call made is counted in *usage*, failed ones too.

        Raises:
            ModelUnavailable: no answer within the deadline.
            ModelRefused: the model declined.
            Stopped: no row could be answered: the key is wrong, or the money is spent.
        """
