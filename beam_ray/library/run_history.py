"""Results of tasks in past runs: nodes reached, criteria decided, passed or not."""

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
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
from beam_ray.store.tables import OutcomeRow

CONSIDERED = 20_000
"""Number of newest past tasks that are searched for tasks that fill a gap."""

Key = tuple[str, str]
"""Task id and digest of the inputs: the same id with other inputs is another task."""

Pair = tuple[str, str]
"""A node and one of its criteria."""

Flags = np.ndarray[Any, np.dtype[np.bool_]]
Places = np.ndarray[Any, np.dtype[np.int64]]

_COLUMNS = ["task_id", "trial", "passed", "inputs", "labels", "path"]
_STEP_COLUMNS = ["task_id", "outcome", "criteria.list.element.id", "criteria.list.element.met"]


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
    rows: tuple[int, ...]
    """Where its trials are in the tables of the run."""


@dataclass(frozen=True)
class History:
    """One task's results over all past runs."""

    newest: Execution
    failed: Execution | None = None
    """The newest execution that did not pass."""


@dataclass(frozen=True)
class ExecutedTasks:
    """Tasks in one run: rows of its tables, in their order, each with the place of its task among those that are asked about."""

    run: Run
    rows: Places
    places: Places
    ids: pa.Array
    """The id of each row's task."""


class LibraryHistory:
    """What became of a library's tasks in past runs. Each array has one entry per task, in the library's order."""

    def __init__(self, tasks: pa.Table):
        self._ids, self._inputs = tasks["task_id"].combine_chunks(), tasks["inputs"].combine_chunks()
        self.ever_run: Flags = np.zeros(tasks.num_rows, bool)
        self.passed: Flags = np.zeros(tasks.num_rows, bool)
        """Whether its newest execution passed, in all trials."""
        self.ever_failed: Flags = np.zeros(tasks.num_rows, bool)
        """Whether some execution did not pass."""
        self.newest: list[ExecutedTasks] = []
        """The newest execution of each task that was ever run, by run."""

    def add_older(self, run: Run, outcome: pa.Table) -> Flags:
        """Add the executions of an older run; for each row of its *outcome* whether the library has a task of that id."""
        found = pc.fill_null(pc.index_in(outcome["task_id"], value_set=self._ids), -1).to_numpy().astype(np.int64)
        ours: Flags = found >= 0
        rows = np.flatnonzero(ours)
        rows = rows[_flags(pc.equal(outcome["inputs"].take(pa.array(rows)), self._inputs.take(pa.array(found[rows]))))]
        places = found[rows]
        here, failed = np.zeros(len(self.ever_run), bool), np.zeros(len(self.ever_run), bool)
        here[places] = True
        failed[places[~_flags(outcome["passed"])[rows]]] = True
        first = here & ~self.ever_run
        self.passed[first & ~failed] = True
        self.ever_failed |= failed
        self.ever_run |= here
        newest = first[places]
        if newest.any():
            self.newest.append(ExecutedTasks(run, rows[newest], places[newest], outcome["task_id"].take(pa.array(rows[newest])).combine_chunks()))
        return ours


@dataclass(frozen=True)
class Reach:
    """The nodes that tasks reached and the criteria that were decided for them. Each array has one entry per task."""

    nodes: Mapping[str, Flags]
    decided: dict[Pair, Flags]
    counts: dict[Pair, tuple[int, int]]
    """How often each criterion was met, and not met, over all tasks and trials."""


@dataclass(frozen=True)
class RunHistory:
    """The history of a library's own tasks, and of tasks that could be added."""

    own: LibraryHistory
    others: Mapping[Key, History]


def read_run_history(objects: Objects, workflow: Workflow, tasks: pa.Table) -> RunHistory:
    """
    Read the finished runs of the workflow: the library's *tasks*, and all others.

    Runs of backtest candidates count only if they are of exactly this definition, because a candidate may never have been published.
    """
    own, others = LibraryHistory(tasks), dict[Key, History]()
    considered = 0
    for run in newest_first(objects):
        if not _is_trusted(run, workflow):
            continue
        outcome = run.outcome(_COLUMNS)
        rest = np.flatnonzero(~own.add_older(run, outcome))[: max(CONSIDERED - considered, 0)]
        considered += len(rest)
        _add_older(others, _executions(run.run_id, outcome.take(pa.array(rest)), rest))
    return RunHistory(own, others)


def _is_trusted(run: Run, workflow: Workflow) -> bool:
    if run.workflow != workflow.name:
        return False
    record = run.record
    if record.recorded or record.pinned_node:
        return False  # what production answered, or a step with another run's output, is no execution of the workflow
    trusted = record.mode in ("run", "rerun", "baseline") and not record.ruler_only
    return (trusted or record.definition_digest == workflow.digest) and run.finished


def _executions(run_id: str, outcome: pa.Table, places: Places) -> Iterator[Execution]:
    rows: dict[Key, list[tuple[int, OutcomeRow]]] = {}
    for place, row in zip(places.tolist(), outcome.to_pylist(), strict=True):
        rows.setdefault((row["task_id"], row["inputs"]), []).append((place, row))
    for key, found in rows.items():
        trials = [row for _, row in found]
        shown = next((row for row in trials if not row["passed"]), trials[0])
        path = frozenset(node for row in trials for node in row["path"] or ())
        address = Address(run_id, key[0], shown["trial"])
        yield Execution(key, address, bool(shown["passed"]), tuple(shown["labels"] or ()), path, tuple(place for place, _ in found))


def _add_older(histories: dict[Key, History], executions: Iterable[Execution]) -> None:
    """Add the executions of an older run."""
    for each in executions:
        known = histories.get(each.key) or History(each)
        histories[each.key] = History(known.newest, known.failed or (None if each.passed else each))


def executed_in(run: Run, executions: Sequence[Execution]) -> ExecutedTasks:
    """The tasks of these executions, all in one run."""
    found = sorted((row, place) for place, each in enumerate(executions) for row in each.rows)
    rows, places = np.array(found, np.int64).reshape(-1, 2).T
    return ExecutedTasks(run, rows, places, pa.array([executions[place].key[0] for place in places.tolist()], pa.string()))


def reached(executed: Iterable[ExecutedTasks], nodes: Sequence[str], tasks: int) -> Reach:
    """What so many tasks reached of these nodes, where they were executed."""
    found = Reach({node: np.zeros(tasks, bool) for node in nodes}, {}, {})
    for each in executed:
        reader = StepRows(each.run)
        for node in nodes:
            steps = reader.table(node, each.rows, _STEP_COLUMNS)
            if steps.num_rows:
                _add_steps(found, node, steps, each)
    return found


def _add_steps(found: Reach, node: str, steps: pa.Table, executed: ExecutedTasks) -> None:
    mine = pc.equal(steps["task_id"], executed.ids.slice(0, steps.num_rows))
    steps, places = steps.filter(mine), executed.places[: steps.num_rows][_flags(mine)]
    found.nodes[node][places[_flags(pc.is_in(steps["outcome"], value_set=pa.array([*RAN, "failed"])))]] = True
    criteria = steps["criteria"].combine_chunks()
    flat, parents = pc.list_flatten(criteria), pc.list_parent_indices(criteria).to_numpy()
    coded = pc.struct_field(flat, "id").dictionary_encode()
    codes, met = coded.indices.to_numpy(), pc.fill_null(pc.struct_field(flat, "met").cast(pa.int8()), -1).to_numpy()
    for code, criterion in enumerate(coded.dictionary.to_pylist()):
        pair, (was_met, was_missed) = (node, criterion), found.counts.get((node, criterion), (0, 0))
        here = codes == code
        flags = found.decided.setdefault(pair, np.zeros(len(found.nodes[node]), bool))
        flags[places[parents[here & (met >= 0)]]] = True
        found.counts[pair] = was_met + int((here & (met == 1)).sum()), was_missed + int((here & (met == 0)).sum())


def _flags(column: pa.ChunkedArray | pa.Array) -> Flags:
    """A column of booleans; False where it is null."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), bool)


class FirstRuns:
    """When tasks were first run. A rerun's task is as old as its original."""

    def __init__(self, objects: Objects):
        self._runs = {run.run_id: run for run in all_runs(objects)}
        self._origins: dict[str, dict[str, str]] = {}
        """By run: each of its tasks that came from another run, with its address there."""

    def of(self, address: str | None) -> datetime.datetime | None:
        """When the task at *address*, or the original that it reruns, was first run; None when unknown."""
        born, passed = None, set[str]()
        while address and address not in passed:
            passed.add(address)
            here = parse(address)
            if here.run not in self._runs:
                break
            born = self._created(here.run)
            address = self._origins_in(here.run).get(here.task)
        return born

    def of_all(self, addresses: pa.ChunkedArray) -> list[datetime.datetime | None]:
        """The same for each address; where no task of a run came from another one, they are all as old as the run."""
        runs = pc.list_element(pc.split_pattern(addresses, "/", max_splits=1), 0)
        ages = {
            run: self._created(run) if run in self._runs else None for run in pc.unique(runs).to_pylist() if run not in self._runs or not self._origins_in(run)
        }
        return [ages[run] if run in ages else self.of(address) for run, address in zip(runs.to_pylist(), addresses.to_pylist(), strict=True)]

    def _created(self, run: str) -> datetime.datetime:
        return datetime.datetime.fromisoformat(self._runs[run].record.created_at)

    def _origins_in(self, run: str) -> dict[str, str]:
        if run not in self._origins:
            tasks = self._runs[run].tasks(["task_id", "origin"])
            tasks = tasks.filter(pc.is_valid(tasks["origin"]))
            self._origins[run] = dict(zip(tasks["task_id"].to_pylist(), tasks["origin"].to_pylist(), strict=True))
        return self._origins[run]
