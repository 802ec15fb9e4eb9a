"""How far a run is, and what it has cost so far."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow.compute as pc

from beam_ray.store.runs import Run


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    rows: int
    """Steps settled, of *of*."""
    of: int
    tasks_done: int
    tasks: int
    calls: int
    tokens: int
    usd: float | None
    seconds: float
    failed: int

    @property
    def left_s(self) -> float | None:
        """Seconds left at the rate so far; None while there is no rate."""
        return (self.of - self.rows) * self.seconds / self.rows if self.rows else None


Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Nobody looks."""


NOTHING = {"rows": 0, "calls": 0, "tokens": 0, "usd": 0.0, "failed": 0}


def spent_before(run: Run) -> dict[str, Any]:
    """What the committed parts of an unfinished run cost: it counts against the budget of whoever goes on."""
    table = run.steps(
        columns=["outcome", "calls", "judge_calls", "input_tokens", "output_tokens", "judge_input_tokens", "judge_output_tokens", "usd", "judge_usd"]
    )

    def total(*columns: str) -> Any:
        return sum(pc.sum(table[column]).as_py() or 0 for column in columns)

    unpriced = table["usd"].null_count or table["judge_usd"].null_count
    return {
        "rows": table.num_rows,
        "calls": total("calls", "judge_calls"),
        "tokens": total("input_tokens", "output_tokens", "judge_input_tokens", "judge_output_tokens"),
        "usd": None if unpriced else total("usd", "judge_usd"),
        "failed": table.filter(pc.equal(table["outcome"], "failed")).num_rows,
    }
