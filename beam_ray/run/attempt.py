"""What one try at a step gave and cost, and its row in the store; ``step`` makes the attempts."""

from dataclasses import dataclass, field
from typing import Any

from beam_ray.errors import BadAnswer, StepFailed
from beam_ray.evaluate.score import Finding, Score
from beam_ray.llm.usage import Usage
from beam_ray.run.step_row import output_value
from beam_ray.store.parquet import to_json
from beam_ray.store.tables import AttemptRow


@dataclass
class Attempt:
    """One try at a step. Attempt 1 is the first."""

    number: int
    output: Any = None
    findings: list[Finding] = field(default_factory=list)
    score: Score | None = None
    error: StepFailed | None = None
    usage: Usage = field(default_factory=Usage)
    temperature: float | None = None
    seed: int | None = None
    reasoning: str = ""
    """What the model wrote while thinking; judged only by criteria that ask for it."""

    def row(self) -> AttemptRow:
        """The attempt as the steps table stores it."""
        return {
            "number": self.number,
            "output": None if self.output is None else to_json(self.output),
            "score": self.score.value if self.score else None,
            "error": str(self.error) if self.error else None,
            "seconds": self.usage.seconds,
            "input_tokens": self.usage.input_tokens,
            "output_tokens": self.usage.output_tokens,
            "usd": self.usage.usd,
            "temperature": self.temperature,
            "seed": self.seed,
            "criteria": [finding.row() for finding in self.findings],
            "cached_tokens": self.usage.cached_tokens,
            "reasoning_tokens": self.usage.reasoning_tokens,
            "estimated": self.usage.estimated_calls > 0,
            "reasoning": self.reasoning or None,
        }

    @classmethod
    def from_row(cls, row: AttemptRow) -> "Attempt":
        """An attempt that was made before, without its score; it costs no call now."""
        return cls(
            row["number"],
            output=output_value(row["output"]),
            findings=[
                Finding(item["id"], item["text"], item["met"], item["reason"], item["judge"], item["weight"], judges=tuple(item["judges"] or ()))
                for item in row["criteria"] or ()
            ],
            error=BadAnswer(row["error"]) if row["error"] else None,
            usage=Usage(
                0,
                row["input_tokens"] or 0,
                row["output_tokens"] or 0,
                row["usd"],
                row["seconds"] or 0.0,
                cached_tokens=row["cached_tokens"],
                reasoning_tokens=row["reasoning_tokens"],
                estimated_calls=int(row["estimated"] or False),
            ),
            temperature=row["temperature"],
            seed=row["seed"],
            reasoning=row["reasoning"] or "",
        )

    @property
    def score_value(self) -> float | None:
        """The score; None when unscored."""
        return self.score.value if self.score else None
