"""Results of tasks in past runs: nodes reached, criteria decided, passed or not."""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address, parse
from beam_ray.define.workflow import Workflow
from beam_ray.library.selection import RAN
from beam_ray.store.lookup import newest_first
from beam_ray.store.objects import Objects
from beam_ray.store.run_index import all_runs
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import OutcomeRow, StepRow

CONSIDERED = 20_000
"""Number of newest past tasks that are searched for tasks that fill a gap."""

Key = tuple[str, str]
"""Task id and digest of the inputs: the same id with other inputs is another task."""

_COLUMNS = ["task_id", "trial", "passed", "inputs", "labels", "path"]


@dataclass(frozen=True)
class Execution:
    """The result of one task in one past run, over all trials."""

    key: Key
    address: Address
    """Address of the first trial that did not pass; of the first trial where all passed."""
    passed: bool
    labels: tuple[str, ...]
    path: frozenset[str]
    """Nodes with an output."""
    trials: int = 1


@dataclass(frozen=True)
class History:
    """One task's results over all past runs."""

    newest: Execution
    failed: Execution | None = None
    """The newest execution that did not pass."""


@dataclass(frozen=True)
class Reached:
    """Nodes that one execution reached, and (met, not met) counts of each decided criterion."""

    nodes: frozenset[str]
    criteria: Mapping[tuple[str, str], tuple[int, int]]


@dataclass(frozen=True)
class RunHistory:
    """The history of a library's own tasks, and of tasks that could be added."""

    own: Mapping[Key, History]
    others: Mapping[Key, History]


def read_run_history(objects: Objects, workflow: Workflow, names: Sequence[str]) -> RunHistory:
    """
    Read the finished runs of the workflow: the tasks with these *names*, and all others.

    Runs of backtest candidates count only if they are of exactly this definition, because a candidate may never have been published.
    """
    own: dict[Key, History] = {}
    others: dict[Key, History] = {}
    considered = 0
    for run in newest_first(objects):
        if not _is_trusted(run, workflow):
            continue
        outcome = run.outcome(_COLUMNS)
        ours = pc.is_in(outcome["task_id"], value_set=pa.array(names, pa.string()))
        _add_older(own, _executions(run.run_id, outcome.filter(ours)))
        rest = outcome.filter(pc.invert(ours)).slice(0, max(CONSIDERED - considered, 0))
        considered += rest.num_rows
        _add_older(others, _executions(run.run_id, rest))
    return RunHistory(own, others)


def _is_trusted(run: Run, workflow: Workflow) -> bool:
    if run.workflow != workflow.name:
        return False
    record = run.record
    if record.recorded or record.pinned_node:
        return False  # what production answered, or a step with another run's output, is no execution of the workflow
    trusted = record.mode in ("run", "rerun", "baseline") and not record.ruler_only
    return (trusted or record.definition_digest == workflow.digest) and run.finished


def _executions(run_id: str, outcome: pa.Table) -> Iterator[Execution]:
    rows: dict[Key, list[OutcomeRow]] = {}
    for row in outcome.to_pylist():
        rows.setdefault((row["task_id"], row["inputs"]), []).append(row)
    for key, trials in rows.items():
        shown = next((row for row in trials if not row["passed"]), trials[0])
        path = frozenset(node for row in trials for node in row["path"] or ())
        yield Execution(key, Address(run_id, key[0], shown["trial"]), bool(shown["passed"]), tuple(shown["labels"] or ()), path, len(trials))


def _add_older(histories: dict[Key, History], executions: Iterable[Execution]) -> None:
    """Add the executions of an older run."""
    for each in executions:
        known = histories.get(each.key) or History(each)
        histories[each.key] = History(known.newest, known.failed or (None if each.passed else each))


def reached(objects: Objects, executions: Iterable[Execution], nodes: Sequence[str]) -> dict[Key, Reached]:
    """What each execution reached, for these nodes."""
    by_run: dict[str, list[Execution]] = {}
    for each in executions:
        by_run.setdefault(each.address.run, []).append(each)
    found: dict[Key, Reached] = {}
    for run_id, here in by_run.items():
        reader = StepRows(Run(objects, run_id))
        wanted = [(each.key[0], trial) for each in here for trial in range(1, each.trials + 1)]
        steps: dict[str, list[StepRow]] = {}
        for node in nodes:
            for (task, _), row in reader.rows(node, wanted).items():
                steps.setdefault(task, []).append(row)
        found |= {each.key: _reached(steps.get(each.key[0], [])) for each in here}
    return found


def _reached(steps: Iterable[StepRow]) -> Reached:
    nodes, counts = set(), dict[tuple[str, str], tuple[int, int]]()
    for row in steps:
        if row["outcome"] in (*RAN, "failed"):
            nodes.add(row["node"])
        for item in row["criteria"] or ():
            if item["met"] is not None:
                met, missed = counts.get((row["node"], item["id"]), (0, 0))
                counts[row["node"], item["id"]] = (met + item["met"], missed + (not item["met"]))
    return Reached(frozenset(nodes), counts)


class FirstRuns:
    """When tasks were first run. A rerun's task is as old as its original."""

    def __init__(self, objects: Objects):
        self._runs = {run.run_id: run for run in all_runs(objects)}
        self._origins: dict[str, dict[str, str | None]] = {}

    def of(self, address: str | None) -> datetime.datetime | None:
        """When the task at *address*, or the original that it reruns, was first run; None when unknown."""
        born, passed = None, set[str]()
        while address and address not in passed:
            passed.add(address)
            here = parse(address)
            if here.run not in self._runs:
                break
            born = datetime.datetime.fromisoformat(self._runs[here.run].record.created_at)
            address = self._origin(here)
        return born

    def _origin(self, address: Address) -> str | None:
        if address.run not in self._origins:
            tasks = self._runs[address.run].tasks().select(["task_id", "origin"])
            self._origins[address.run] = dict(zip(tasks["task_id"].to_pylist(), tasks["origin"].to_pylist(), strict=True))
        return self._origins[address.run].get(address.task)
