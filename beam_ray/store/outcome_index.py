"""
One table of all tasks of all runs, with what people look for: status, score, route, query, output, workflow.

A finished run never changes, so its rows are kept under the digest of its manifest: in memory, and for
a store on S3 also in a folder of this machine. What is kept so is never believed over the run: another
digest is another table, and a file of the folder that is not what was written is read from the run again.
"""

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.errors import Damaged, Unusable
from beam_ray.store.lease import driver_of
from beam_ray.store.lookup import find_runs
from beam_ray.store.objects import Objects
from beam_ray.store.parquet import decode, encode
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME

RECHECK_S = 60.0
"""Seconds for which a finished run is not looked at again: only a repair rewrites its manifest, with equal rows."""

_OF_RUN = (
    pa.field("workflow", pa.string()),
    pa.field("version", pa.int64()),
    pa.field("mode", pa.string()),
    pa.field("run_created_at", pa.string()),
)
INDEX = pa.schema(
    [
        *OUTCOME,
        pa.field("task_query", pa.string()),
        pa.field("origin", pa.string()),
        *_OF_RUN,
        pa.field("status", pa.string()),
    ],
    metadata={"beam_ray": "index/1"},
)
"""The columns of outcomes, then those of the task and of its run. Tasks of an unfinished run without an outcome have few of them."""


class OutcomeIndex:
    """The index of a store; for any number of threads."""

    def __init__(self, objects: Objects, folder: Path | None = None):
        self._objects, self._folder = objects, folder if folder else _folder_of(objects)
        self._lock = threading.Lock()
        self._tables: dict[str, tuple[str, float, pa.Table]] = {}
        """Run to the digest of its state, when that was looked at, and its rows."""
        self._whole: tuple[tuple[str, ...], pa.Table] | None = None
        self.unreadable: dict[str, Damaged] = {}
        """Runs that are left out, with why."""

    def table(self, runs: Iterable[str] | None = None) -> pa.Table:
        """All tasks, the newest run first and in the order of the run; of these *runs*, or of all."""
        with self._lock:
            ids = find_runs(self._objects) if runs is None else list(runs)
            for run_id in ids:
                self._refresh(run_id)
            found = sorted((run_id for run_id in ids if run_id in self._tables), key=self._created_at, reverse=True)
            state = tuple(f"{run_id} {self._tables[run_id][0]}" for run_id in found)
            if self._whole is not None and self._whole[0] == state:
                return self._whole[1]
            table = pa.concat_tables([INDEX.empty_table(), *(self._tables[run_id][2] for run_id in found)]).combine_chunks()
            if runs is None:
                self._whole = state, table
            return table

    @property
    def filled(self) -> bool:
        """Whether all runs were read before."""
        return self._whole is not None

    def _created_at(self, run_id: str) -> str:
        table = self._tables[run_id][2]
        return str(table["run_created_at"][0].as_py()) if table.num_rows else ""

    def _refresh(self, run_id: str) -> None:
        known = self._tables.get(run_id)
        moment = time.monotonic()
        if known and not known[0].startswith("open") and moment - known[1] < RECHECK_S:
            return
        run = Run(self._objects, run_id)
        try:
            state = _state(run)
            if known is None or known[0] != state:
                self._tables[run_id] = state, moment, self._read(run, state)
            else:
                self._tables[run_id] = state, moment, known[2]
            self.unreadable.pop(run_id, None)
        except Unusable:
            self._tables[run_id] = "open, and never begun", moment, INDEX.empty_table()
        except Damaged as error:
            self._tables.pop(run_id, None)
            self.unreadable[run_id] = error

    def _read(self, run: Run, state: str) -> pa.Table:
        kept = self._folder / f"{state}.parquet" if self._folder and not state.startswith("open") else None
        if kept:
            with contextlib.suppress(OSError, Damaged):
                return decode(kept.read_bytes(), INDEX, str(kept))
        table = rows_of(run)
        if kept:
            with contextlib.suppress(OSError):
                _keep(kept, encode(INDEX, table))
        return table


def rows_of(run: Run) -> pa.Table:
    """The rows of one run in the index."""
    record, outcome, given = run.record, run.outcome(), run.tasks()
    place = {name: index for index, name in enumerate(given["task_id"].to_pylist())}
    ids, trials = outcome["task_id"].to_pylist(), outcome["trial"].to_pylist()
    status = pc.if_else(outcome["passed"], "passed", pc.if_else(pc.equal(outcome["outcome"], "failed"), "failed", "below"))
    columns: dict[str, pa.Array] = {name: outcome[name] for name in OUTCOME.names}
    if not run.finished:
        # what has no outcome yet is listed too, so that a run that goes on is seen going on
        done = set(zip(ids, trials, strict=True))
        missing = [(name, trial) for name in place for trial in range(1, record.trials + 1) if (name, trial) not in done]
        ids = [*ids, *(name for name, _ in missing)]
        empty = {"run_id": [run.run_id] * len(missing), "task_id": [name for name, _ in missing], "trial": [trial for _, trial in missing]}
        labels = given["labels"].take(pa.array([place[name] for name, _ in missing], pa.int64()))
        empty_rows = {field.name: pa.array(empty[field.name], field.type) if field.name in empty else pa.nulls(len(missing), field.type) for field in OUTCOME}
        columns = {
            name: pa.chunked_array([*_chunks(column), *(_chunks(labels) if name == "labels" else [empty_rows[name]])], OUTCOME.field(name).type)
            for name, column in columns.items()
        }
        word = "running" if driver_of(run) else "stopped"
        status = pa.chunked_array([*_chunks(status), pa.array([word] * len(missing), pa.string())], pa.string())
    rows = pa.array([place.get(name) for name in ids], pa.int64())
    columns |= {"task_query": given["task_query"].take(rows), "origin": given["origin"].take(rows), "status": status}
    of_run: dict[str, str | int | None] = {"workflow": record.workflow, "version": record.version, "mode": record.mode, "run_created_at": record.created_at}
    for field in _OF_RUN:
        columns[field.name] = pa.array([of_run[field.name]] * len(ids), field.type)
    return pa.table({field.name: columns[field.name] for field in INDEX}, schema=INDEX)


def _chunks(column: pa.Array) -> list[pa.Array]:
    return list(column.chunks) if isinstance(column, pa.ChunkedArray) else [column]


def _state(run: Run) -> str:
    """The digest of a finished run's manifest; of an unfinished run, how far it is."""
    manifest = run.manifest
    if manifest:
        return hashlib.sha256(json.dumps(manifest, sort_keys=True, default=str).encode()).hexdigest()
    done = sum(node == "_outcome" for node, _ in run.parts())
    return f"open {done} {driver_of(run) is not None}"


def _folder_of(objects: Objects) -> Path | None:
    """Where the rows of a store on S3 are kept; reading them from a disk is as quick as from there."""
    if not objects.uri.startswith("s3://"):
        return None
    above = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return above / "beam-ray" / hashlib.sha256(objects.uri.encode()).hexdigest()[:16]


def _keep(path: Path, body: bytes) -> None:
    """Write a file that nobody else on the machine may read: it has queries and outputs."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(body)
    temporary.replace(path)
