"""Finding the steps of given tasks in a run, and their calls, without reading all of it. The columns of the table are in ``tables``."""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.errors import Damaged
from beam_ray.store.call_table import CALLS, CARRIED, PlacedCallRow, calls_of
from beam_ray.store.key_index import ID_COLUMNS, Key, KeyIndex
from beam_ray.store.objects import NotThere
from beam_ray.store.parquet import completed, to_table
from beam_ray.store.row_groups import RowGroups
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME, PART, STEPS, FileEntry, OutcomeRow, StepRow

if TYPE_CHECKING:
    import numpy as np

OPEN_FILES = 64
"""Files whose footers are in memory at most."""


def calls_of_tasks(run: Run, tasks: Iterable[str]) -> pa.Table:
    """The calls of these tasks in a run, all trials, without reading the calls of others."""
    record, rows = run.record, StepRows(run)
    keys = [(task, trial) for task in tasks for trial in range(1, record.trials + 1)]
    found = [row for node in record.plan.order if record.plan.nodes[node].records_calls for calls in rows.calls(node, keys).values() for row in calls]
    return to_table(CALLS, found)


@dataclass(frozen=True)
class _File:
    """A file of a table: its rows are [start, stop) of the table's."""

    name: str
    start: int
    stop: int
    entry: FileEntry | None = None


class StepRows:
    """
    The steps of a run by task; of an unfinished one, those of the shards that are done.

    Every node has one row for every task and trial, in the same order, so one index serves
    all nodes; of a node's files only the row groups that hold wanted rows are read.
    For one thread at a time: an open Parquet file is no thread's but its reader's.
    """

    def __init__(self, run: Run):
        self.run = run
        self._files: dict[str, list[_File]] = {}
        """By table: outcome, steps/<node>, calls/<node>."""
        self._open: OrderedDict[str, RowGroups] = OrderedDict()
        self._forget()

    def close(self) -> None:
        """Give back the memory of its files; they are read again when rows are asked for."""
        self._forget()

    def _forget(self) -> None:
        """Look again at what the run has by now."""
        self._files.clear()
        self._open.clear()
        self._merged: bool | None = None
        self._outcome = KeyIndex(partial(self._ids, "outcome"))
        self._calls: dict[str, KeyIndex] = {}
        self._last: tuple[list[Key], list[int]] = [], []
        """The keys that were looked for last, and their rows: nodes are read one after the other."""

    def rows(self, node: str, wanted: Iterable[Key], near: int | None = None, *, columns: Sequence[str] = STEPS.names) -> dict[Key, StepRow]:
        """
        The node's rows for those of the *wanted* tasks that the run has.

        Args:
            near: The row from which on they are expected; None for where the last ones were.
            columns: What is asked of each row, which then has nothing else.
        """
        keys = list(wanted)
        return {_key(row): row for row in self._settled(lambda: self._step_rows(node, keys, near, columns))}

    def table(self, node: str, places: "Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]", columns: list[str]) -> pa.Table:
        """
        Those *columns* of the node's rows at these *places* in the run, in its order; of a node that it has not, an empty table.

        Args:
            columns: Of lists of structs also single fields, named ``column.list.element.field``.
        """
        tables = self._settled(lambda: list(self._taken(f"steps/{node}", places, columns)))
        return pa.concat_tables(tables) if tables else pa.table({})

    def outcomes(self, wanted: Iterable[Key]) -> dict[Key, OutcomeRow]:
        """The outcome of those of the *wanted* tasks that have one."""
        keys = list(wanted)
        return {_key(row): row for row in self._settled(lambda: self._outcome_rows(keys))}

    def places(self, wanted: Iterable[Key]) -> list[int]:
        """Where the rows of these tasks are in the run, in its order; a row of another one may be among them."""
        keys = list(wanted)
        return self._settled(lambda: self._places(keys))

    def calls(self, node: str, wanted: Iterable[Key]) -> dict[Key, list[PlacedCallRow]]:
        """The calls of the node's steps for those of the *wanted* tasks that the run has recorded any of; see ``Run.calls``."""
        keys = list(wanted)
        found: dict[Key, list[PlacedCallRow]] = {}
        for row in self._settled(lambda: self._call_rows(node, keys)):
            found.setdefault(_key(row), []).append(row)
        return found

    def _settled(self, read: Callable[[], list[Any]]) -> list[Any]:
        """What *read* finds; once more where the run was merged meanwhile, so that its parts are gone."""
        try:
            return read()
        except NotThere:
            self._forget()
        try:
            return read()
        except NotThere as error:
            raise Damaged(f"{error.args[0]} is missing, though the run has it") from None

    def _step_rows(self, node: str, wanted: Sequence[Key], near: int | None, columns: Sequence[str]) -> list[StepRow]:
        places, keys = self._places(wanted, near), set(wanted)
        schema = pa.schema([field for field in STEPS if field.name in columns or field.name in ID_COLUMNS])
        tables = self._taken(f"steps/{node}", places, schema.names)
        return [row for table in tables for row in completed(table, schema).to_pylist() if _key(row) in keys]

    def _outcome_rows(self, wanted: Sequence[Key]) -> list[OutcomeRow]:
        keys = set(wanted)
        tables = self._taken("outcome", self._places(wanted), OUTCOME.names)
        return [row for table in tables for row in completed(table, OUTCOME).to_pylist() if _key(row) in keys]

    def _call_rows(self, node: str, wanted: Sequence[Key]) -> list[PlacedCallRow]:
        keys = set(wanted)
        if self._is_merged:
            index = self._calls.setdefault(node, KeyIndex(partial(self._ids, f"calls/{node}")))
            tables = list(self._taken(f"calls/{node}", index.find_all(keys), CALLS.names))
        else:
            parts = self._taken(f"steps/{node}", self._places(wanted), CARRIED)
            tables = [calls_of(table) for table in parts if "call_rows" in table.schema.names]
        return [row for table in tables for row in completed(table, CALLS).to_pylist() if _key(row) in keys]

    def _places(self, wanted: Sequence[Key], near: int | None = None) -> list[int]:
        """Where the rows of these tasks are in the tables of all nodes."""
        known, places = self._last
        if known == wanted and (self._is_merged or len(places) >= len(set(wanted))):
            return places
        places = self._outcome.find(wanted, near)
        if not self._is_merged and len(places) < len(set(wanted)):
            # the run has gone on since
            self._forget()
            places = self._outcome.find(wanted, near)
        self._last = list(wanted), places
        return places

    @property
    def _is_merged(self) -> bool:
        if self._merged is None:
            self._merged = self.run.finished
        return self._merged

    # -- files --------------------------------------------------------------------------------

    def _taken(self, table: str, places: "Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]", columns: list[str]) -> Iterator[pa.Table]:
        """The rows of a table at those places; of the *columns* those that the file has."""
        done = 0
        while done < len(places):
            start, file, group = next(self._groups(table, places[done]), (0, None, 0))
            if file is None:
                return
            begun, done = done, bisect_left(places, start + file.rows[group], done)
            yield file.read(group, columns).take(pc.subtract(pa.array(places[begun:done], pa.int64()), start))

    def _ids(self, table: str, first: int) -> Iterator[tuple[int, pa.Table]]:
        for start, file, group in self._groups(table, first):
            yield start, file.read(group, ID_COLUMNS)

    def _groups(self, table: str, first: int) -> Iterator[tuple[int, RowGroups, int]]:
        """The row groups of a table from the one on that holds the row *first*: the row that each begins with, its file, and its number."""
        if table not in self._files:
            self._files[table] = list(self._merged_files(table) if self._is_merged else self._parts(table))
        for each in self._files[table]:
            if each.stop <= first:
                continue
            file, start = self._opened(table, each), each.start
            for group, rows in enumerate(file.rows):
                if start + rows > first:
                    yield start, file, group
                start += rows

    def _merged_files(self, table: str) -> Iterator[_File]:
        start = 0
        for entry in self.run.manifest["files"] if self.run.manifest else ():
            name = entry["name"]
            if name.rpartition("-")[0] == table or name == f"{table}.parquet":
                yield _File(name, start, start + entry["rows"], entry)
                start += entry["rows"]

    def _parts(self, table: str) -> Iterator[_File]:
        """The parts of the shards that have their outcome, which is a shard's last part."""
        start, folder = 0, "_outcome" if table == "outcome" else table.removeprefix("steps/")
        done = sorted(shard for node, shard in self.run.parts() if node == "_outcome")
        if self.run.finished:
            # they were merged, and may have been deleted while they were listed
            raise NotThere(f"{self.run.prefix}/parts/")
        for shard in done:
            first, last = self.run.record.shards[shard]
            yield _File(f"parts/{folder}/{shard:06d}.parquet", start, start + last - first)
            start += last - first

    def _opened(self, table: str, file: _File) -> RowGroups:
        if file.name not in self._open:
            schema = {"outcome": OUTCOME, "steps": STEPS if self._is_merged else PART, "calls": CALLS}[table.partition("/")[0]]
            try:
                self._open[file.name] = RowGroups(self.run.objects, f"{self.run.prefix}/{file.name}", schema, file.entry)
            except NotThere:
                if file.entry is None:
                    raise
                raise Damaged(f"{self.run.prefix}/{file.name} is missing, though the run's manifest names it") from None
            if len(self._open) > OPEN_FILES:
                self._open.popitem(last=False)
        self._open.move_to_end(file.name)
        return self._open[file.name]


def _key(row: StepRow | PlacedCallRow | OutcomeRow) -> Key:
    return row["task_id"], row["trial"]
