"""
The rerun ledger of a workflow: which tasks were rerun and why, what had changed, what it cost and what it improved.

A task counts once however often it is rerun: its result before its first rerun is compared with
its result after the newest. The cost of every rerun counts. A task for which a model did not
answer counts neither as solved nor as worse. A task that was judged by different criteria before
and after is left out of the points, because its two scores are not comparable.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TypedDict, cast

from beam_ray.address import Address
from beam_ray.define.diff import changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.improve.failure_groups import CachedRun, Failure, Kind, TaskResult
from beam_ray.rerun import solved
from beam_ray.store.objects import Objects
from beam_ray.store.run_index import all_runs

Key = tuple[str, str, int]
"""A task's id, the digest of its inputs, and the trial: the same id with other inputs is another task."""


@dataclass(frozen=True)
class RedoneTask:
    """One task in one rerun."""

    task: str
    origin: str
    key: Key
    before: TaskResult | None
    """None when the origin is no longer in the store."""
    after: TaskResult | None
    """None while the rerun is not finished."""
    word: str
    """solved, not solved, still passes, newly failing, model away, running, or unknown without the origin."""
    calls: int
    usd: float | None
    """None when a model has no price."""


@dataclass(frozen=True)
class FieldChange:
    """One field of the definition that differs from the original run's."""

    name: str
    diff: str


@dataclass(frozen=True)
class Rerun:
    """One rerun: a run that reruns tasks of another run."""

    run_id: str
    started: str
    origin: str
    start: str | None
    version: int | None
    because: str
    changed: tuple[FieldChange, ...]
    same_criteria: bool
    """Whether the rerun used the original run's criteria."""
    tasks: tuple[RedoneTask, ...]

    def count(self, word: str) -> int:
        """Number of tasks with this result."""
        return sum(task.word == word for task in self.tasks)

    @property
    def usd(self) -> float | None:
        """Cost in US dollars; None when a model has no price."""
        return _sum(task.usd for task in self.tasks)


@dataclass(frozen=True)
class Pattern:
    """Tasks that failed for the same reason before they were rerun."""

    failure: Failure
    tasks: tuple[str, ...]
    """Addresses of the failed originals."""
    passing: int
    """Number of these tasks that pass after their newest rerun."""


@dataclass(frozen=True)
class Totals:
    """Cost and effect of all reruns; each task counts once."""

    tasks: int
    solved: int
    unchanged: int
    """Solved tasks whose rerun changed nothing: chance, or a temporary fault."""
    recovered: int
    """Solved tasks that had failed only because a model did not answer."""
    newly_failing: int
    away: int
    """Tasks whose result is unknown because a model did not answer in any rerun."""
    other_criteria: int
    """Tasks judged by different criteria now; counted neither as solved nor in the points."""
    points: float | None
    """Sum of all score changes (0 to 100 scale); None when no task has a score before and after."""
    scored: int
    calls: int
    usd: float | None
    """Total cost; None when any rerun used a model without a price."""
    unpriced: int
    """Number of reruns that used a model without a price."""

    @property
    def solved_per_usd(self) -> float | None:
        """Solved tasks per US dollar; None where the cost is unknown or 0."""
        return self.solved / self.usd if self.usd else None

    @property
    def points_per_usd(self) -> float | None:
        """Score points gained per US dollar; None where the cost is unknown or 0, or there is no score."""
        return self.points / self.usd if self.usd and self.points is not None else None


class FieldChangeDocument(TypedDict):
    """A changed field as JSON."""

    name: str
    diff: str


class FailureDocument(TypedDict):
    """A reason for failing as JSON."""

    node: str
    kind: Kind
    what: str
    text: str


class TaskResultDocument(TypedDict):
    """The result of a task in one run as JSON."""

    status: str
    score: float | None
    failures: Sequence[FailureDocument]


class TaskKeyDocument(TypedDict):
    """Which task it is, as JSON."""

    task_id: str
    inputs: str
    trial: int


class RedoneTaskDocument(TypedDict):
    """One task in one rerun as JSON."""

    task: str
    origin: str
    key: TaskKeyDocument
    before: TaskResultDocument | None
    after: TaskResultDocument | None
    word: str
    calls: int
    usd: float | None


class RerunDocument(TypedDict):
    """One rerun as JSON."""

    run_id: str
    started: str
    origin: str
    start: str | None
    version: int | None
    because: str
    changed: Sequence[FieldChangeDocument]
    tasks: Sequence[RedoneTaskDocument]
    usd: float | None
    same_ruler: bool


class PatternDocument(TypedDict):
    """Tasks that failed for the same reason, as JSON."""

    failure: FailureDocument
    tasks: Sequence[str]
    passing: int


class TotalsDocument(TypedDict):
    """Cost and effect of all reruns as JSON."""

    tasks: int
    solved: int
    unchanged: int
    recovered: int
    newly_failing: int
    away: int
    other_criteria: int
    points: float | None
    scored: int
    calls: int
    usd: float | None
    unpriced: int
    solved_per_usd: float | None
    points_per_usd: float | None


class LedgerDocument(TypedDict):
    """A ledger as JSON; fields keep the names of 0.1."""

    workflow: str
    reruns: Sequence[RerunDocument]
    patterns: Sequence[PatternDocument]
    bought: TotalsDocument


@dataclass(frozen=True)
class Ledger:
    """All reruns of a workflow. ``document()`` is plain JSON."""

    workflow: str
    reruns: tuple[Rerun, ...]
    """Oldest first."""
    patterns: tuple[Pattern, ...]
    """Largest first."""
    totals: Totals

    def document(self) -> LedgerDocument:
        """The ledger as a JSON document."""
        document = asdict(self)
        document["bought"] = document.pop("totals") | {"solved_per_usd": self.totals.solved_per_usd, "points_per_usd": self.totals.points_per_usd}
        for rerun, written in zip(self.reruns, document["reruns"], strict=True):
            written |= {"usd": rerun.usd, "same_ruler": written.pop("same_criteria")}  # the name that 0.1 gave it
            for task in written["tasks"]:
                task["key"] = dict(zip(("task_id", "inputs", "trial"), task["key"], strict=True))
        return cast(LedgerDocument, document)


def ledger(objects: Objects, workflow: str) -> Ledger:
    """
    The ledger of all reruns of a workflow, over all its versions.

    Raises:
        Unusable: There is no run of a workflow of that name.
    """
    runs = {run.run_id: CachedRun(run) for run in all_runs(objects)}
    of_it = [cached for cached in runs.values() if cached.run.workflow == workflow]
    if not of_it:
        known = sorted({cached.run.workflow for cached in runs.values()})
        raise Unusable(
            "\n  ".join(
                [f"no run of a workflow {workflow!r} in {objects.uri}", f"workflows with runs: {', '.join(known) or 'none'}", *did_you_mean(workflow, known)]
            )
        )
    redone = sorted((cached for cached in of_it if cached.run.record.mode == "rerun" and cached.has_tasks), key=lambda cached: cached.run.record.created_at)
    reruns = tuple(_rerun(cached, runs.get(cached.run.record.origin or "")) for cached in redone)
    return Ledger(workflow, reruns, _patterns(reruns), _totals(reruns, runs))


def _rerun(cached: CachedRun, origin: CachedRun | None) -> Rerun:
    run, record = cached.run, cached.run.record
    ids = run.tasks().select(["task_id", "inputs"]).to_pylist()
    keys = [(row["task_id"], trial) for row in ids for trial in range(1, record.trials + 1)]
    inputs = {row["task_id"]: row["inputs"] for row in ids}
    after, before = cached.states(keys), origin.states(keys) if origin else {}
    tasks = []
    for task, trial in keys:
        outcome = cached.outcome.get((task, trial))
        here = (before.get((task, trial)), after.get((task, trial)))
        tasks.append(
            RedoneTask(
                str(Address(run.run_id, task, trial)),
                str(Address(record.origin or "", task, trial)),
                (task, inputs[task], trial),
                *here,
                _outcome_word(*here),
                outcome["calls"] if outcome else 0,
                outcome["usd"] if outcome else 0.0,
            )
        )
    return Rerun(
        run.run_id,
        record.created_at[:16].replace("T", " "),
        record.origin or "",
        record.start_node,
        record.version,
        record.because,
        _changed(origin.run.record.plan, record.plan) if origin else tuple(FieldChange(name, "") for name in record.changed),
        origin is None or origin.criteria_fingerprint == cached.criteria_fingerprint,
        tuple(tasks),
    )


def _changed(before: Workflow, after: Workflow) -> tuple[FieldChange, ...]:
    return tuple(FieldChange(str(change), change.text_diff) for change in changes(before, after))


def _outcome_word(before: TaskResult | None, after: TaskResult | None) -> str:
    if after is None:
        return "running"
    if after.model_unavailable:
        return "model away"
    return solved(before.status, after.status) if before else "unknown"


def _patterns(reruns: Sequence[Rerun]) -> tuple[Pattern, ...]:
    failed: dict[Failure, dict[Key, str]] = {}
    for rerun in reruns:
        for task in rerun.tasks:
            for failure in task.before.failures if task.before else ():
                failed.setdefault(failure, {}).setdefault(task.key, task.origin)
    now = {key: state for key, (_, _, state) in _first_and_now(reruns).items()}
    found = [Pattern(failure, tuple(tasks.values()), sum(key in now and now[key].status == "passed" for key in tasks)) for failure, tasks in failed.items()]
    return tuple(sorted(found, key=lambda pattern: (-len(pattern.tasks), pattern.failure)))


def _first_and_now(reruns: Sequence[Rerun]) -> dict[Key, tuple[tuple[str, TaskResult], Rerun, TaskResult]]:
    """Each task's result before its first rerun (with that run's id) and after its newest rerun with a known result."""
    first: dict[Key, tuple[str, TaskResult]] = {}
    found: dict[Key, tuple[tuple[str, TaskResult], Rerun, TaskResult]] = {}
    for rerun in reruns:
        for task in rerun.tasks:
            if task.before:
                first.setdefault(task.key, (rerun.origin, task.before))
            if task.after and not task.after.model_unavailable and task.key in first:
                found[task.key] = (first[task.key], rerun, task.after)
    return found


def _totals(reruns: Sequence[Rerun], runs: Mapping[str, CachedRun]) -> Totals:
    keys = {task.key for rerun in reruns for task in rerun.tasks if task.after}
    first_and_now = _first_and_now(reruns)
    solved_, unchanged, recovered, worse, other, points = 0, 0, 0, 0, 0, list[float]()
    for (origin, before), rerun, after in first_and_now.values():
        if runs[origin].criteria_fingerprint != runs[rerun.run_id].criteria_fingerprint:
            other += 1
            continue
        better = before.status != "passed" and after.status == "passed"
        solved_ += better
        recovered += better and before.model_unavailable
        unchanged += better and not before.model_unavailable and not rerun.changed
        worse += before.status == "passed" and after.status != "passed"
        if before.score is not None and after.score is not None and not before.model_unavailable:
            points.append(after.score - before.score)
    entries = [task for rerun in reruns for task in rerun.tasks]
    return Totals(
        len(keys),
        solved_,
        unchanged,
        recovered,
        worse,
        len({task.key for task in entries if task.word == "model away"} - set(first_and_now)),
        other,
        math.fsum(points) if points else None,
        len(points),
        sum(task.calls for task in entries),
        _sum(task.usd for task in entries),
        sum(rerun.usd is None for rerun in reruns),
    )


def _sum(amounts: Iterable[float | None]) -> float | None:
    """The sum; None when any amount is unknown."""
    known = list(amounts)
    return None if any(usd is None for usd in known) else math.fsum(usd for usd in known if usd is not None)
