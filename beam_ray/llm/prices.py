"""Prices of models."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens."""

    input: float = 0.0
    output: float = 0.0

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """The price of one call in US dollars."""
        return (input_tokens * self.input + output_tokens * self.output) / 1_000_000
