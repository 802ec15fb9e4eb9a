"""
What the runs of one definition did: each task with its time, each step that may be tried again with its tries.

Only ordinary runs and the sides of backtests count. Reruns and repeats do not: their tasks
were chosen for what became of them, and say nothing of the others. An execution that several runs hold, because they
borrow it, counts once.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.compare.pairs import UNAVAILABLE
from beam_ray.define.workflow import Workflow
from beam_ray.store.lookup import newest_first
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

COUNTED = ("run", "baseline", "candidate")
"""Kinds of runs whose tasks were not chosen for what became of them."""

_STEP = ["task_id", "trial", "outcome", "score", "first_score", "passed", "borrowed_from", "error_type", "attempts"]
_TASK = ["task_id", "trial", "inputs", "passed", "work_seconds", "auto_reruns", "steps_done", "steps_failed"]


@dataclass(frozen=True)
class Step:
    """One step that may be tried again, as it was executed for one task."""

    address: Address
    auto_reruns: int
    """Readable answers beyond the first."""
    first: float | None
    final: float | None
    passed: bool | None
    told: bool
    """Whether its quality is known: its model answered, and some answer was scored or could not be read."""


@dataclass(frozen=True)
class Task:
    """One task, as it was executed once."""

    address: Address
    inputs: str
    seconds: float
    """In models and tools, whoever paid."""
    auto_reruns: int
    passed: bool
    away: bool
    """A model gave no answer within its deadline; that is no fault of the workflow."""
    told: bool
    """Whether it is known of every step that may be tried again if it had to be."""

    @property
    def key(self) -> tuple[str, str]:
        """Which task it is; the same id with other inputs is another one."""
        return self.address.task, self.inputs


@dataclass(frozen=True)
class Executions:
    """What some runs of one definition did."""

    runs: tuple[str, ...]
    """The newest first."""
    tasks: tuple[Task, ...]
    steps: dict[str, tuple[Step, ...]]
    """Of each node with auto-rerun."""


def runs_of(objects: Objects, workflow: Workflow, *, since: str = "", last: int | None = None) -> list[Run]:
    """The finished runs of this very definition that count, the newest first; from the day *since* on, at most *last*."""
    found = []
    for run in newest_first(objects):
        record = run.record
        fits = record.definition_digest == workflow.digest and record.workflow == workflow.name
        if fits and record.mode in COUNTED and not record.ruler_only and record.created_at >= since and run.finished:
            found.append(run)
    return found[:last]


def executions(runs: Iterable[Run], workflow: Workflow) -> Executions:
    """
    What the *runs* did; the oldest is read first, so that an execution is its own run's.

    Raises:
        Damaged: stored rows are not what was written.
    """
    names: list[str] = []
    tasks: list[Task] = []
    steps: dict[str, list[Step]] = {name: [] for name in workflow.order if workflow.nodes[name].auto_rerun}
    seen: set[str] = set()
    for run in sorted(runs, key=lambda each: each.record.created_at):
        names.insert(0, run.run_id)
        unknown: set[tuple[str, int]] = set()
        for node, found in steps.items():
            for source, step in _steps(run, node):
                if not step.told:
                    unknown.add((step.address.task, step.address.trial))
                if source not in seen:
                    seen.add(source)
                    found.append(step)
        tasks += _tasks(run, _away(run), unknown)
    return Executions(tuple(names), tuple(tasks), {node: tuple(found) for node, found in steps.items()})


def _tasks(run: Run, away: set[tuple[str, int]], unknown: set[tuple[str, int]]) -> Iterator[Task]:
    for row in run.outcome(_TASK).to_pylist():
        if not row["steps_done"] + row["steps_failed"]:
            continue  # all of it is borrowed: another run's execution
        key = (row["task_id"], row["trial"])
        gone = key in away
        yield Task(
            address=Address(run.run_id, *key),
            inputs=row["inputs"] or "",
            seconds=row["work_seconds"],
            auto_reruns=row["auto_reruns"],
            passed=bool(row["passed"]),
            away=gone,
            told=not gone and key not in unknown,
        )


def _away(run: Run) -> set[tuple[str, int]]:
    """The tasks that a model left without an answer."""
    steps = run.steps(columns=["task_id", "trial", "outcome", "error_type"])
    gone = steps.filter(pc.and_(pc.equal(steps["outcome"], "failed"), pc.equal(pc.fill_null(steps["error_type"], ""), UNAVAILABLE)))
    return set(zip(gone["task_id"].to_pylist(), gone["trial"].to_pylist(), strict=True))


def _steps(run: Run, node: str) -> Iterator[tuple[str, Step]]:
    """The node's steps that were executed, or borrowed, each with the address of its execution."""
    table = run.steps([node], _STEP)
    for batch in table.filter(pc.not_equal(table["outcome"], "skipped")).to_batches(max_chunksize=5_000):
        readable, scored = _answers(batch.column("attempts"))
        for row, answers, scores in zip(batch.drop_columns(["attempts"]).to_pylist(), readable, scored, strict=True):
            address = Address(run.run_id, row["task_id"], row["trial"], node)
            told = row["error_type"] != UNAVAILABLE and (scores > 0 or answers == 0)
            again = max(int(answers) - 1, 0)
            yield row["borrowed_from"] or str(address), Step(address, again, row["first_score"], row["score"], row["passed"], told)


def _answers(attempts: pa.Array) -> tuple[Any, Any]:
    """For each step how many attempts gave an answer that could be read, and how many of those were scored."""
    parents, flat = pc.list_parent_indices(attempts), pc.list_flatten(attempts)
    readable = pc.is_null(pc.struct_field(flat, "error"))
    scored = pc.and_(readable, pc.is_valid(pc.struct_field(flat, "score")))
    count = len(attempts)
    first, second = (np.bincount(np.asarray(parents.filter(mask)), minlength=count) for mask in (readable, scored))
    return first, second
