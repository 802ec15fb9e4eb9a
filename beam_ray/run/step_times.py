"""How long steps take, learned from earlier runs, and how long a plan will therefore take."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow.compute as pc

from beam_ray.llm.scripted import Models
from beam_ray.run.plan import Plan
from beam_ray.store.lookup import recent_runs
from beam_ray.store.objects import Objects

LEARNED_RUNS = 3
"""The newest runs that times are learned from: endpoints change."""


class TimeRange(NamedTuple):
    """Seconds that a plan will take."""

    low: float
    """With as many calls in flight as the models file allows."""
    high: float
    """With as many steps in progress as in the busiest of the earlier runs."""


@dataclass(frozen=True)
class StepTimes:
    """What earlier runs of a workflow tell about its times."""

    seconds: Mapping[tuple[str, str | None], float]
    """Node and its model (None for a tool) to the mean time of an executed step."""
    busy: float
    """Steps in progress on average, in the busiest run."""

    def estimate(self, plan: Plan, models: Models) -> TimeRange | None:
        """How long *plan* takes, judges and pauses of rate limits left out; None where a step of it was never run."""
        executed = [node for node in plan.nodes if node.run]
        if any((node.node, node.model) not in self.seconds for node in executed):
            return None
        each = {node.node: self.seconds[node.node, node.model] for node in executed}
        # the steps of one task wait for each other
        chain = math.fsum(each.values())
        work: dict[str | None, float] = {}
        for node in executed:
            work[node.model] = work.get(node.model, 0.0) + node.run * each[node.node]
        limited = [seconds / min(models[model].concurrency, max(plan.record.rows, 1)) for model, seconds in work.items() if model is not None]
        fast, usual = max([chain, *limited]), max(chain, math.fsum(work.values()) / self.busy)
        return TimeRange(min(fast, usual), max(fast, usual))


def learn_times(objects: Objects, workflow: str) -> StepTimes | None:
    """The times of *workflow* in its newest finished runs; None where none executed a step."""
    found: dict[tuple[str, str | None], float] = {}
    busy, learned = 1.0, 0
    for run in recent_runs(objects):
        if learned == LEARNED_RUNS:
            break
        if run.workflow != workflow or not run.finished:
            continue
        usage = run.usage
        if usage is None or not usage["steps_done"] or not usage["seconds"]:
            continue
        learned += 1
        busy = max(busy, usage["model_seconds"] / usage["seconds"])
        steps = run.steps(columns=["node", "outcome", "seconds"])
        steps = steps.filter(pc.and_(pc.equal(steps["outcome"], "done"), pc.greater(steps["seconds"], 0)))
        for node in pc.unique(steps["node"]).to_pylist():
            times = steps["seconds"].filter(pc.equal(steps["node"], node)).to_numpy()
            # of the newest run that ran the node with this model; older ones fill in what it borrowed
            found.setdefault((node, run.record.plan.model_of(node)), float(np.mean(times)))
    return StepTimes(found, busy) if found else None
