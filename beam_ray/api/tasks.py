"""Tasks of runs: the result of each, step by step and attempt by attempt."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.api.display import Display, Displayed
from beam_ray.api.location import Location
from beam_ray.api.runs import Run, get_run, runs
from beam_ray.api.steps import Step, StepDocument, step_of
from beam_ray.define.fingerprint import Json
from beam_ray.errors import Unusable
from beam_ray.store.attachments import read_bytes
from beam_ray.store.lookup import find_runs, find_task, select, status_of
from beam_ray.store.tables import OUTCOME, OutcomeRow, StepRow, TaskRow
from beam_ray.tasks.messages import MessageDocument, as_values

if TYPE_CHECKING:
    from beam_ray.api.calls import Call
    from beam_ray.api.prompts import SentPrompt

LISTED = (
    "run_id",
    "task_id",
    "trial",
    "outcome",
    "passed",
    "score",
    "first_score",
    "labels",
    "routes",
    "auto_reruns",
    "review",
    "seconds",
    "calls",
    "usd",
    "started_at",
    "error",
)
"""Columns of a list of tasks."""


class RunContext(TypedDict):
    """What ``beam-ray show --json`` prints of the task's run."""

    run_id: str
    workflow: str
    version: int | None
    origin: str | None
    start_node: str | None
    mode: str
    because: str
    finished: bool


class InputChange(TypedDict):
    """A field of a task's input that was changed for a rerun."""

    before: Json
    after: Json


class TaskDocument(TypedDict):
    """A task as ``--json`` prints it."""

    task: str
    run: RunContext
    changed_inputs: dict[str, InputChange]
    steps: list[StepDocument]


@dataclass(frozen=True, repr=False)
class Task(Displayed):
    """The result of one task in one run."""

    run: Run
    id: str
    trial: int = 1
    node: str | None = field(default=None, compare=False)
    """The node that the address named; None where it named the task."""

    @property
    def address(self) -> str:
        """``RUN/TASK``, with ``#TRIAL`` from the second trial on; names the task in every command."""
        return str(Address(self.run.id, self.id, self.trial))

    @cached_property
    def given(self) -> TaskRow:
        """The task as it was given: task_query, variables, expected, labels, attachments, ..."""
        given = self.run.given_row(self.id)
        if given is None:
            raise Unusable(f"run {self.run.id} has no task {self.id!r}\n  beam-ray tasks --run {self.run.id}  lists them")
        return given

    @cached_property
    def messages(self) -> tuple[MessageDocument, ...]:
        """The turns of the conversation before the query: role and text, with tool calls in words."""
        return tuple(as_values(json.loads(self.given["messages"] or "[]")))

    @cached_property
    def outcome(self) -> OutcomeRow | None:
        """The task's row of the run's outcome; None while the task is not done."""
        return self.run.outcome_row(self.id, self.trial)

    @cached_property
    def changed_inputs(self) -> Mapping[str, InputChange]:
        """Changed input fields of a rerun task, with the value before and after; empty where the input is the same."""
        found: dict[str, InputChange] = json.loads(self.given["changed_inputs"] or "{}")
        return found

    @property
    def origin(self) -> str | None:
        """Address of the task that this one redoes, or was saved from; None where it is neither."""
        return self.given["origin"]

    @property
    def status(self) -> str:
        """passed, below, failed, or running."""
        return status_of(self.outcome) if self.outcome else "running"

    @property
    def score(self) -> float | None:
        """Mean score of the scored steps, 0 to 100; None when none is scored."""
        return self.outcome["score"] if self.outcome else None

    @cached_property
    def steps(self) -> tuple[Step, ...]:
        """The steps in execution order; of an unfinished run those that are stored so far."""
        return tuple(step_of(row, self.run) for row in _rows(self.run, self.id, self.trial))

    def prompt(self, node: str, attempt: int = 1) -> "SentPrompt":
        """
        The messages that a node's model got for this task.

        Raises:
            Unusable: the workflow has no such node, it is a tool, or the step is not stored yet.
        """
        from beam_ray.api.prompts import sent_prompt

        return sent_prompt(self, node, attempt)

    def attachment(self, number: int) -> bytes:
        """
        The content of the task's attachment of that number, from 1.

        Raises:
            Unusable: the task has no such attachment.
            Damaged: its content is gone, or is not what was kept.
        """
        entries = self.given["attachments"] or []
        if not 1 <= number <= len(entries):
            raise Unusable(f"the task {self.address} has no attachment {number}; it has {len(entries)}")
        return read_bytes(entries[number - 1]["sha256"], self.run.stored.objects, f" ({entries[number - 1]['name']})")

    def calls(self, node: str) -> "tuple[Call, ...]":
        """
        The calls that an agent or a program made to models and tools, by attempt and number; of a borrowed step those of the step it is borrowed from.

        Raises:
            Unusable: the workflow has no such node, or the step is not stored yet.
        """
        from beam_ray.api.calls import step_calls

        return step_calls(self, node)

    def step(self, node: str) -> Step:
        """
        The step of one node.

        Raises:
            Unusable: the workflow has no such node, or the step is not stored yet.
        """
        order = self.run.workflow.order
        if node not in order:
            raise Unusable(f"the workflow of run {self.run.id} has no node {node!r}; it has {', '.join(order)}")
        found = next((step for step in self.steps if step.node == node), None)
        if found is None:
            raise Unusable(f"the step {self.address}/{node} is not stored yet\n  beam-ray resume {self.run.id}  resumes the run")
        return found

    @property
    def lineage(self) -> tuple[Run, ...]:
        """The runs that this one redoes or borrows from, the nearest first."""
        found: list[Run] = []
        known = set(find_runs(self.run.store.objects))
        origin = self.run.record.origin
        while origin and origin in known:
            found.append(Run(self.run.store, origin))
            origin = found[-1].record.origin
        return tuple(found)

    def display(self) -> Display:
        rows = [(step.node, step.outcome, step.score, step.route or "", len(step.attempts)) for step in self.steps]
        query = str(self.given["task_query"])
        facts = (("status", self.status), ("score", self.score), ("query", query if len(query) <= 200 else f"{query[:199]}…"))
        return Display(self.address, facts, ("step", "outcome", "score", "route", "attempts"), rows)

    def document(self) -> TaskDocument:
        """The task as a JSON document."""
        record = self.run.record
        context: RunContext = {
            "run_id": record.run_id,
            "workflow": record.workflow,
            "version": record.version,
            "origin": record.origin,
            "start_node": record.start_node,
            "mode": record.mode,
            "because": record.because,
            "finished": self.run.finished,
        }
        return {"task": self.address, "run": context, "changed_inputs": dict(self.changed_inputs), "steps": [step.document() for step in self.steps]}


def task(store: Location, address: str) -> Task:
    """See ``Store.task``."""
    found = find_task(store.existing(), address)
    return Task(Run(store, found.run), found.task, found.trial, found.node or None)


def tasks(
    store: Location, *, run: str | Run | Iterable[Run] | None = None, status: str | None = None, labels: Iterable[str] = (), where: str | None = None
) -> pa.Table:
    """See ``Store.tasks``."""
    if isinstance(run, str):
        run = get_run(store, run)
    chosen = [run] if isinstance(run, Run) else runs(store) if run is None else run
    columns = None if where else list(LISTED)
    found = [select(each.stored.outcome(columns), status=status, labels=tuple(labels), where=where).select(list(LISTED)) for each in chosen]
    if found:
        return pa.concat_tables(found)
    return OUTCOME.empty_table().select(list(LISTED))


def _rows(run: Run, task_id: str, trial: int) -> list[StepRow]:
    order = run.workflow.order
    if run.finished:
        found = [run.step_rows(name, [(task_id, trial)]) for name in order]
        return [rows[task_id, trial] for rows in found if rows]
    steps = run.steps()
    here = steps.filter(pc.and_(pc.equal(steps["task_id"], task_id), pc.equal(steps["trial"], trial))).to_pylist()
    return sorted(here, key=lambda step: order.index(step["node"]))
