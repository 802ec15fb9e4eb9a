"""Choosing tasks of past runs to save, by selection or by address, and what to expect of them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_ray.address import Address
from beam_ray.errors import Unusable
from beam_ray.library.changes import Row
from beam_ray.store.lookup import find_task, select
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, resolve
from beam_ray.store.steps import StepRows
from beam_ray.store.tables import to_json

RAN = ("done", "borrowed")


@dataclass(frozen=True)
class Ended:
    """A task that ended in a past run: as it was given, and what became of it."""

    address: Address
    task: Mapping[str, Any]
    outcome: Mapping[str, Any]

    @property
    def saved(self) -> Row:
        """The task as it is saved: as it was given, with the address that it was saved from."""
        return {**self.task, "origin": str(self.address)}


def of_run(objects: Objects, written: str, *, status: str | None = None, labels: tuple[str, ...] = (), where: str | None = None) -> list[Ended]:
    """
    The tasks of the run that fit, in its order; of a task's trials the first that fits.

    Raises:
        Unusable: there is no such run, it still goes on, or no task of it fits.
    """
    run = Run(objects, resolve(objects, written))
    if not run.finished:
        raise Unusable(f"run {run.run_id} is still going on; only tasks that ended can be saved\n  beam-ray resume {run.run_id}  goes on with it")
    found = _ended(run, select(run.outcome(), status=status, labels=labels, where=where).to_pylist())
    if not found:
        raise Unusable(f"no task of run {run.run_id} fits; there is nothing to save\n  beam-ray tasks --run {run.run_id}  lists them")
    return found


def of_addresses(objects: Objects, written: Iterable[str]) -> list[Ended]:
    """
    The tasks at these addresses; a task's id alone means its newest run.

    Raises:
        Unusable: there is no such task, or it has not ended.
    """
    wanted: dict[str, dict[tuple[str, int], None]] = {}
    for text in written:
        address = find_task(objects, text)
        wanted.setdefault(address.run, {})[address.task, address.trial] = None
    found: list[Ended] = []
    for run_id, keys in wanted.items():
        run = Run(objects, run_id)
        rows = {(row["task_id"], row["trial"]): row for row in run.outcome().to_pylist()}
        missing = next((Address(run_id, *key) for key in keys if key not in rows), None)
        if missing:
            raise Unusable(f"the task {missing} has not ended; only tasks that ended can be saved")
        found += _ended(run, [rows[key] for key in keys])
    return found


def _ended(run: Run, outcomes: Sequence[Mapping[str, Any]]) -> list[Ended]:
    first: dict[str, Mapping[str, Any]] = {}
    for row in outcomes:
        first.setdefault(row["task_id"], row)
    tasks = {row["task_id"]: row for row in run.tasks().to_pylist() if row["task_id"] in first}
    return [Ended(Address(run.run_id, name, row["trial"]), tasks[name], row) for name, row in first.items()]


def expected_of(objects: Objects, ended: Sequence[Ended], node: str = "") -> dict[str, str]:
    """
    For each task the outcome of its good execution, as the JSON of what is to be expected.

    It is the output of *node*, or the fields of all last nodes together.

    Raises:
        Unusable: a task did not pass, or has no such output.
    """
    bad = [each for each in ended if not each.outcome["passed"]]
    if bad:
        raise Unusable(
            f"{len(bad)} of {len(ended)} tasks did not pass ({_some(bad)}); what to expect is only taken from a good execution\n  --status passed  chooses those that passed; --expect JSON  says it in your words"
        )
    outputs = _outputs(objects, ended, node) if node else {each.address: merged(each.outcome["output"], each.address) for each in ended}
    return {str(address): to_json(output) for address, output in outputs.items()}


def merged(output: str | None, address: Address) -> Mapping[str, Any]:
    """
    The fields of all last nodes together.

    Raises:
        Unusable: there are none, or two nodes disagree about a field.
    """
    found: dict[str, Any] = {}
    for node, value in json.loads(output or "{}").items():
        for name, inner in _fields(value, node, address).items():
            if name in found and found[name] != inner:
                raise Unusable(f"the last nodes of {address} disagree about {name!r}\n  --of NODE  says whose output is to be expected")
            found[name] = inner
    if not found:
        raise Unusable(f"no last node of {address} gave an output\n  --of NODE  takes another node's")
    return found


def _outputs(objects: Objects, ended: Sequence[Ended], node: str) -> dict[Address, Mapping[str, Any]]:
    found: dict[Address, Mapping[str, Any]] = {}
    for run_id in dict.fromkeys(each.address.run for each in ended):
        run, here = Run(objects, run_id), [each for each in ended if each.address.run == run_id]
        if not run.finished:
            raise Unusable(f"run {run_id} is still going on, so the outputs of single nodes are not to be had\n  beam-ray resume {run_id}  goes on with it")
        if node not in run.record.plan.nodes:
            raise Unusable(f"--of {node}: the workflow of run {run_id} has no such node; it has {', '.join(run.record.plan.order)}")
        rows = StepRows(run).rows(node, [(each.address.task, each.address.trial) for each in here])
        idle = [each for each in here if rows[each.address.task, each.address.trial]["outcome"] not in RAN]
        if idle:
            raise Unusable(f"{node!r} did not run for {len(idle)} of the tasks ({_some(idle)})\n  without --of  the last nodes' fields are expected")
        found |= {each.address: _fields(json.loads(rows[each.address.task, each.address.trial]["output"] or "null"), node, each.address) for each in here}
    return found


def _fields(value: Any, node: str, address: Address) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise Unusable(f"the output of {address}/{node} is no object of fields, so nothing can be compared with it\n  --of NODE  takes another node's")
    return value


def _some(ended: Sequence[Ended]) -> str:
    names = [each.address.task for each in ended]
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
