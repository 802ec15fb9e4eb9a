"""Doing a plan, wherever it is done, and never twice."""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from beam_ray.run.plan import Plan
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, begin, find_runs

Execute = Callable[..., Any]
"""``execute(objects, record, models, **how)``: brings a run to its end, as ``run.execute.execute`` does on Ray."""


class Player:
    """Brings plans to finished runs. A plan that was done before, by whichever command, is not done again."""

    def __init__(self, objects: Objects, models: Mapping[str, Any], execute: Execute):
        self.objects, self.models, self.execute = objects, models, execute

    def __call__(self, plan: Plan) -> Run:
        """
        The finished run of *plan*.

        Raises:
            Stopped: before its end; the same call goes on.
        """
        found = self._finished.get(plan.record.key)
        if found is None:
            record = begin(self.objects, plan.record, plan.tasks)
            self.execute(self.objects, record.model_copy(update={"budget": plan.record.budget}), self.models)
            found = self._finished[plan.record.key] = record.run_id
        return Run(self.objects, found)

    @cached_property
    def _finished(self) -> dict[str, str]:
        runs = [Run(self.objects, run_id) for run_id in find_runs(self.objects)]
        return {run.record.key: run.run_id for run in runs if run.finished}
