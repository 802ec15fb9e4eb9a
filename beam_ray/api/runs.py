"""Runs: one execution of a workflow over tasks, finished or not."""

import contextlib
import math
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Stopped, Unusable
from beam_ray.llm.advice import ignored_settings
from beam_ray.llm.lanes import in_lane, require_lane
from beam_ray.llm.scripted import Models
from beam_ray.llm.settings import ModelSettings
from beam_ray.memory import release_memory
from beam_ray.run.progress import Progress, ProgressCallback
from beam_ray.store.beginning import begin, unfinished
from beam_ray.store.lookup import newest_first, resolve, select
from beam_ray.store.manifest import RunSummary
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run as StoredRun
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import OutcomeRow, StepRow, TaskRow
from beam_ray.store.task_rows import TaskRows
from beam_ray.tasks.sources import read

if TYPE_CHECKING:
    from beam_ray.api.run_nodes import RunNode
    from beam_ray.api.tasks import Task
    from beam_ray.run.connection import Connection
    from beam_ray.tasks.sources import Tasks

Budget = Mapping[str, float]
"""Limits of a run by name: max_usd, max_tokens, max_calls, max_minutes."""
HELD_TASKS = 10_000
"""Tasks from which on their memory is given back to the system when they are in the store."""
LIMITS = ("max_usd", "max_tokens", "max_calls", "max_minutes")


class RunDocument(TypedDict):
    """A run as ``--json`` prints it."""

    run_id: str
    workflow: str
    version: int | None
    tasks: int
    trials: int
    passed: int
    failed: int
    below_threshold: int
    score: float | None
    calls: int
    usd: float | None
    summary: RunSummary


@dataclass(frozen=True, repr=False)
class Run(Displayed):
    """
    One execution of a workflow over tasks, as the store has it.

    Numbers are over tasks and trials. Of an unfinished run they cover what is done so far.
    """

    store: Location = field(compare=False)
    id: str

    @classmethod
    def of(cls, store: Location, stored: StoredRun) -> "Run":
        """The run, with what was read of it already."""
        run = cls(store, stored.run_id)
        run.__dict__["stored"] = stored
        return run

    @cached_property
    def stored(self) -> StoredRun:
        """The run's files."""
        return StoredRun(self.store.objects, self.id)

    @property
    def record(self) -> RunRecord:
        """What was to be done: definition, models, origin, budget, versions of everything."""
        return self.stored.record

    @property
    def workflow(self) -> Workflow:
        """The definition that was run."""
        return self.record.plan

    @property
    def version(self) -> int | None:
        """Number of the published version that was run; None for a draft."""
        return self.record.version

    @property
    def source(self) -> str:
        """Where the tasks came from."""
        return self.record.source

    @property
    def origin(self) -> "Run | None":
        """The run that this one redoes or borrows from."""
        return Run(self.store, self.record.origin) if self.record.origin else None

    @property
    def created_at(self) -> str:
        """When it was begun: ISO 8601, UTC."""
        return self.stored.created_at

    @property
    def finished(self) -> bool:
        """Whether every step has an outcome and the run can no longer change."""
        return self.stored.finished

    @cached_property
    def summary(self) -> RunSummary:
        """
        The run in numbers.

        Tasks: rows, passed, below, failed, review. Scores from 0 to 100: score, first_score (None when
        unscored). Cost: calls, input_tokens, output_tokens, usd (None when a model has no price),
        seconds, cached_tokens and reasoning_tokens (None where no call reported them), estimated_calls
        (calls without reported usage, whose tokens and price are estimates; absent in runs of version 0.1). Auto-reruns: auto_reruns, auto_rerun_tokens, auto_rerun_usd. Steps: steps_done,
        steps_borrowed, steps_failed, steps_skipped, steps_unscored.
        """
        from beam_ray.run.summary import summary_of

        numbers = self.stored.usage
        return numbers.copy() if numbers else summary_of(self.stored.outcome())

    @property
    def passed(self) -> int:
        """Tasks without a failed step in which every scored step reached its threshold."""
        return self.summary["passed"]

    @property
    def below(self) -> int:
        """Tasks without a failed step in which a score is below its threshold."""
        return self.summary["below"]

    @property
    def failed(self) -> int:
        """Tasks with a failed step."""
        return self.summary["failed"]

    @property
    def score(self) -> float | None:
        """Mean score of the scored tasks, 0 to 100; None when none is scored."""
        return self.summary["score"]

    @property
    def calls(self) -> int:
        """Model calls made, judges and retries included."""
        return self.summary["calls"]

    @property
    def usd(self) -> float | None:
        """US dollars paid; None when a model has no price."""
        return self.summary["usd"]

    def tasks(self, *, status: str | None = None, labels: Iterable[str] = (), where: str | None = None) -> pa.Table:
        """
        One row per task and trial: outcome, passed, score, routes, cost and error.

        Args:
            status: passed, below, failed, failing (below or failed), or review.
            labels: Only tasks with all of these labels.
            where: Only rows for which this expression over the columns holds, such as ``score < 80``.
        """
        return select(self.stored.outcome(), status=status, labels=tuple(labels), where=where)

    def task(self, task_id: str, trial: int = 1) -> "Task":
        """
        One task with its steps.

        Raises:
            Unusable: the run has no such task.
        """
        from beam_ray.api.tasks import task

        return task(self.store, str(Address(self.id, task_id, trial)))

    def steps(self, nodes: Iterable[str] | None = None, columns: Iterable[str] | None = None) -> pa.Table:
        """One row per step, with the columns of ``steps/*.parquet``; only those of *nodes*, and only *columns*, where given."""
        return self.stored.steps(nodes, None if columns is None else list(columns))

    @property
    def nodes(self) -> "tuple[RunNode, ...]":
        """What happened at each node, in the order of the workflow: steps, accuracy, cost and time."""
        from beam_ray.api.run_nodes import run_nodes

        return run_nodes(self)

    def call_table(self, nodes: Iterable[str] | None = None) -> pa.Table:
        """One row per call of an agent or a program to a model or a tool, with the columns of ``calls/*.parquet``; only those of *nodes* where given."""
        return self.stored.calls(nodes)

    def step_rows(self, node: str, tasks: Iterable[tuple[str, int]]) -> dict[tuple[str, int], StepRow]:
        """The node's rows of some tasks, by id and trial; only the pieces of files that hold them are decoded (internal)."""
        with self._reading:
            return self._step_rows.rows(node, tasks)

    def outcome_row(self, task: str, trial: int) -> OutcomeRow | None:
        """The outcome of one task, without reading those of others (internal)."""
        with self._reading:
            return self._step_rows.outcomes([(task, trial)]).get((task, trial))

    def given_row(self, task: str) -> TaskRow | None:
        """One task as it was given, without reading the others (internal)."""
        with self._reading:
            places = self._step_rows.places([(task, 1)])
            found = [self._task_rows.tasks(place // self.record.trials, place // self.record.trials + 1) for place in places]
        rows: list[TaskRow] = [row for table in found for row in table.to_pylist() if row["task_id"] == task]
        if not rows and not self.finished:
            given = self.inputs()  # it has no outcome yet, by which it is found
            rows = given.filter(pc.equal(given["task_id"], task)).to_pylist()
        return rows[0] if rows else None

    def forget_step_rows(self) -> None:
        """Give back the memory of the files that rows were read from (internal)."""
        with self._reading:
            # its index refers back to it, so it would stay until Python next looks for cycles
            if "_step_rows" in self.__dict__:
                self.__dict__.pop("_step_rows").close()
            self.__dict__.pop("_task_rows", None)

    @cached_property
    def _task_rows(self) -> TaskRows:
        return TaskRows(self.stored)

    @cached_property
    def _step_rows(self) -> StepRows:
        return StepRows(self.stored)

    @cached_property
    def _reading(self) -> threading.Lock:
        # an open Parquet file is for one thread at a time
        return threading.Lock()

    def inputs(self) -> pa.Table:
        """The tasks as they were given, with the columns of ``tasks.parquet``."""
        return self.stored.tasks()

    def display(self) -> Display:
        record, numbers = self.record, self.summary
        version = f" version {record.version}" if record.version else ""
        facts = (
            ("workflow", f"{record.workflow}{version}"),
            ("tasks", record.tasks),
            ("passed", numbers["passed"]),
            ("below threshold", numbers["below"]),
            ("failed", numbers["failed"]),
            ("mean score", numbers["score"]),
            ("model calls", numbers["calls"]),
            ("cost", "unpriced" if numbers["usd"] is None else f"${numbers['usd']:,.4f}"),
            ("", "" if self.finished else "unfinished"),
        )
        return Display(self.id, facts)

    def document(self) -> RunDocument:
        """The run as a JSON document."""
        record, numbers = self.record, self.summary
        return {
            "run_id": record.run_id,
            "workflow": record.workflow,
            "version": record.version,
            "tasks": record.tasks,
            "trials": record.trials,
            "passed": numbers["passed"],
            "failed": numbers["failed"],
            "below_threshold": numbers["below"],
            "score": numbers["score"],
            "calls": numbers["calls"],
            "usd": numbers["usd"],
            "summary": numbers,
        }


def runs(store: Location, *, skip_damaged: bool = False) -> list[Run]:
    """See ``Store.runs``."""
    return [Run.of(store, each) for each in newest_first(store.existing(), skip_damaged=skip_damaged)]


def get_run(store: Location, name: str) -> Run:
    """See ``Store.get_run``."""
    found = Run(store, resolve(store.existing(), name))
    _ = found.record  # a run that cannot be read is refused here
    return found


def begun(store: Location, key: str) -> Run | None:
    """See ``Store.begun``."""
    record = unfinished(store.existing(), key)
    return Run(store, record.run_id) if record else None


def run(
    store: Location,
    workflow: WorkflowOption,
    tasks: "Tasks | Any",
    *,
    trials: int = 1,
    budget: Budget | None = None,
    takeover: bool = False,
    progress: ProgressOption = None,
) -> Run:
    """See ``Store.run``."""
    from beam_ray.improve.exposure import note_use
    from beam_ray.run.conversation import unread_messages
    from beam_ray.run.plan import make_plan

    objects, models, limits = store.objects, store.known_models, checked_budget(budget)
    checked = check(workflow, store)
    require_lane(store.lane, models, checked.workflow.models)
    with progress_callback(progress) as callback:
        for warning in (*checked.warnings, *ignored_settings(checked.workflow, models)):
            callback(Progress(message=str(warning)))
        found, source = read(objects, tasks)
        for warning in unread_messages(checked.workflow, found):
            callback(Progress(message=str(warning)))
        made = make_plan(checked.workflow, found, models, source=source, version_number=checked.version, trials=trials, budget=limits)
        with connection(store) as opened:
            opened.begin()
            probe_models(store, checked.workflow)
            if said := note_use(objects, found, "run", [checked.workflow]):
                callback(Progress(message=said))
            record = begin(objects, made.record, made.tasks)
            is_new = record.run_id == made.record.run_id
            if not is_new:
                callback(Progress(message=f"resuming run {record.run_id}, started {record.created_at.replace('T', ' ')[:16]} UTC"))
            large = found.num_rows > HELD_TASKS
            del found, made
            if large:
                release_memory()
            record = record.model_copy(update={"budget": limits})
            # a new run has had no driver, so that there is nothing to list
            done = finish(store.with_connection(opened), record, takeover=takeover, callback=callback, names=() if is_new else None)
        return Run.of(store, done.stored)


def resume(store: Location, name: str, *, budget: Budget | None = None, takeover: bool = False, progress: ProgressOption = None) -> Run:
    """See ``Store.resume``."""
    found = get_run(store, name)
    record = found.record
    if budget is not None:
        record = record.model_copy(update={"budget": checked_budget(budget)})
    models = store.known_models
    if not found.finished:
        models = models if store.lane else _in_recorded_lanes(models, record)
        require_lane(store.lane, models, record.plan.models)
        probe_models(store, record.plan)
    with progress_callback(progress) as callback:
        return finish(store, record, takeover=takeover, callback=callback, models=models)


def _in_recorded_lanes(models: Models, record: RunRecord) -> Models:
    """The models in the lanes that the run was begun in."""
    lanes = {name: str(written.get("lane", "")) for name, written in record.models.items()}
    return {name: in_lane({name: model}, lanes.get(name, "").removeprefix("auto"))[name] for name, model in models.items()}


def finish(
    store: Location,
    record: RunRecord,
    *,
    takeover: bool,
    callback: ProgressCallback,
    models: Models | None = None,
    names: Sequence[str] | None = None,
    keep_open: bool = False,
) -> Run:
    """
    Execute the remaining steps of a run; *models* take the place of the store's.

    Args:
        names: What drivers have written of it, where that is known; None lists it.
        keep_open: Let the same command find it until the caller closes it.

    Raises:
        Stopped: before the end; ``error.resume`` is the command that resumes.
    """
    from beam_ray.run.execute import execute  # loads Ray

    try:
        with connection(store) as opened:
            result = execute(
                store.objects, record, models or store.known_models, connection=opened, takeover=takeover, progress=callback, names=names, keep_open=keep_open
            )
    except Stopped as error:
        error.resume = f"beam-ray resume {record.run_id}{store.option}"
        raise
    numbers, steps = result.summary, record.rows * len(record.plan.order)
    callback(
        Progress(
            title=f"run {record.run_id}",
            steps=steps,
            steps_done=steps,
            steps_failed=numbers["steps_failed"],
            tasks=record.rows,
            tasks_done=record.rows,
            calls=numbers["calls"],
            tokens=numbers["input_tokens"] + numbers["output_tokens"],
            usd=numbers["usd"],
            seconds=numbers["seconds"],
        )
    )
    return Run.of(store, result.run)


@contextlib.contextmanager
def connection(store: Location) -> "Iterator[Connection]":
    """The connection to the store's cluster; a shared one stays open."""
    from beam_ray.run.connection import Connection  # loads Ray

    if store.connection is not None:
        yield store.connection
        return
    with contextlib.closing(Connection(store.address)) as opened:
        yield opened


def probe_models(store: Location, *workflows: Workflow) -> None:
    """Check that every endpoint answers, before anything is written; the embedded model is started where it does not."""
    from beam_ray.api.local_models import start_if_embedded
    from beam_ray.llm.probe import probe  # loads the HTTP client

    for name in dict.fromkeys(name for workflow in workflows for name in workflow.models):
        written = store.known_models.get(name)
        if isinstance(written, ModelSettings):
            start_if_embedded(store, written)
            probe(written, name)


def checked_budget(budget: Budget | None) -> dict[str, float]:
    """
    The budget as numbers.

    Raises:
        Unusable: an unknown name, or a value that is no limit.
    """
    found = {}
    for name, value in (budget or {}).items():
        if name not in LIMITS:
            raise Unusable(f"budget: unknown limit {name!r}\n  limits are {', '.join(LIMITS)}")
        # nothing exceeds NaN, so it would limit nothing
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise Unusable(f"budget: {name} must be a number of at least 0, not {value!r}")
        found[name] = float(value)
    return found
