"""Runs that a backtest finds in the store and need not make again."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from beam_ray.backtest.spec import Spec
from beam_ray.define.workflow import Workflow
from beam_ray.llm.scripted import Models
from beam_ray.run.model_identity import identity
from beam_ray.store.objects import Objects
from beam_ray.store.run_index import all_runs
from beam_ray.store.run_record import tasks_digest
from beam_ray.store.runs import Run
from beam_ray.tasks.sources import only

NEWEST = 5
"""Runs of a definition whose tasks are read to find one that has all of them."""


@dataclass
class EarlierRuns:
    """The finished runs over the tasks of a backtest."""

    objects: Objects
    spec: Spec
    models: Models
    given: pa.Table
    """The tasks in the order in which they were given."""
    tasks: pa.Table
    """The same in the order in which they are run."""
    tools: Callable[[Workflow], dict[str, str]]

    def same(self, workflow: Workflow, *, whole: bool = True) -> str | None:
        """The newest run of this very definition over these very tasks, or over the first of them: paid for, so not run again."""
        matching = [
            run for run in self._alike(workflow) if self._same_tasks(run) and run.record.trials == self.spec.trials and bool(run.record.cut_from) != whole
        ]
        return matching[0].run_id if matching else None

    def covering(self, workflow: Workflow) -> str | None:
        """The newest run of this very definition that has all of these tasks and further ones: its steps are borrowed."""
        wanted = _known_by(self.given)
        for run in self._alike(workflow)[:NEWEST]:
            if run.record.trials < self.spec.trials or run.record.tasks < len(wanted):
                continue
            theirs = _known_by(run.tasks())
            if all(theirs.get(task) == what for task, what in wanted.items()):
                return run.run_id
        return None

    def _alike(self, workflow: Workflow) -> list[Run]:
        """The finished runs of this very definition that asked the same models and called the same tools, the newest first."""
        if self.spec.fresh:
            return []
        wanted = {name: identity(self.models[name]) for name in workflow.models if name in self.models}
        tools = self.tools(workflow)
        matching = []
        digest = workflow.digest
        for run in self._runs():
            if run.definition_digest != digest:
                continue
            record = run.record
            same = not record.sample and not record.recorded and record.tool_answers == self.spec.tool_answers
            asked = {name: entry.get("identity") for name, entry in record.models.items()}
            if same and asked == wanted and record.tools == tools and not (record.start_node or record.pinned_node) and run.finished:
                matching.append(run)
        return sorted(matching, key=lambda run: (run.record.created_at, run.run_id), reverse=True)

    def similar(self, workflow: Workflow) -> str | None:
        """The newest run of the workflow by that name over these very tasks: steps that a change does not reach are borrowed from it."""
        found = []
        for run in self._runs():
            if run.workflow != workflow.name:
                continue
            record = run.record
            same = self._same_tasks(run) and record.trials == self.spec.trials
            plain = record.mode in ("run", "baseline", "candidate") and not (record.sample or record.recorded or record.ruler_only or record.start_node)
            if same and plain and not record.cut_from and run.finished:
                found.append((record.created_at, run.run_id))
        return max(found)[1] if found else None

    def _runs(self) -> Iterator[Run]:
        """All runs, by the index: a matrix looks for as many definitions as it has candidates."""
        yield from all_runs(self.objects)

    @cached_property
    def _digests(self) -> tuple[str, str]:
        return tasks_digest(self.given), tasks_digest(self.tasks)

    def _same_tasks(self, run: Run) -> bool:
        """Whether the run is over these very tasks, in whatever order, or over the first of them in its own."""
        if run.record.tasks_digest in self._digests:
            return True
        if not run.record.early or (run.record.cut_from or run.record.tasks) != self.given.num_rows:
            return False
        theirs = run.tasks().sort_by("task_id")
        return tasks_digest(theirs) == tasks_digest(only(self.given, theirs["task_id"].to_pylist()).sort_by("task_id"))


def _known_by(tasks: pa.Table) -> dict[str, tuple[str, str | None]]:
    """Each task's id to the digest of its inputs and to its expected outcome, by which it is scored."""
    return dict(zip(tasks["task_id"].to_pylist(), zip(tasks["inputs"].to_pylist(), tasks["expected"].to_pylist(), strict=True), strict=True))
