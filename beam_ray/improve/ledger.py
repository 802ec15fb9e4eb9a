"""
The rerun ledger of a workflow: which tasks were redone and why, what had changed, and what that bought.

A task counts once however often it is redone: as it was before its first rerun, and as it is
after its newest one. Every rerun's money counts. A task that a model left without an answer
is neither solved nor worse, and one that is judged by other criteria than before gains no
points: that would be another ruler, and not a better workflow.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from beam_ray.address import Address
from beam_ray.define.diff import changes
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.improve.failure_groups import Failure, Kept, State
from beam_ray.rerun import solved
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, find_runs

Key = tuple[str, str, int]
"""A task's id, the digest of its inputs, and the trial: the same id with other inputs is another task."""


@dataclass(frozen=True)
class Redone:
    """One task, redone once."""

    task: str
    origin: str
    key: Key
    before: State | None
    """None when the origin is no longer in the store."""
    after: State | None
    """None while the rerun goes on."""
    word: str
    """solved, not solved, still passes, newly failing, model away, running, or unknown without the origin."""
    calls: int
    usd: float | None
    """None when a model has no price."""


@dataclass(frozen=True)
class Changed:
    """One field that differed from the origin's definition."""

    name: str
    diff: str


@dataclass(frozen=True)
class Rerun:
    """One rerun: a run that redoes tasks of another."""

    run_id: str
    started: str
    origin: str
    start: str | None
    version: int | None
    because: str
    changed: tuple[Changed, ...]
    same_ruler: bool
    """Whether it was judged by the origin's criteria."""
    tasks: tuple[Redone, ...]

    def count(self, word: str) -> int:
        """How many of its tasks came out so."""
        return sum(task.word == word for task in self.tasks)

    @property
    def usd(self) -> float | None:
        """What it cost; None when a model has no price."""
        return _sum(task.usd for task in self.tasks)


@dataclass(frozen=True)
class Pattern:
    """Tasks that failed alike before they were redone."""

    failure: Failure
    tasks: tuple[str, ...]
    """As they failed: addresses."""
    passing: int
    """How many of them pass after their newest rerun."""


@dataclass(frozen=True)
class Bought:
    """What all reruns cost and brought, each task once."""

    tasks: int
    solved: int
    unchanged: int
    """Of the solved: by a rerun that changed nothing. Chance, or a fault that went away by itself."""
    recovered: int
    """Of the solved: had failed because a model did not answer, and now got its answer."""
    newly_failing: int
    away: int
    """Tasks that no rerun can tell of, because a model did not answer."""
    other_criteria: int
    """Tasks that are judged by other criteria now, and so count neither as solved nor in the points."""
    points: float | None
    """The sum of all changes of score; None when no task has a score on both sides."""
    scored: int
    calls: int
    usd: float | None
    """None when any rerun asked a model without a price."""
    unpriced: int
    """Reruns without a price."""

    @property
    def solved_per_usd(self) -> float | None:
        """Solved tasks for a dollar; None where there is no price, or nothing was spent."""
        return self.solved / self.usd if self.usd else None

    @property
    def points_per_usd(self) -> float | None:
        """Points of score for a dollar; None where there is no price, no score, or nothing was spent."""
        return self.points / self.usd if self.usd and self.points is not None else None


@dataclass(frozen=True)
class Ledger:
    """All reruns of a workflow. ``document()`` is plain JSON."""

    workflow: str
    reruns: tuple[Rerun, ...]
    """The oldest first."""
    patterns: tuple[Pattern, ...]
    """The biggest first."""
    bought: Bought

    def document(self) -> dict[str, Any]:
        """Everything as plain JSON."""
        document = asdict(self)
        document["bought"] |= {"solved_per_usd": self.bought.solved_per_usd, "points_per_usd": self.bought.points_per_usd}
        for rerun, written in zip(self.reruns, document["reruns"], strict=True):
            written["usd"] = rerun.usd
            for task in written["tasks"]:
                task["key"] = dict(zip(("task_id", "inputs", "trial"), task["key"], strict=True))
        return document


def ledger(objects: Objects, workflow: str) -> Ledger:
    """
    The ledger of all reruns of the workflow of that name, of any version.

    Raises:
        Unusable: no run is of such a workflow.
    """
    runs = {run_id: Kept(Run(objects, run_id)) for run_id in find_runs(objects)}
    of_it = [kept for kept in runs.values() if kept.run.record.workflow == workflow]
    if not of_it:
        known = sorted({kept.run.record.workflow for kept in runs.values()})
        raise Unusable(
            "\n  ".join(
                [f"no run in {objects.uri} is of a workflow {workflow!r}", f"there are runs of: {', '.join(known) or 'none'}", *did_you_mean(workflow, known)]
            )
        )
    redone = sorted((kept for kept in of_it if kept.run.record.mode == "rerun" and kept.begun), key=lambda kept: kept.run.record.created_at)
    reruns = tuple(_rerun(kept, runs.get(kept.run.record.origin or "")) for kept in redone)
    return Ledger(workflow, reruns, _patterns(reruns), _bought(reruns, runs))


def _rerun(kept: Kept, origin: Kept | None) -> Rerun:
    run, record = kept.run, kept.run.record
    ids = run.tasks().select(["task_id", "inputs"]).to_pylist()
    keys = [(row["task_id"], trial) for row in ids for trial in range(1, record.trials + 1)]
    inputs = {row["task_id"]: row["inputs"] for row in ids}
    after, before = kept.states(keys), origin.states(keys) if origin else {}
    tasks = []
    for task, trial in keys:
        paid = kept.outcome.get((task, trial), {"calls": 0, "usd": 0.0})
        here = (before.get((task, trial)), after.get((task, trial)))
        tasks.append(
            Redone(
                str(Address(run.run_id, task, trial)),
                str(Address(record.origin or "", task, trial)),
                (task, inputs[task], trial),
                *here,
                _word(*here),
                paid["calls"],
                paid["usd"],
            )
        )
    return Rerun(
        run.run_id,
        record.created_at[:16].replace("T", " "),
        record.origin or "",
        record.start_node,
        record.version,
        record.because,
        _changed(origin.run.record.plan, record.plan) if origin else tuple(Changed(name, "") for name in record.changed),
        origin is None or origin.ruler == kept.ruler,
        tuple(tasks),
    )


def _changed(before: Workflow, after: Workflow) -> tuple[Changed, ...]:
    return tuple(Changed(str(change), change.text_diff) for change in changes(before, after))


def _word(before: State | None, after: State | None) -> str:
    if after is None:
        return "running"
    if after.away:
        return "model away"
    return solved({"status": before.status}, {"status": after.status}) if before else "unknown"


def _patterns(reruns: Sequence[Rerun]) -> tuple[Pattern, ...]:
    failed: dict[Failure, dict[Key, str]] = {}
    for rerun in reruns:
        for task in rerun.tasks:
            for failure in task.before.failures if task.before else ():
                failed.setdefault(failure, {}).setdefault(task.key, task.origin)
    now = {key: state for key, (_, _, state) in _first_and_now(reruns).items()}
    found = [Pattern(failure, tuple(tasks.values()), sum(key in now and now[key].status == "passed" for key in tasks)) for failure, tasks in failed.items()]
    return tuple(sorted(found, key=lambda pattern: (-len(pattern.tasks), pattern.failure)))


def _first_and_now(reruns: Sequence[Rerun]) -> dict[Key, tuple[tuple[str, State], Rerun, State]]:
    """Each task as it was before its first rerun (and in which run), and as its newest rerun that can tell left it."""
    first: dict[Key, tuple[str, State]] = {}
    found: dict[Key, tuple[tuple[str, State], Rerun, State]] = {}
    for rerun in reruns:
        for task in rerun.tasks:
            if task.before:
                first.setdefault(task.key, (rerun.origin, task.before))
            if task.after and not task.after.away and task.key in first:
                found[task.key] = (first[task.key], rerun, task.after)
    return found


def _bought(reruns: Sequence[Rerun], runs: Mapping[str, Kept]) -> Bought:
    keys = {task.key for rerun in reruns for task in rerun.tasks if task.after}
    told = _first_and_now(reruns)
    solved_, unchanged, recovered, worse, other, points = 0, 0, 0, 0, 0, list[float]()
    for (origin, before), rerun, after in told.values():
        if runs[origin].ruler != runs[rerun.run_id].ruler:
            other += 1
            continue
        better = before.status != "passed" and after.status == "passed"
        solved_ += better
        recovered += better and before.away
        unchanged += better and not before.away and not rerun.changed
        worse += before.status == "passed" and after.status != "passed"
        if before.score is not None and after.score is not None and not before.away:
            points.append(after.score - before.score)
    entries = [task for rerun in reruns for task in rerun.tasks]
    return Bought(
        len(keys),
        solved_,
        unchanged,
        recovered,
        worse,
        len({task.key for task in entries if task.word == "model away"} - set(told)),
        other,
        math.fsum(points) if points else None,
        len(points),
        sum(task.calls for task in entries),
        _sum(task.usd for task in entries),
        sum(rerun.usd is None for rerun in reruns),
    )


def _sum(amounts: Iterable[float | None]) -> float | None:
    """The sum; None as soon as one is unknown."""
    known = list(amounts)
    return None if any(usd is None for usd in known) else math.fsum(usd for usd in known if usd is not None)
