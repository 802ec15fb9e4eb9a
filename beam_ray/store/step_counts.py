"""
What happened at each node of a run, counted: outcomes, scores, attempts, criteria, and the paths that tasks took.

A finished run never changes, so its counts are kept under the digest of its manifest. Of the tables only the
columns that are counted are decoded, of attempts and criteria only the fields that are.
"""

import hashlib
import io
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_ray.errors import Damaged
from beam_ray.store.lookup import newest_first
from beam_ray.store.objects import Objects
from beam_ray.store.parquet import require_whole
from beam_ray.store.runs import Run

KEPT = 4_000
"""Counts that are kept; those of a node have four bytes a step."""
KEPT_RUNS = 400
"""Finished runs whose record and manifest are kept."""
_STEP = ["outcome", "score", "passed", "review"]
_ATTEMPTS = ["attempts.list.element.number", "attempts.list.element.error"]
_CRITERIA = ["criteria.list.element.id", "criteria.list.element.met"]
Found = TypeVar("Found")


@dataclass(frozen=True)
class StepCounts:
    """What happened at one node of a run, over its tasks and trials."""

    outcomes: Counter[str]
    """Steps by outcome: done, borrowed, skipped or failed."""
    passed: int
    """Steps that reached the threshold."""
    scored: int
    score_sum: float
    scores: "np.ndarray[Any, np.dtype[np.float32]]" = field(compare=False)
    """The score of each step, in the order of the run's tasks and trials; NaN where there is none."""
    review: int
    """Steps flagged for a person."""
    answers: Counter[int]
    """Steps by their number of valid answers; more than one means auto-reruns."""

    @property
    def ran(self) -> int:
        """Steps with an output."""
        return self.outcomes["done"] + self.outcomes["borrowed"]


@dataclass(frozen=True)
class CriterionCounts:
    """How often a criterion was met."""

    met: int
    unmet: int
    undecided: int


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
    """The counts of a store's runs, for any number of threads."""

    objects: Objects
    _kept: OrderedDict[tuple[str, ...], Any] = field(default_factory=OrderedDict)
    _notes: dict[str, RunNote] = field(default_factory=dict)
    _runs: OrderedDict[str, Run] = field(default_factory=OrderedDict)
    _finished: set[str] = field(default_factory=set)
    _passed: dict[str, tuple[int, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def notes(self) -> list[RunNote]:
        """All runs that can be read, the newest first."""
        found = []
        for run in newest_first(self.objects, skip_damaged=True):
            run_id = run.run_id
            if run_id not in self._notes:
                record = run.record
                about = (record.workflow, record.version, record.definition_digest, record.mode, record.created_at, record.executes)
                self._notes[run_id] = RunNote(run_id, *about)
            found.append(self._notes[run_id])
        return found

    def run(self, run_id: str) -> Run:
        """The run; a finished one is read once."""
        with self._lock:
            known = self._runs.get(run_id)
            if known is not None:
                self._runs.move_to_end(run_id)
                return known
        found = Run(self.objects, run_id)
        if found.finished:
            with self._lock:
                self._runs[run_id] = found
                while len(self._runs) > KEPT_RUNS:
                    self._runs.popitem(last=False)
        return found

    def finished(self, run_id: str) -> bool:
        """Whether the run can no longer change."""
        if run_id not in self._finished and self.run(run_id).finished:
            self._finished.add(run_id)
        return run_id in self._finished

    def passed(self, run_id: str) -> tuple[int, int]:
        """Of a finished run, tasks and trials that passed, and all of them."""
        if run_id not in self._passed:
            manifest = self.run(run_id).manifest
            assert manifest
            self._passed[run_id] = manifest["usage"]["passed"], manifest["usage"]["rows"]
        return self._passed[run_id]

    def steps(self, run: Run, node: str) -> StepCounts:
        """
        What happened at a node.

        Raises:
            Damaged: a file of the run is not what was written.
        """
        attempts = run.record.plan.nodes[node].auto_rerun is not None
        return self._of(run, ("steps", node), lambda: _steps(_table(run, node, _STEP + (_ATTEMPTS if attempts else []))))

    def criteria(self, run: Run, node: str) -> dict[str, CriterionCounts]:
        """How often each criterion of a node was met, by its id."""
        return self._of(run, ("criteria", node), lambda: _criteria(_table(run, node, _CRITERIA)))

    def paths(self, run: Run) -> Counter[tuple[str, ...]]:
        """Tasks and trials by the nodes that ran or were borrowed, in order."""
        return self._of(run, ("paths",), lambda: _paths(run.outcome(["path"])["path"]))

    def tasks(self, run: Run) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """A number for each task of the run with an outcome, equal for tasks of the same id; not the same in another process."""
        return self._of(run, ("tasks",), lambda: np.array([hash(name) for name in run.outcome(["task_id"])["task_id"].to_pylist()], np.int64))

    def steps_of(self, runs: Sequence[Run], node: str) -> StepCounts:
        """What happened at a node of several runs, which all have it."""
        if len(runs) == 1:
            return self.steps(runs[0], node)
        return self._kept_as(_state(runs, "steps of all", node), lambda: _summed([self.steps(run, node) for run in runs]))

    def task_numbers(self, runs: Sequence[Run]) -> "np.ndarray[Any, np.dtype[np.int64]]":
        """For each step of a node, in the order of ``steps_of``, its task as a number from 0; equal for tasks of the same id."""
        return self._kept_as(_state(runs, "task numbers"), lambda: np.unique(np.concatenate([self.tasks(run) for run in runs]), return_inverse=True)[1])

    def _of(self, run: Run, what: tuple[str, ...], count: Callable[[], Found]) -> Found:
        return self._kept_as(_state([run], *what), count)

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


def _state(runs: Sequence[Run], *what: str) -> tuple[str, ...] | None:
    """Identifies counts of finished runs; None where a run goes on. A repaired run has other files with the same rows."""
    manifests = [run.manifest for run in runs]
    if None in manifests:
        return None
    return (*what, *(f"{run.run_id} {manifest['finished_at']}" for run, manifest in zip(runs, manifests, strict=True) if manifest))


def _table(run: Run, node: str, columns: list[str]) -> pa.Table:
    """Those columns of a node's steps; of lists of structs, the fields named ``column.list.element.field``."""
    manifest = run.manifest
    if manifest is None:
        table = run.steps([node], list(dict.fromkeys(name.partition(".")[0] for name in columns)))
        return table
    tables = []
    for entry in manifest["files"]:
        if not entry["name"].startswith("steps/") or entry["name"].removeprefix("steps/").rpartition("-")[0] != node:
            continue
        where = f"{run.prefix}/{entry['name']}"
        body = run.objects.read(where)
        if len(body) != entry["bytes"] or hashlib.sha256(body).hexdigest() != entry["sha256"]:
            raise Damaged(f"{where} is damaged: its sha256 is not the one in the manifest")
        require_whole(body, where)
        try:
            tables.append(pq.ParquetFile(io.BytesIO(body)).read(columns=columns, use_threads=False))
        except (pa.ArrowException, OSError) as error:
            raise Damaged(f"{where} is damaged: {error}") from None
    return pa.concat_tables(tables) if tables else run.steps([], list(dict.fromkeys(name.partition(".")[0] for name in columns)))


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
