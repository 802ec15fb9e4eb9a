"""Select finished tasks of past runs to save, and derive their expected outcomes."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_ray.address import Address
from beam_ray.define.fingerprint import Json, JsonObject
from beam_ray.errors import Unusable
from beam_ray.store.lookup import find_task, resolve, select
from beam_ray.store.objects import Objects
from beam_ray.store.parquet import to_json
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import OutcomeRow, TaskRow

RAN = ("done", "borrowed")


@dataclass(frozen=True)
class EndedTask:
    """A finished task of a past run: the task as given, and its outcome."""

    address: Address
    task: TaskRow
    outcome: OutcomeRow

    @property
    def saved(self) -> TaskRow:
        """The task as it is saved: as given, with the address of its run as origin."""
        return {**self.task, "origin": str(self.address), "changed_inputs": None}


def ended_tasks_of_run(objects: Objects, written: str, *, status: str | None = None, labels: tuple[str, ...] = (), where: str | None = None) -> list[EndedTask]:
    """
    The tasks of a run that match, in the run's order; for each task the first trial that matches.

    Raises:
        Unusable: There is no such run, it is not finished, or no task matches.
    """
    run = Run(objects, resolve(objects, written))
    if not run.finished:
        raise Unusable(f"run {run.run_id} is not finished; only finished tasks can be saved\n  finish it with: beam-ray resume {run.run_id}")
    found = _ended(run, select(run.outcome(), status=status, labels=labels, where=where).to_pylist())
    if not found:
        raise Unusable(f"no task of run {run.run_id} matches, so there is nothing to save\n  list its tasks with: beam-ray tasks --run {run.run_id}")
    return found


def ended_tasks_at(objects: Objects, written: Iterable[str]) -> list[EndedTask]:
    """
    The tasks at these addresses; a task id alone means its newest run.

    Raises:
        Unusable: There is no such task, or it is not finished.
    """
    return ended_tasks(objects, (find_task(objects, text) for text in written))


def ended_tasks(objects: Objects, addresses: Iterable[Address]) -> list[EndedTask]:
    """
    The tasks at these addresses, run by run.

    Raises:
        Unusable: One of them is not finished.
    """
    wanted: dict[str, dict[tuple[str, int], None]] = {}
    for address in addresses:
        wanted.setdefault(address.run, {})[address.task, address.trial] = None
    found: list[EndedTask] = []
    for run_id, keys in wanted.items():
        run = Run(objects, run_id)
        rows = {(row["task_id"], row["trial"]): row for row in run.outcome().to_pylist()}
        missing = next((Address(run_id, *key) for key in keys if key not in rows), None)
        if missing:
            raise Unusable(f"the task {missing} is not finished; only finished tasks can be saved")
        found += _ended(run, [rows[key] for key in keys])
    return found


def _ended(run: Run, outcomes: Sequence[OutcomeRow]) -> list[EndedTask]:
    first: dict[str, OutcomeRow] = {}
    for row in outcomes:
        first.setdefault(row["task_id"], row)
    tasks = {row["task_id"]: row for row in run.tasks().to_pylist() if row["task_id"] in first}
    return [EndedTask(Address(run.run_id, name, row["trial"]), tasks[name], row) for name, row in first.items()]


def expected_outcomes(objects: Objects, ended: Sequence[EndedTask], node: str = "") -> dict[str, str]:
    """
    The outputs of tasks that passed, as expected outcomes: task address to JSON object.

    The expected outcome is the output of *node*, or the merged fields of all last nodes.

    Raises:
        Unusable: A task did not pass, or has no such output.
    """
    bad = [each for each in ended if not each.outcome["passed"]]
    if bad:
        raise Unusable(
            f"{len(bad)} of {len(ended)} tasks did not pass ({_some(bad)}); expected outcomes are taken only from tasks that passed\n  select these with --status passed, or give the expected outcome with --expect JSON"
        )
    outputs = _outputs(objects, ended, node) if node else {each.address: merged(each.outcome["output"], each.address) for each in ended}
    return {str(address): to_json(output) for address, output in outputs.items()}


def merged(output: str | None, address: Address) -> Mapping[str, Json]:
    """
    The merged fields of the outputs of all last nodes.

    Raises:
        Unusable: There are none, or two nodes have different values for a field.
    """
    found: JsonObject = {}
    for node, value in json.loads(output or "{}").items():
        for name, inner in _fields(value, node, address).items():
            if name in found and found[name] != inner:
                raise Unusable(f"the last nodes of {address} have different values for {name!r}\n  choose one of them with --of NODE")
            found[name] = inner
    if not found:
        raise Unusable(f"no last node of {address} has an output\n  choose another node with --of NODE")
    return found


def _outputs(objects: Objects, ended: Sequence[EndedTask], node: str) -> dict[Address, Mapping[str, Json]]:
    found: dict[Address, Mapping[str, Json]] = {}
    for run_id in dict.fromkeys(each.address.run for each in ended):
        run, here = Run(objects, run_id), [each for each in ended if each.address.run == run_id]
        if not run.finished:
            raise Unusable(f"run {run_id} is not finished, so the outputs of single nodes are not available\n  finish it with: beam-ray resume {run_id}")
        if node not in run.record.plan.nodes:
            raise Unusable(f"--of {node}: the workflow of run {run_id} has no such node; it has {', '.join(run.record.plan.order)}")
        rows = StepRows(run).rows(node, [(each.address.task, each.address.trial) for each in here])
        idle = [each for each in here if rows[each.address.task, each.address.trial]["outcome"] not in RAN]
        if idle:
            raise Unusable(f"{node!r} did not run for {len(idle)} of the tasks ({_some(idle)})\n  without --of, the output of the last nodes is used")
        found |= {each.address: _fields(json.loads(rows[each.address.task, each.address.trial]["output"] or "null"), node, each.address) for each in here}
    return found


def _fields(value: Any, node: str, address: Address) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise Unusable(f"the output of {address}/{node} is not an object with fields, so nothing can be compared with it\n  choose another node with --of NODE")
    return value


def _some(ended: Sequence[EndedTask]) -> str:
    names = [each.address.task for each in ended]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
