"""
The executions of one definition: each task with its duration, each auto-rerun step with its attempts.

Only ordinary runs and the sides of backtests count. Reruns and repeats do not: their tasks were
selected by their results, so they are not representative. An execution that several runs
borrow counts once.
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
"""Modes of runs whose tasks were not selected by their results."""

_STEP = ["task_id", "trial", "outcome", "score", "first_score", "passed", "borrowed_from", "error_type", "attempts"]
_TASK = ["task_id", "trial", "inputs", "passed", "work_seconds", "auto_reruns", "steps_done", "steps_failed"]


@dataclass(frozen=True)
class StepExecution:
    """One execution of a step that has auto-reruns."""

    address: Address
    auto_reruns: int
    """Number of valid answers after the first."""
    first: float | None
    final: float | None
    passed: bool | None
    known: bool
    """Whether the step could be judged: the model answered, and an answer was scored or was invalid."""


@dataclass(frozen=True)
class TaskExecution:
    """One execution of a task."""

    address: Address
    inputs: str
    seconds: float
    """Time in models and tools, including borrowed steps."""
    auto_reruns: int
    passed: bool
    model_unavailable: bool
    """Whether a model did not answer within its deadline, which is not the workflow's fault."""
    known: bool
    """Whether every auto-rerun step of the task could be judged."""

    @property
    def key(self) -> tuple[str, str]:
        """Identifies the task: the same id with other inputs is another task."""
        return self.address.task, self.inputs


@dataclass(frozen=True)
class Executions:
    """The executions of some runs of one definition."""

    runs: tuple[str, ...]
    """Run ids, newest first."""
    tasks: tuple[TaskExecution, ...]
    steps: dict[str, tuple[StepExecution, ...]]
    """By node, for nodes with auto-reruns."""


def runs_of(objects: Objects, workflow: Workflow, *, since: str = "", last: int | None = None) -> list[Run]:
    """The finished runs of exactly this definition that count, newest first: those since the date *since*, at most *last* of them."""
    found = []
    digest = workflow.digest
    for run in newest_first(objects):
        if run.definition_digest != digest or run.workflow != workflow.name:
            continue
        record = run.record
        if record.mode in COUNTED and not record.ruler_only and not record.recorded and record.created_at >= since and run.finished:
            found.append(run)
    return found[:last]


def executions(runs: Iterable[Run], workflow: Workflow) -> Executions:
    """
    The executions in *runs*. Runs are read oldest first, so that a borrowed execution belongs to the run that made it.

    Raises:
        Damaged: A stored file is damaged.
    """
    names: list[str] = []
    tasks: list[TaskExecution] = []
    steps: dict[str, list[StepExecution]] = {name: [] for name in workflow.order if workflow.nodes[name].auto_rerun}
    seen: set[str] = set()
    for run in sorted(runs, key=lambda each: each.record.created_at):
        names.insert(0, run.run_id)
        unknown: set[tuple[str, int]] = set()
        for node, found in steps.items():
            for source, step in _steps(run, node):
                if not step.known:
                    unknown.add((step.address.task, step.address.trial))
                if source not in seen:
                    seen.add(source)
                    found.append(step)
        tasks += _tasks(run, unanswered(run), unknown)
    return Executions(tuple(names), tuple(tasks), {node: tuple(found) for node, found in steps.items()})


def _tasks(run: Run, model_unavailable: set[tuple[str, int]], unknown: set[tuple[str, int]]) -> Iterator[TaskExecution]:
    for row in run.outcome(_TASK).to_pylist():
        if not row["steps_done"] + row["steps_failed"]:
            continue  # every step is borrowed, so this is another run's execution
        key = (row["task_id"], row["trial"])
        gone = key in model_unavailable
        yield TaskExecution(
            address=Address(run.run_id, *key),
            inputs=row["inputs"] or "",
            seconds=row["work_seconds"],
            auto_reruns=row["auto_reruns"],
            passed=bool(row["passed"]),
            model_unavailable=gone,
            known=not gone and key not in unknown,
        )


def unanswered(run: Run) -> set[tuple[str, int]]:
    """The tasks and trials of the run for which a model did not answer."""
    if run.usage and not run.usage["steps_failed"]:
        return set()
    steps = run.steps(columns=["task_id", "trial", "outcome", "error_type"])
    gone = steps.filter(pc.and_(pc.equal(steps["outcome"], "failed"), pc.equal(pc.fill_null(steps["error_type"], ""), UNAVAILABLE)))
    return set(zip(gone["task_id"].to_pylist(), gone["trial"].to_pylist(), strict=True))


def _steps(run: Run, node: str) -> Iterator[tuple[str, StepExecution]]:
    """The node's executed or borrowed steps, each with the address of its original execution."""
    table = run.steps([node], _STEP)
    for batch in table.filter(pc.not_equal(table["outcome"], "skipped")).to_batches(max_chunksize=5_000):
        readable, scored = _answers(batch.column("attempts"))
        for row, answers, scores in zip(batch.drop_columns(["attempts"]).to_pylist(), readable, scored, strict=True):
            address = Address(run.run_id, row["task_id"], row["trial"], node)
            known = row["error_type"] != UNAVAILABLE and (scores > 0 or answers == 0)
            again = max(int(answers) - 1, 0)
            yield row["borrowed_from"] or str(address), StepExecution(address, again, row["first_score"], row["score"], row["passed"], known)


def _answers(attempts: pa.Array) -> tuple[Any, Any]:
    """Per step, the number of attempts with a valid answer, and how many of those were scored."""
    parents, flat = pc.list_parent_indices(attempts), pc.list_flatten(attempts)
    readable = pc.is_null(pc.struct_field(flat, "error"))
    scored = pc.and_(readable, pc.is_valid(pc.struct_field(flat, "score")))
    count = len(attempts)
    first, second = (np.bincount(np.asarray(parents.filter(mask)), minlength=count) for mask in (readable, scored))
    return first, second
