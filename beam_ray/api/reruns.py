"""Reruns: tasks of earlier runs executed again in new runs, whole or from one node on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.plans import Plan, plan_of, time_of, times_of
from beam_ray.api.progress import ProgressOption, progress_callback
from beam_ray.api.runs import Budget, Run, RunDocument, checked_budget, finish, get_run, probe_models
from beam_ray.api.workflows import WorkflowOption, check
from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Problem, Stopped, Unusable
from beam_ray.improve.exposure import note_use
from beam_ray.llm.lanes import require_lane
from beam_ray.rerun import WHAT_IF, RerunOptions, make_rerun, solved
from beam_ray.run.plan import Plan as EnginePlan
from beam_ray.run.progress import Progress
from beam_ray.store.beginning import begin, close, unfinished
from beam_ray.store.libraries import read_library
from beam_ray.store.lookup import find_task, newest_first, resolve, select, status_of
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run as StoredRun
from beam_ray.store.tables import OutcomeRow
from beam_ray.tasks.changed_inputs import Changes, read_changes

if TYPE_CHECKING:
    from beam_ray.api.prompt_tries import PairedResult


@dataclass(frozen=True)
class Selection:
    """Tasks of a run or of a library, chosen by their results."""

    run: str | None = None
    """Tasks of this run."""
    library: str | None = None
    """Tasks of this library (``NAME`` or ``NAME@VERSION``), each from its newest finished run."""
    tasks: tuple[str, ...] = ()
    """Of a run: only tasks with these ids."""
    status: str | None = None
    """passed, below, failed, failing (below or failed), or review."""
    labels: tuple[str, ...] = ()
    where: str | None = None
    """Filter expression over the columns of a run's tasks."""


@dataclass(frozen=True)
class Rerunning:
    """How tasks are rerun."""

    from_node: str | None = None
    """Start at this node: steps that do not descend from it are borrowed. None reruns every step."""
    using: WorkflowOption = "published"
    """``published``, ``original`` (the definition of the original run), or a workflow."""
    because: str = ""
    """Reason for the rerun, stored with it."""
    allow_writes: bool = False
    """Call tools with write effects again; otherwise their recorded outputs are replayed."""
    inputs: "Changes | str | Path | None" = None
    """Changes of the tasks' input, or a JSON or YAML file of them."""


class TaskChangeSide(TypedDict):
    """One side of a rerun task."""

    status: str
    score: float | None
    routes: list[str]


class TaskChange(TypedDict):
    """A rerun task, before and after."""

    task: str
    before: TaskChangeSide
    after: TaskChangeSide
    word: str
    """solved, not solved, still passes, or newly failing; what-if where the input was changed."""
    calls: int
    usd: float | None


_StartNode = TypedDict("_StartNode", {"from": str | None})


class RerunDocument(RunDocument, _StartNode):
    """A rerun as ``--json`` prints it: its run, what it reruns, and each task before and after."""

    origin: str
    changed: list[str]
    changed_inputs: JsonObject
    tasks_redone: list[TaskChange]


@dataclass(frozen=True, repr=False)
class Rerun(Displayed):
    """A new run that repeats tasks of an earlier one, which it leaves unchanged."""

    run: Run
    origin: Run
    from_node: str | None = None

    @property
    def id(self) -> str:
        """The id of the new run."""
        return self.run.id

    @cached_property
    def changes(self) -> tuple[TaskChange, ...]:
        """Each rerun task, before and after."""
        rows, origin = self.run.tasks(), self.origin.tasks()
        before = {(row["task_id"], row["trial"]): row for row in origin.filter(pc.is_in(origin["task_id"], pc.unique(rows["task_id"]))).to_pylist()}
        found = (_change(self.run.id, before[row["task_id"], row["trial"]], row) for row in rows.to_pylist())
        return tuple({**each, "word": WHAT_IF} if self.run.record.mode == WHAT_IF else each for each in found)

    @property
    def solved(self) -> int:
        """Tasks that did not pass before and pass now."""
        return sum(each["word"] == "solved" for each in self.changes)

    @property
    def newly_failing(self) -> int:
        """Tasks that passed before and do not pass now."""
        return sum(each["word"] == "newly failing" for each in self.changes)

    def paired(self, leaving_out: Iterable[str] = ()) -> "PairedResult":
        """
        Its tasks against their originals, pair by pair, with intervals once all are done.

        Args:
            leaving_out: Ids of tasks that do not count, such as the one by whose failure the change was found.
        """
        from beam_ray.api.prompt_tries import paired

        return paired(self, leaving_out)

    def display(self) -> Display:
        facts = (("reruns", self.origin.id), ("from", self.from_node), ("solved", self.solved), ("newly failing", self.newly_failing))
        rows = [(each["task"], each["before"]["score"], each["after"]["score"], each["word"]) for each in self.changes]
        return Display(self.run.id, facts, ("task", "before", "after", ""), rows)

    def document(self) -> RerunDocument:
        """The rerun as a JSON document."""
        return {
            **self.run.document(),
            "origin": self.origin.id,
            "from": self.from_node,
            "changed": list(self.run.record.changed),
            "changed_inputs": dict(self.run.record.changed_inputs),
            "tasks_redone": list(self.changes),
        }


def get_rerun(store: Location, name: str) -> Rerun:
    """See ``Store.get_rerun``."""
    run = get_run(store, name)
    record = run.record
    if record.origin is None or record.mode not in ("rerun", WHAT_IF):
        raise Unusable(f"run {run.id} reruns no other; it is a run of mode {record.mode!r}")
    return Rerun(run, Run(store, record.origin), record.start_node)


@dataclass(frozen=True)
class _Planned:
    origin: StoredRun
    plan: EnginePlan
    warnings: tuple[Problem, ...] = field(default=())


def plan_rerun(store: Location, tasks: Any, *, how: Rerunning | None = None) -> list[Plan]:
    """See ``Store.plan_rerun``."""
    plans = []
    for each in _planned(store, tasks, how or Rerunning(), None):
        seconds = time_of(each.plan, store.known_models, times_of(store, each.plan.workflow))
        plans.append(plan_of(each.plan, each.warnings, seconds))
    return plans


def rerun(
    store: Location, tasks: Any, *, how: Rerunning | None = None, budget: Budget | None = None, takeover: bool = False, progress: ProgressOption = None
) -> list[Rerun]:
    """See ``Store.rerun``."""
    how = how or Rerunning()
    done = list[Rerun]()
    with progress_callback(progress) as callback:
        # all are planned before the first one costs anything
        planned = list(_planned(store, tasks, how, checked_budget(budget) if budget else None))
        for each in planned:
            for warning in each.warnings:
                callback(Progress(message=str(warning)))
            probe_models(store, each.plan.workflow)
            if said := note_use(store.objects, each.plan.tasks, "rerun", [] if how.using == "original" else [each.plan.workflow]):
                callback(Progress(message=said))
            record = begin(store.objects, each.plan.record, each.plan.tasks)
            try:
                run = finish(store, record, takeover=takeover, callback=callback, keep_open=True)
            except Stopped as error:
                if len(planned) > 1:
                    error.resume = "the same command"
                raise
            done.append(Rerun(run, Run(store, each.origin.run_id), how.from_node))
    # killed before this, the same command finds those that are finished, and goes on with the others
    close(store.objects, *(each.run.record for each in done))
    return done


def _planned(store: Location, tasks: Any, how: Rerunning, budget: Mapping[str, float] | None) -> Iterable[_Planned]:
    objects = store.existing()
    options = RerunOptions(how.from_node, how.because, how.allow_writes, _inputs(how.inputs))
    for run_id, task_ids in _chosen(objects, tasks).items():
        origin = StoredRun(objects, run_id)
        workflow, version, warnings = _definition(store, origin, how.using)
        require_lane(store.lane, store.known_models, workflow.models)
        plan = make_rerun(objects, origin, task_ids, workflow, store.known_models, version=version, budget=budget, options=options)
        yield _Planned(origin, plan, warnings)


def _inputs(written: "Changes | str | Path | None") -> Changes:
    if isinstance(written, str | Path):
        return read_changes(Path(written))
    return written or {}


def _chosen(objects: Objects, tasks: Any) -> dict[str, list[str]]:
    """Run to the ids of its tasks that are meant."""
    if isinstance(tasks, Selection):
        if tasks.library:
            return _of_library(objects, tasks)
        if not tasks.run:
            raise Unusable("a selection is of a run or of a library; name one of them")
        return _of_run(objects, tasks)
    found: dict[str, list[str]] = {}
    for task in [tasks] if isinstance(tasks, str) or hasattr(tasks, "address") else tasks:
        address = find_task(objects, task if isinstance(task, str) else task.address)
        named = not isinstance(task, str) or "/" in task
        found.setdefault(address.run if named else _origin_of_begun(objects, address.run), []).append(address.task)
    if not found:
        raise Unusable("there are no tasks to rerun")
    return found


def _origin_of_begun(objects: Objects, run_id: str) -> str:
    """
    The run that the newest one, *run_id*, reruns, where it was begun by a command that did not come to its end; otherwise itself.

    A killed command that is given again so means the same tasks as before, and resumes.
    """
    run = StoredRun(objects, run_id)
    return run.origin or run_id if _is_begun(objects, run) else run_id


def _is_begun(objects: Objects, run: StoredRun) -> bool:
    """Whether it is a rerun of a command that did not come to its end."""
    return run.origin is not None and run.record.mode in ("rerun", WHAT_IF) and (not run.finished or unfinished(objects, run.record.key) is not None)


def _of_run(objects: Objects, wanted: Selection) -> dict[str, list[str]]:
    run_id = resolve(objects, str(wanted.run))
    run = StoredRun(objects, _origin_of_begun(objects, run_id) if wanted.run == "last" else run_id)
    if not run.finished:
        raise Unusable(f"run {run.run_id} is unfinished; only finished tasks can be rerun\n  beam-ray resume {run.run_id}  resumes it")
    found = select(run.outcome(), status=wanted.status, labels=wanted.labels, where=wanted.where)
    ids = dict.fromkeys(name for name in found["task_id"].to_pylist() if not wanted.tasks or name in wanted.tasks)
    if not ids:
        raise Unusable(f"no task of run {run.run_id} matches; there is nothing to rerun")
    return {run.run_id: list(ids)}


def _of_library(objects: Objects, wanted: Selection) -> dict[str, list[str]]:
    """A task's newest finished run with the same inputs counts."""
    library = str(wanted.library)
    saved, number = read_library(objects, library)
    left = dict(zip(saved["task_id"].to_pylist(), saved["inputs"].to_pylist(), strict=True))
    found: dict[str, list[str]] = {}
    for run in newest_first(objects):
        if not left or not run.finished or _is_begun(objects, run):
            continue
        outcome = run.outcome()
        there = dict(zip(outcome["task_id"].to_pylist(), outcome["inputs"].to_pylist(), strict=True))
        mine = [name for name, inputs in left.items() if there.get(name) == inputs]
        matching = set(select(outcome, status=wanted.status, labels=wanted.labels, where=wanted.where)["task_id"].to_pylist())
        found[run.run_id] = [name for name in mine if name in matching]
        left = {name: inputs for name, inputs in left.items() if name not in mine}
    if left:
        raise Unusable(
            f"no finished run has the task {next(iter(left))!r} of library {library.partition('@')[0]}@{number}\n"
            f"  beam-ray run WORKFLOW --tasks library:{library}  runs them all"
        )
    found = {run_id: names for run_id, names in found.items() if names}
    if not found:
        raise Unusable(f"no task of library {library} matches; there is nothing to rerun")
    return found


def _definition(store: Location, origin: StoredRun, using: WorkflowOption) -> tuple[Workflow, int | None, tuple[Problem, ...]]:
    if using == "original":
        return origin.record.plan, origin.record.version, ()
    if using == "published":
        try:
            found = check(origin.record.workflow, store)
        except Unusable as error:
            raise Unusable(f"{str(error).splitlines()[0]}\n  --using original  uses the definition of run {origin.run_id}; --using FILE uses a file") from None
        return found.workflow, found.version, ()
    found = check(using, store)
    if found.workflow.name != origin.record.workflow:
        named = using if isinstance(using, str | Path) else "it"
        raise Unusable(f"{named} is the workflow {found.workflow.name!r}, but run {origin.run_id} was of {origin.record.workflow!r}")
    return found.workflow, found.version, found.warnings


def _change(run_id: str, old: OutcomeRow, row: OutcomeRow) -> TaskChange:
    before, after = status_of(old), status_of(row)
    return {
        "task": str(Address(run_id, row["task_id"], row["trial"])),
        "before": {"status": before, "score": old["score"], "routes": old["routes"]},
        "after": {"status": after, "score": row["score"], "routes": row["routes"]},
        "word": solved(before, after),
        "calls": row["calls"],
        "usd": row["usd"],
    }
