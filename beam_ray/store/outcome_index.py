"""
One table of all tasks of all runs, with what people look for: status, score, route, query, output, workflow.

A finished run never changes, so its rows are kept under the digest of its manifest: those of a pack of runs (see
``run_index``) beside it in the store, and mapped into memory from a folder of this machine; those of a few others
in memory, and for a store on S3 in the folder too. What is kept so is never believed over the run: another
digest is another table, and a file that is not what was written is made again from the runs.
"""

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.errors import BeamRayError, Damaged, Unusable
from beam_ray.memory import release_memory
from beam_ray.store.lease import driver_of
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.parquet import decode, encode
from beam_ray.store.run_index import PREFIX, IndexedRun, Listing, Pack, RunIndex, run_index
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME

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


RECENT_S = 2.0


@dataclass(frozen=True)
class Found:
    """The table, and what is not in it."""

    table: pa.Table
    unread: int = 0
    """Runs that are not read yet."""
    unreadable: dict[str, Damaged] = field(default_factory=dict)
    """Runs that are left out, with why."""
    runs: tuple[Run, ...] = ()
    """The runs that were listed for it."""


@dataclass(frozen=True)
class _Piece:
    """The rows of one run, in a table of its own or of its pack."""

    created_at: str
    run_id: str
    state: str
    table: pa.Table
    start: int
    rows: int


class OutcomeIndex:
    """The index of a store; for any number of threads."""

    def __init__(self, objects: Objects, folder: Path | None = None):
        self._objects = objects
        self._runs = RunIndex(objects, folder) if folder else run_index(objects)
        self._cache = self._runs.cache
        self._reading, self._starting = threading.Lock(), threading.Lock()
        self._packs: dict[str, tuple[pa.Table, dict[str, tuple[int, int]]]] = {}
        """Pack to its rows, and where in them those of each run are."""
        self._tables: dict[str, tuple[str, str, pa.Table]] = {}
        """Run to when it was begun, its state and its rows; of runs that are in no pack, or whose pack is being read."""
        self._unreadable: dict[str, Damaged] = {}
        self._whole: tuple[tuple[str, ...], pa.Table] | None = None
        self._last: tuple[float, Found | None] = 0.0, None
        """What was found last, and when."""
        self._filling: threading.Thread | None = None

    def table(self) -> pa.Table:
        """All tasks, the newest run first and in the order of the run."""
        return self.find().table

    def recent(self) -> pa.Table:
        """All tasks; for a store on S3 as they were at most RECENT_S ago, which asks nothing of it."""
        moment, found = self._last
        if found is None or not self._cache.remote or time.monotonic() - moment > RECENT_S:
            return self.table()
        return found.table

    def find(self, run: str | None = None, patience: float | None = None) -> Found:
        """
        All tasks, or those of one *run*, which is then the only one that is read.

        Args:
            patience: Seconds to wait for runs that were never read on this machine; they are read on, the newest first. None waits for all.
        """
        if run is not None and self._whole is None:
            return self._one(Run(self._objects, run))
        listing = self._runs.listing()
        if patience is None:
            self._fill(listing)
        elif any(pack.name not in self._packs for pack, _ in listing.packs):
            with self._starting:
                if self._filling is None or not self._filling.is_alive():
                    self._filling = threading.Thread(target=self._fill, args=[listing], daemon=True)
                    self._filling.start()
            self._filling.join(patience)
        else:
            self._fill(listing)
        return self._gathered(listing)

    def _gathered(self, listing: Listing) -> Found:
        pieces, unread = list[_Piece](), 0
        for pack, runs in listing.packs:
            table, places = self._packs.get(pack.name, (None, {}))
            for run in runs:
                if run.run_id in places:
                    pieces.append(_Piece(run.created_at, run.run_id, run.row["manifest"], table, *places[run.run_id]))
                elif (own := self._own(run)) is None:
                    unread += run.run_id not in self._unreadable
                else:
                    pieces.append(own)
        for other in (*listing.loose, *listing.others):
            if (own := self._own(other)) is None:
                unread += other.run_id not in self._unreadable
            elif own.rows:
                pieces.append(own)
        pieces.sort(key=lambda piece: (piece.created_at, piece.run_id), reverse=True)
        state = tuple(f"{piece.run_id} {piece.state} {id(piece.table)}" for piece in pieces)
        unreadable = dict(self._unreadable)
        known = self._whole
        if known is None or known[0] != state:
            known = state, pa.concat_tables([*_joined(pieces)] or [INDEX.empty_table()])
            if not unread:
                self._whole = known
        found = Found(known[1], unread, unreadable, tuple(listing.runs))
        if not unread:
            self._last = time.monotonic(), found
        return found

    def _own(self, run: Run) -> _Piece | None:
        found = self._tables.get(run.run_id)
        return _Piece(found[0], run.run_id, found[1], found[2], 0, found[2].num_rows) if found else None

    def _fill(self, listing: Listing) -> None:
        """Read what is not read yet."""
        with self._reading:
            for run in sorted(listing.loose, key=lambda run: run.created_at, reverse=True):
                self._read(run, run.row["manifest"])
            for other in listing.others:
                self._refresh(other)
            missing = [(pack, runs) for pack, runs in listing.packs if pack.name not in self._packs]
            for pack, runs in sorted(missing, key=lambda entry: entry[0].runs[0].created_at, reverse=True):
                self._packs[pack.name] = self._opened(pack, runs)
                for packed in runs:
                    self._tables.pop(packed.run_id, None)
            for pack, runs in listing.packs:
                for run in runs:
                    if run.run_id not in self._packs[pack.name][1]:
                        self._read(run, run.row["manifest"])
            names = {pack.name for pack, _ in listing.packs}
            if missing:
                self._cache.keep_only([*names, *(run.row["manifest"] for run in listing.loose)], ".arrow", ".parquet")
                self._cache.keep_only([run.row["manifest"] for run in listing.runs if isinstance(run, IndexedRun)], ".counts")
            self._packs = {name: known for name, known in self._packs.items() if name in names}
            kept = {run.run_id for run in (*listing.loose, *listing.others)}
            kept |= {run.run_id for pack, runs in listing.packs for run in runs if run.run_id not in self._packs[pack.name][1]}
            self._tables = {run_id: known for run_id, known in self._tables.items() if run_id in kept}
            self._unreadable = {run_id: error for run_id, error in self._unreadable.items() if run_id in kept}
            if missing:
                # what was shown meanwhile is of the tables that were read one by one
                self._gathered(listing)
                release_memory()

    # -- packs ---------------------------------------------------------------------------------

    def _opened(self, pack: Pack, runs: Sequence[IndexedRun]) -> tuple[pa.Table, dict[str, tuple[int, int]]]:
        found = self._cache.map_table(pack.name, INDEX)
        if found is None:
            table, rows = self._of_store(pack) or self._of_runs(pack, runs)
            found = self._cache.keep_table(pack.name, table, rows)
        places, start = {}, 0
        for run_id, count in found[1].items():
            places[run_id] = start, count
            start += count
        return found[0], places

    def _of_store(self, pack: Pack) -> tuple[pa.Table, dict[str, int]] | None:
        key = f"{PREFIX}{pack.name}.tasks.parquet"
        try:
            table = decode(self._objects.read(key), INDEX, key)
        except NotThere:
            return None
        except Damaged:
            with contextlib.suppress(BeamRayError):
                self._objects.delete(key)
            return None
        # in the order in which they stand in the table, those without any last
        rows = {str(entry["values"]): int(entry["counts"]) for entry in pc.value_counts(table["run_id"]).to_pylist()}
        return table, {**rows, **{run.run_id: 0 for run in pack.runs if run.run_id not in rows}}

    def _of_runs(self, pack: Pack, runs: Sequence[IndexedRun]) -> tuple[pa.Table, dict[str, int]]:
        newest_first = sorted(runs, key=lambda run: (run.created_at, run.run_id), reverse=True)
        for run in newest_first:
            self._read(run, run.row["manifest"])
        read = [run.run_id for run in newest_first if run.run_id in self._tables]
        tables = [self._tables[run_id][2] for run_id in read]
        table = pa.concat_tables([INDEX.empty_table(), *tables])
        if len(read) == len(pack.runs):
            with contextlib.suppress(BeamRayError):  # a store that cannot be written is read run by run
                self._objects.create(f"{PREFIX}{pack.name}.tasks.parquet", encode(INDEX, table))
        return table, {run_id: self._tables[run_id][2].num_rows for run_id in read}

    # -- runs ----------------------------------------------------------------------------------

    def _one(self, run: Run) -> Found:
        try:
            return Found(rows_of(run), runs=(run,))
        except Unusable:
            return Found(INDEX.empty_table())
        except Damaged as error:
            return Found(INDEX.empty_table(), unreadable={run.run_id: error})

    def _refresh(self, run: Run) -> None:
        """Read a run that is not finished, or was not when the runs were listed."""
        try:
            done = sum(node == "_outcome" for node, _ in run.parts())
            self._read(run, f"open {done} {driver_of(run) is not None}")
        except Unusable:
            self._tables[run.run_id] = "", "never begun", INDEX.empty_table()
        except Damaged as error:
            self._tables.pop(run.run_id, None)
            self._unreadable[run.run_id] = error

    def _read(self, run: Run, state: str) -> None:
        known = self._tables.get(run.run_id)
        if known and known[1] == state:
            return
        try:
            self._tables[run.run_id] = run.created_at, state, self._rows(run, state)
            self._unreadable.pop(run.run_id, None)
        except Unusable:
            self._tables[run.run_id] = "", "never begun", INDEX.empty_table()
        except Damaged as error:
            self._tables.pop(run.run_id, None)
            self._unreadable[run.run_id] = error

    def _rows(self, run: Run, state: str) -> pa.Table:
        name = f"{state}.parquet" if self._cache.remote and isinstance(run, IndexedRun) else ""
        if name and (kept := self._cache.read(name)):
            with contextlib.suppress(Damaged):
                return decode(kept, INDEX, name)
        table = rows_of(run)
        if name:
            self._cache.write(name, encode(INDEX, table))
        return table


@lru_cache(maxsize=8)
def outcome_index(objects: Objects) -> OutcomeIndex:
    """The index of these objects, of which what was read is kept."""
    return OutcomeIndex(objects)


def _joined(pieces: Iterable[_Piece]) -> Iterator[pa.Table]:
    """The pieces as few tables: what stands side by side in a table stays one."""
    current: tuple[pa.Table, int, int] | None = None
    for piece in pieces:
        if current and current[0] is piece.table and current[2] == piece.start:
            current = current[0], current[1], piece.start + piece.rows
            continue
        if current:
            yield current[0].slice(current[1], current[2] - current[1])
        current = piece.table, piece.start, piece.start + piece.rows
    if current:
        yield current[0].slice(current[1], current[2] - current[1])


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
    for each in _OF_RUN:
        columns[each.name] = pa.array([of_run[each.name]] * len(ids), each.type)
    return pa.table({field.name: columns[field.name] for field in INDEX}, schema=INDEX)


def _chunks(column: pa.Array) -> list[pa.Array]:
    return list(column.chunks) if isinstance(column, pa.ChunkedArray) else [column]
