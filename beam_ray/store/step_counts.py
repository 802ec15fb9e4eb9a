"""
What happened at each node of a run, counted: outcomes, scores, attempts, criteria, and the paths that tasks took.

A finished run never changes, so its counts are kept under the digest of its manifest, in memory and on this machine
(see ``run_totals``). Of the tables only the columns that are counted are decoded, of attempts and criteria only the
fields that are.
"""

import hashlib
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.store.lookup import newest_first
from beam_ray.store.objects import Objects
from beam_ray.store.run_index import IN_PARALLEL, IndexedRun, manifest_digest, run_index
from beam_ray.store.run_totals import CriterionCounts, RunTotals, StepCounts, read_totals, written_totals
from beam_ray.store.runs import Run

KEPT = 1_000
"""Counts that are kept: of runs, and of many runs together. They have four bytes a step, and eight a task."""
_STEP = ["outcome", "score", "passed", "review"]
_ATTEMPTS = ["attempts.list.element.number", "attempts.list.element.error"]
_CRITERIA = ["criteria.list.element.id", "criteria.list.element.met"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class RunNote:
    """What is needed to choose a run."""

    run_id: str
    workflow: str
    version: int | None
    digest: str
    """Of the definition."""
    mode: str
    created_at: str
    executes: bool
    """Whether it executes its tasks; not where it only scores what another run or production has answered."""


@dataclass
class RunCounts:
    """
    The counts of a store's runs, for any number of threads.

    Those of finished runs are kept on this machine under the digest of the run's manifest.
    """

    objects: Objects
    _kept: OrderedDict[tuple[str, ...], Any] = field(default_factory=OrderedDict)
    _notes: dict[str, RunNote] = field(default_factory=dict)
    _runs: dict[str, Run] = field(default_factory=dict)
    _finished: set[str] = field(default_factory=set)
    _passed: dict[str, tuple[int, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def notes(self) -> list[RunNote]:
        """All runs that can be read, the newest first."""
        found, runs = [], newest_first(self.objects, skip_damaged=True)
        for run in runs:
            run_id = run.run_id
            if run_id not in self._notes:
                record = run.record
                about = (record.workflow, record.version, record.definition_digest, record.mode, record.created_at, record.executes)
                self._notes[run_id] = RunNote(run_id, *about)
            found.append(self._notes[run_id])
        # by the index, which knows that a run is finished and what its manifest is without reading it
        self._runs = {run.run_id: run for run in runs if isinstance(run, IndexedRun)}
        return found

    def run(self, run_id: str) -> Run:
        """The run."""
        return self._runs.get(run_id) or Run(self.objects, run_id)

    def finished(self, run_id: str) -> bool:
        """Whether the run can no longer change."""
        if run_id not in self._finished and self.run(run_id).finished:
            self._finished.add(run_id)
        return run_id in self._finished

    def passed(self, run_id: str) -> tuple[int, int]:
        """Of a finished run, tasks and trials that passed, and all of them."""
        if run_id not in self._passed:
            usage = self.run(run_id).usage
            assert usage
            self._passed[run_id] = usage["passed"], usage["rows"]
        return self._passed[run_id]

    def steps(self, run: Run, node: str) -> StepCounts:
        """
        What happened at a node.

        Raises:
            Damaged: a file of the run is not what was written.
        """
        return self.totals(run).steps[node] if _state(run) else _steps(run.steps([node], _columns(run, node)))

    def criteria(self, run: Run, node: str) -> dict[str, CriterionCounts]:
        """How often each criterion of a node was met, by its id."""
        return self.totals(run).criteria[node] if _state(run) else _criteria(run.steps([node], _CRITERIA))

    def paths(self, run: Run) -> Counter[tuple[str, ...]]:
        """Tasks and trials by the nodes that ran or were borrowed, in order."""
        return self.totals(run).paths if _state(run) else _paths(run.outcome(["path"])["path"])

    def tasks(self, run: Run) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """A number for each task of the run with an outcome, equal for tasks of the same id."""
        return self.totals(run).tasks if _state(run) else _numbers(run.outcome(["task_id"]))

    def totals(self, run: Run) -> RunTotals:
        """
        All counts of a run.

        Raises:
            Damaged: a file of the run is not what was written.
        """
        state = _state(run)
        return self._kept_as((state,) if state else None, lambda: self._totals(run, state))

    def _totals(self, run: Run, state: str | None) -> RunTotals:
        cache, name = run_index(self.objects).cache, f"{state}.counts"
        if state and (body := cache.read(name)) and (known := read_totals(body)):
            return known
        found = _counted_in(run)
        if state:
            cache.write(name, written_totals(found))
        return found

    def steps_of(self, runs: Sequence[Run], node: str) -> StepCounts:
        """What happened at a node of several runs, which all have it."""
        if len(runs) == 1:
            return self.steps(runs[0], node)
        return self._kept_as(_states(runs, "steps of all", node), lambda: _summed([self.steps(run, node) for run in runs]))

    def task_numbers(self, runs: Sequence[Run]) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """For each step of a node, in the order of ``steps_of``, its task as a number from 0; equal for tasks of the same id."""

        def numbers() -> "np.ndarray[Any, np.dtype[np.int64]]":
            with ThreadPoolExecutor(IN_PARALLEL) as threads:
                return np.unique(np.concatenate([*threads.map(self.tasks, runs)]), return_inverse=True)[1]

        return self._kept_as(_states(runs, "task numbers"), numbers)

    def _kept_as(self, key: tuple[str, ...] | None, count: Callable[[], Found]) -> Found:
        """What *count* gives, kept under *key*; counted anew where that is None."""
        if key is None:
            return count()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast(Found, self._kept[key])
        found = count()
        with self._lock:
            self._kept[key] = found
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return found


def _state(run: Run) -> str | None:
    """Identifies what a finished run is; None where it goes on."""
    if isinstance(run, IndexedRun):
        return run.row["manifest"]
    return manifest_digest(run.manifest) if run.manifest else None


def _states(runs: Sequence[Run], *what: str) -> tuple[str, ...] | None:
    states = [_state(run) for run in runs]
    return None if None in states else (*what, *(state for state in states if state))


def _counted_in(run: Run) -> RunTotals:
    outcome, steps, criteria = run.outcome(["task_id", "path"]), {}, {}
    for name, node in run.record.plan.nodes.items():
        table = run.steps([name], _columns(run, name) + (_CRITERIA if node.evaluate else []))
        steps[name] = _steps(table)
        criteria[name] = _criteria(table) if node.evaluate else {}
    return RunTotals(steps, criteria, _paths(outcome["path"]), _numbers(outcome))


def _columns(run: Run, node: str) -> list[str]:
    return _STEP + (_ATTEMPTS if run.record.plan.nodes[node].auto_rerun else [])


def _numbers(outcome: pa.Table) -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.array([_number(name) for name in outcome["task_id"].to_pylist()], np.int64)


def _number(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little", signed=True)


def _steps(table: pa.Table) -> StepCounts:
    return StepCounts(
        _counted(table["outcome"]),
        pc.sum(pc.cast(table["passed"], pa.int64())).as_py() or 0,
        table.num_rows - table["score"].null_count,
        float(pc.sum(table["score"]).as_py() or 0.0),
        table["score"].to_numpy().astype(np.float32),
        pc.sum(pc.cast(table["review"], pa.int64())).as_py() or 0,
        _answers(table) if "attempts" in table.schema.names else Counter(),
    )


def _answers(table: pa.Table) -> Counter[int]:
    found: Counter[int] = Counter()
    ran = table.filter(pc.not_equal(table["outcome"], "skipped"))
    for chunk in ran["attempts"].chunks:
        parents, flat = pc.list_parent_indices(chunk), pc.list_flatten(chunk)
        valid = np.asarray(parents.filter(pc.is_null(pc.struct_field(flat, "error"))))
        numbers, counts = np.unique(np.bincount(valid, minlength=len(chunk)), return_counts=True)
        found.update(dict(zip(numbers.tolist(), counts.tolist(), strict=True)))
    return found


def _criteria(table: pa.Table) -> dict[str, CriterionCounts]:
    flat = [pc.list_flatten(chunk) for chunk in table["criteria"].chunks]
    rows = [pa.table({"id": pc.struct_field(each, "id"), "met": pc.struct_field(each, "met")}) for each in flat]
    if not rows:
        return {}
    found: dict[str, Counter[bool | None]] = {}
    for entry in pa.concat_tables(rows).group_by(["id", "met"]).aggregate([([], "count_all")]).to_pylist():
        found.setdefault(entry["id"], Counter())[entry["met"]] += entry["count_all"]
    return {name: CriterionCounts(counts[True], counts[False], counts[None]) for name, counts in found.items()}


def _paths(column: pa.ChunkedArray) -> Counter[tuple[str, ...]]:
    # no name of a node has a blank
    return Counter({tuple(path.split()): count for path, count in _counted(pc.binary_join(column, " ")).items() if path is not None})


def _counted(column: Any) -> Counter[Any]:
    return Counter({entry["values"]: entry["counts"] for entry in pc.value_counts(column).to_pylist()})


def _summed(found: Sequence[StepCounts]) -> StepCounts:
    """The counts of several runs as those of one."""
    return StepCounts(
        sum((each.outcomes for each in found), Counter()),
        sum(each.passed for each in found),
        sum(each.scored for each in found),
        sum(each.score_sum for each in found),
        np.concatenate([each.scores for each in found]),
        sum(each.review for each in found),
        sum((each.answers for each in found), Counter()),
    )
