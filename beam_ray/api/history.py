"""History: a task with all its reruns, and the ledger of a workflow's reruns."""

from dataclasses import dataclass
from typing import Any

from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.errors import Unusable
from beam_ray.improve.ledger import Ledger as Engine
from beam_ray.improve.ledger import ledger as make_ledger
from beam_ray.improve.ledger_report import CAUTION, Table, html, markdown, summary, tables
from beam_ray.rerun import RerunEntry, family
from beam_ray.store.lookup import find_task
from beam_ray.store.runs import Run as StoredRun
from beam_ray.store.runs import find_runs


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


@dataclass(frozen=True, repr=False)
class Ledger(Displayed):
    """All reruns of a workflow's tasks: why, what had changed, whether it solved the problem, and what it cost."""

    workflow: str
    _engine: Engine

    @property
    def empty(self) -> bool:
        """Whether no task of the workflow was rerun yet."""
        return not self._engine.reruns

    @property
    def summary(self) -> tuple[str, ...]:
        """The ledger in a few sentences."""
        return tuple(summary(self._engine))

    @property
    def tables(self) -> tuple[Table, ...]:
        """The ledger's tables, each with title, header, rows and the columns of numbers."""
        return tuple(tables(self._engine))

    @property
    def caution(self) -> str:
        """What these numbers cannot show."""
        return CAUTION

    def markdown(self) -> str:
        """The ledger as Markdown."""
        return markdown(self._engine)

    def html(self) -> str:
        """The ledger as one self-contained page."""
        return html(self._engine)

    def display(self) -> Display:
        return Display(self.workflow, tuple(("", line) for line in self.summary))

    def document(self) -> dict[str, Any]:
        """The ledger as a JSON document."""
        return self._engine.document()


def task_history(store: Location, task: str) -> TaskHistory:
    """See ``Store.task_history``."""
    objects = store.existing()
    address = find_task(objects, task)
    return TaskHistory(str(address), tuple(family(objects, address)))


def ledger(store: Location, workflow: str) -> Ledger:
    """See ``Store.ledger``."""
    made = make_ledger(store.existing(), workflow)
    return Ledger(made.workflow, made)


def history(store: Location, subject: str) -> TaskHistory | Ledger:
    """See ``Store.history``."""
    objects = store.existing()
    names_a_workflow = "/" not in subject and any(StoredRun(objects, run_id).record.workflow == subject for run_id in find_runs(objects))
    try:
        return task_history(store, subject)
    except Unusable:
        if not names_a_workflow:
            raise
        return ledger(store, subject)
