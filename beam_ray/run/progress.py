"""Progress of a run: what is done, what remains, and what it has cost so far."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """
    How far a run is; what a progress callback receives.

    A report with a *message* is a note for people; its counts are 0 where nothing runs yet.
    """

    title: str = ""
    """What the report is about: a run, or a side of a backtest."""
    waits_for: str = ""
    """The batches that the run waits for, such as "node 2 of 4: batch 3 of 3, 18,200 of 50,000 answered, expires in 19 h"; empty while it goes on."""
    message: str = ""
    """A note for people, such as "resuming run 261127-4f21"; empty in plain counts."""
    steps: int = 0
    """Steps of the run, over all tasks and trials."""
    steps_done: int = 0
    """Steps that have an outcome, whatever it is."""
    steps_failed: int = 0
    tasks: int = 0
    tasks_done: int = 0
    calls: int = 0
    """Model calls so far, judges included."""
    tokens: int = 0
    """Input and output tokens so far, judges included."""
    usd: float | None = 0.0
    """US dollars so far; None when a model has no price."""
    seconds: float = 0.0
    """Seconds since this driver started."""

    @property
    def remaining_s(self) -> float | None:
        """Estimated seconds until the run is finished; None while there is no rate yet."""
        return (self.steps - self.steps_done) * self.seconds / self.steps_done if self.steps_done else None


ProgressCallback = Callable[[Progress], None]
"""Receives the progress of a run a few times per second, and every message."""


def ignore_progress(progress: Progress) -> None:
    """The callback that does nothing."""


@dataclass(frozen=True)
class Counts:
    """Steps that have an outcome, and what they cost."""

    steps: int = 0
    failed: int = 0
    calls: int = 0
    tokens: int = 0
    usd: float | None = 0.0
    """None when a model has no price."""


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of all counts."""
    every = list(counts)
    money = [each.usd for each in every if each.usd is not None]
    return Counts(
        sum(each.steps for each in every),
        sum(each.failed for each in every),
        sum(each.calls for each in every),
        sum(each.tokens for each in every),
        math.fsum(money) if len(money) == len(every) else None,
    )
