"""What calls to models cost: calls, tokens, US dollars and seconds."""

from dataclasses import dataclass


@dataclass(slots=True)
class Usage:
    """The sum of what calls cost."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    """US dollars; None once a model without a price was called."""
    seconds: float = 0.0
    """From request to answer, without the time spent waiting for permits."""
    waited: float = 0.0
    """Seconds spent waiting for permits."""

    def add(self, other: "Usage") -> None:
        """Add the usage of *other*."""
        self.calls += other.calls
        self.input_tokens += other.input_tokens
        self.output_tokens += other.output_tokens
        self.usd = None if self.usd is None or other.usd is None else self.usd + other.usd
        self.seconds += other.seconds
        self.waited += other.waited
