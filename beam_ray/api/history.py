"""History: a task with all its reruns."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.errors import Unusable
from beam_ray.rerun import RerunEntry, family
from beam_ray.store.lookup import find_task
from beam_ray.store.run_index import all_runs

if TYPE_CHECKING:
    from beam_ray.api.ledger import Ledger


@dataclass(frozen=True, repr=False)
class TaskHistory(Displayed):
    """A task with everything that it reruns and everything that reruns it, the oldest first."""

    task: str
    members: tuple[RerunEntry, ...]
    """
    One mapping per run: task (its address), run_id, mode, started, version, origin, from, because,
    changed, score, status, calls, usd, and solved ("solved", "not solved", "still passes", "newly failing").
    """

    def display(self) -> Display:
        rows = [(each["task"], each["mode"], each["started"], each["score"], each["status"], each["solved"], each["because"]) for each in self.members]
        return Display(self.task, (), ("task", "as", "when", "score", "status", "solved", "because"), rows)

    def document(self) -> list[RerunEntry]:
        """The history as a JSON document."""
        return list(self.members)


def task_history(store: Location, task: str) -> TaskHistory:
    """See ``Store.task_history``."""
    objects = store.existing()
    address = find_task(objects, task)
    return TaskHistory(str(address), tuple(family(objects, address)))


def history(store: Location, subject: str) -> "TaskHistory | Ledger":
    """See ``Store.history``."""
    try:
        return task_history(store, subject)
    except Unusable:
        objects = store.existing()
        if "/" in subject or not any(run.workflow == subject for run in all_runs(objects)):
            raise
    from beam_ray.api.ledger import ledger

    return ledger(store, subject)
