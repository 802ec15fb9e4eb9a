"""What calls to models cost: calls, tokens, US dollars and seconds."""

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """The sum of what calls cost."""

    calls: int = 0
    input_tokens: int = 0
    """All input tokens, cached ones included; estimated where the endpoint reports no usage."""
    output_tokens: int = 0
    """All output tokens, reasoning included; estimated where the endpoint reports no usage."""
    usd: float | None = 0.0
    """US dollars; None once a model without a price was called."""
    seconds: float = 0.0
    """From request to answer, without the time spent waiting for permits."""
    waited: float = 0.0
    """Seconds spent waiting for permits."""
    cached_tokens: int | None = None
    """Input tokens that were read from the provider's cache; None where no call reported them."""
    reasoning_tokens: int | None = None
    """Output tokens that were reasoning; None where no call reported them."""
    estimated_calls: int = 0
    """Answered calls whose endpoint reported no usage, so that their tokens and price are estimates."""

    def add(self, other: "Usage") -> None:
        """Add the usage of *other*."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        self.seconds += other.seconds
        self.waited += other.waited
        self.cached_tokens = plus(self.cached_tokens, other.cached_tokens)
        self.reasoning_tokens = plus(self.reasoning_tokens, other.reasoning_tokens)
        self.estimated_calls += other.estimated_calls

    def negative(self) -> "Usage":
        """What takes the calls, tokens and US dollars of this usage away again where it is added."""
        return Usage(-self.calls, -self.input_tokens, -self.output_tokens, None if self.usd is None else -self.usd)


def plus(one: int | None, other: int | None) -> int | None:
    """The sum of two counts, of which an unknown one counts as nothing; None where both are unknown."""
    return one if other is None else other if one is None else one + other
