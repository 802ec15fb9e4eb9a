"""The rows that a run may borrow: those of its origin, and of further runs."""

from collections.abc import Collection, Sequence

from beam_ray.define.workflow import Workflow
from beam_ray.run.context import TaskTrial
from beam_ray.run.lenders import shared_nodes
from beam_ray.store.key_index import Key
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import StepRow


class BorrowableRows:
    """Rows of some tasks, by node. For one thread at a time, except that rows may be looked up while others are loaded."""

    def __init__(self, objects: Objects, record: RunRecord, workflow: Workflow):
        self._order = workflow.order
        self.origin = StepRows(Run(objects, record.origin)) if record.origin else None
        """The run that is redone or borrowed from before all others."""
        self.pinned = StepRows(Run(objects, record.pinned_from)) if record.pinned_from else None
        """The run whose outputs at one node take the place of the origin's."""
        self._pinned_node = record.pinned_node or ""
        runs = [Run(objects, run_id) for run_id in record.borrow_from]
        self._lenders = [(StepRows(run), shared_nodes(workflow, run.record.plan)) for run in runs]
        self._rows: dict[tuple[str, str, int], StepRow] = {}
        self._lent: dict[tuple[str, str, int], list[StepRow]] = {}
        self._pinned: dict[Key, StepRow] = {}

    def __bool__(self) -> bool:
        return bool(self._rows or self._lent or self._pinned)

    def load(self, keys: Sequence[Key], near: int = 0) -> None:
        """Read the rows of these tasks and trials, whose first one is row *near* of this run."""
        if self.origin:
            for node in self._order:
                for (task, trial), row in self.origin.rows(node, keys, near).items():
                    self._rows[node, task, trial] = row
        if self.pinned:
            self._pinned.update(self.pinned.rows(self._pinned_node, keys, near))
        for lender, nodes in self._lenders:
            for node in nodes:
                for (task, trial), row in lender.rows(node, keys, near).items():
                    self._lent.setdefault((node, task, trial), []).append(row)

    def forget(self, tasks: Collection[str]) -> None:
        """Forget the rows of these tasks."""
        for key in [key for key in self._rows if key[1] in tasks]:
            del self._rows[key]
        for key in [key for key in self._lent if key[1] in tasks]:
            del self._lent[key]
        for placed in [placed for placed in self._pinned if placed[0] in tasks]:
            del self._pinned[placed]

    def origin_row(self, node: str, task: TaskTrial) -> StepRow | None:
        """The origin's row of the node."""
        return self._rows.get((node, task.task_id, task.trial))

    def origin_rows(self, node: str, tasks: Collection[str]) -> dict[Key, StepRow]:
        """The origin's rows of the node for those of the tasks that are loaded."""
        return {(task, trial): row for (name, task, trial), row in self._rows.items() if name == node and task in tasks}

    def pinned_row(self, node: str, task: TaskTrial) -> StepRow | None:
        """The row whose output takes the place of the node's; None for every other node."""
        return self._pinned.get((task.task_id, task.trial)) if node == self._pinned_node else None

    def pinned_rows(self, node: str, tasks: Collection[str]) -> dict[Key, StepRow]:
        """Those rows for those of the tasks that are loaded."""
        return {key: row for key, row in self._pinned.items() if node == self._pinned_node and key[0] in tasks}

    def lent_rows(self, node: str, task: TaskTrial) -> Sequence[StepRow]:
        """The rows of the node in further runs."""
        return self._lent.get((node, task.task_id, task.trial), ())
