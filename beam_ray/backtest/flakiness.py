"""
How often a task fails although nothing is wrong, from earlier runs of the same definition.

It sizes the repeats of newly failing tasks: in a workflow in which a task fails every fifth time by
chance, eight repeats of the baseline seldom all pass, and a broken task would go unconfirmed.
Runs of the backtest itself do not count, so that a resumed one repeats as often.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import islice

import pyarrow.compute as pc

from beam_ray.backtest.discordance import discordance
from beam_ray.store.lookup import recent_runs
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

USUAL = 0.05
"""Share of a task's runs that fail by chance, where nothing tells."""
NEWEST_RUNS = 20
WEIGHT = 4
"""Of the workflow's share in that of a single task, in runs of that task."""


@dataclass(frozen=True)
class Flakiness:
    """What earlier runs tell of chance failures."""

    known: float | None
    """The share of runs of a task that fail by chance, over all tasks; None where no two results of one definition can be compared."""
    runs: tuple[str, ...] = ()
    """Finished runs that tell of it."""
    failed: Mapping[str, int] = field(default_factory=dict)
    """Task to how many of its earlier runs with the baseline's definition failed."""
    tried: Mapping[str, int] = field(default_factory=dict)
    """Task to how many there are."""

    @property
    def share(self) -> float:
        """The share over all tasks, or the usual one."""
        return USUAL if self.known is None else self.known

    def of(self, task: str) -> float:
        """The share of a task's own runs that fail by chance: its own, drawn to that of all."""
        return (self.failed.get(task, 0) + WEIGHT * self.share) / (self.tried.get(task, 0) + WEIGHT)


def flakiness(objects: Objects, workflow: str, definition: str = "", backtest: str = "", tasks: Collection[str] = ()) -> Flakiness:
    """
    What earlier runs tell of chance failures.

    Args:
        definition: Digest of the baseline's definition, whose runs tell of single *tasks*.
        backtest: Its own runs are left out.
    """
    found = discordance(objects, workflow, leaving_out=backtest)
    noise = found.of_noise.flips if found and found.of_noise else None
    # of two runs of a task one fails, in 2 f (1 - f) of the cases
    known = None if noise is None else (1 - math.sqrt(max(0.0, 1 - 2 * noise))) / 2
    failed, tried = dict[str, int](), dict[str, int]()
    if tasks:
        others = (run for run in recent_runs(objects) if not backtest or run.record.backtest != backtest)
        same = (run for run in others if run.definition_digest == definition and run.finished)
        for run in islice(same, NEWEST_RUNS):
            _count(run, tasks, failed, tried)
    return Flakiness(known, found.runs if found and noise is not None else (), failed, tried)


def _count(run: Run, tasks: Collection[str], failed: dict[str, int], tried: dict[str, int]) -> None:
    table = run.outcome(["task_id", "passed", "steps_done"])
    # what was borrowed is a copy and no second run
    executed = table.filter(pc.greater(table["steps_done"], 0))
    for task, passed in zip(executed["task_id"].to_pylist(), executed["passed"].to_pylist(), strict=True):
        if task in tasks:
            tried[task] = tried.get(task, 0) + 1
            failed[task] = failed.get(task, 0) + (not passed)
