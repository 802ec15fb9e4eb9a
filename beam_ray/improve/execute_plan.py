"""Execute plans, each only once."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

from beam_ray.llm.scripted import Models
from beam_ray.run.plan import Plan
from beam_ray.store.beginning import begin
from beam_ray.store.objects import Objects
from beam_ray.store.run_index import all_runs
from beam_ray.store.runs import Run

Execute = Callable[..., Any]
"""``execute(objects, record, models, **options)``: executes a run, as ``run.execute.execute`` does on Ray."""


class PlanExecutor:
    """Executes plans. A plan that any command already executed is not executed again."""

    def __init__(self, objects: Objects, models: Models, execute: Execute):
        self.objects, self.models, self.execute = objects, models, execute

    def __call__(self, plan: Plan) -> Run:
        """
        The finished run of *plan*.

        Raises:
            Stopped: Interrupted; the same call resumes.
        """
        found = self._finished.get(plan.record.key)
        if found is None:
            record = begin(self.objects, plan.record, plan.tasks)
            self.execute(self.objects, record.model_copy(update={"budget": plan.record.budget}), self.models)
            found = self._finished[plan.record.key] = record.run_id
        return Run(self.objects, found)

    @cached_property
    def _finished(self) -> dict[str, str]:
        return {run.record.key: run.run_id for run in all_runs(self.objects) if run.finished}
