"""Finding the steps of given tasks in a run, and their calls, without reading all of it. The columns of the table are in ``tables``."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.errors import Damaged
from beam_ray.store.call_table import CALLS, CARRIED, PlacedCallRow, calls_of
from beam_ray.store.objects import NotThere
from beam_ray.store.parquet import completed, require_whole, to_table
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME, STEPS, StepRow

Key = tuple[str, int]
"""A task's id and a trial."""


def calls_of_tasks(run: Run, tasks: Iterable[str]) -> pa.Table:
    """The calls of these tasks in a run, all trials, without reading the calls of others."""
    record, rows = run.record, StepRows(run)
    keys = [(task, trial) for task in tasks for trial in range(1, record.trials + 1)]
    found = [row for node in record.plan.order if record.plan.nodes[node].records_calls for calls in rows.calls(node, keys).values() for row in calls]
    return to_table(CALLS, found)


class StepRows:
    """
    The steps of a run by task; of an unfinished one, those of the shards that are done.

    Every node has one row for every task and trial, in the same order, so one index serves
    all nodes; of a node's files only the row groups that hold wanted rows are decoded.
    For one thread at a time: an open Parquet file is no thread's but its reader's.
    """

    def __init__(self, run: Run):
        self.run = run
        self._files: dict[str, list[tuple[int, pq.ParquetFile]]] = {}
        """By node, and by ``calls of`` a node."""

    @cached_property
    def _index(self) -> dict[Key, int]:
        columns = ["task_id", "trial"]
        tables = [self.run.read(f"parts/_outcome/{shard:06d}.parquet", OUTCOME, columns) for shard in self._done]
        outcome = self.run.outcome(columns) if self.run.manifest else pa.concat_tables([OUTCOME.empty_table().select(columns), *tables])
        keys = zip(outcome["task_id"].to_pylist(), outcome["trial"].to_pylist(), strict=True)
        return {key: position for position, key in enumerate(keys)}

    def rows(self, node: str, wanted: Iterable[Key]) -> dict[Key, StepRow]:
        """The node's rows for those of the *wanted* tasks that the run has."""
        positions = self._positions(wanted)
        found: dict[Key, StepRow] = {}
        for keys, table in self._taken(node, positions, STEPS.names):
            found.update(zip(keys, completed(table, STEPS).to_pylist(), strict=True))
        return found

    def calls(self, node: str, wanted: Iterable[Key]) -> dict[Key, list[PlacedCallRow]]:
        """The calls of the node's steps for those of the *wanted* tasks that the run has recorded any of; see ``Run.calls``."""
        if self.run.manifest:
            tables = list(self._merged_calls(node, set(wanted)))
        else:
            positions = self._positions(wanted)
            tables = [calls_of(table) for _, table in self._taken(node, positions, CARRIED) if "call_rows" in table.schema.names]
        found: dict[Key, list[PlacedCallRow]] = {}
        for table in tables:
            for row in completed(table, CALLS).to_pylist():
                found.setdefault((row["task_id"], row["trial"]), []).append(row)
        return found

    def _positions(self, wanted: Iterable[Key]) -> list[tuple[int, Key]]:
        wanted = list(wanted)
        if not self.run.manifest and not all(key in self._index for key in wanted):
            # the run has gone on since
            self._files.clear()
            for known in ("_index", "_done"):
                self.__dict__.pop(known, None)
        return sorted((self._index[key], key) for key in wanted if key in self._index)

    def _taken(self, node: str, positions: list[tuple[int, Key]], columns: list[str]) -> Iterator[tuple[list[Key], pa.Table]]:
        """The rows at those positions, with their keys; of the *columns* those that the file has."""
        for start, file in self._node(node):
            for group in range(file.metadata.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                here = [(position - start, key) for position, key in positions if start <= position < stop]
                if here:
                    table = self._group(node, file, group, columns)
                    yield [key for _, key in here], table.take(pa.array([offset for offset, _ in here]))
                start = stop

    def _merged_calls(self, node: str, wanted: set[Key]) -> Iterator[pa.Table]:
        for _, file in self._opened(f"calls of {node}", self._listed("calls", node)):
            for group in range(file.metadata.num_row_groups):
                owners = self._group(node, file, group, ["task_id", "trial"])
                keys = zip(owners["task_id"].to_pylist(), owners["trial"].to_pylist(), strict=True)
                here = [place for place, key in enumerate(keys) if key in wanted]
                if here:
                    yield self._group(node, file, group, CALLS.names).take(pa.array(here))

    def _group(self, node: str, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        # asked once: each look at the schema translates all of it anew
        written = set(file.schema_arrow.names)
        there = [name for name in columns if name in written]
        try:
            return file.read_row_group(group, columns=there, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise Damaged(f"{self.run.prefix}: the steps of {node!r} are damaged: {error}") from None

    @cached_property
    def _done(self) -> list[int]:
        """The shards of an unfinished run that have their outcome, which is a shard's last part."""
        return [] if self.run.manifest else sorted(shard for node, shard in self.run.parts() if node == "_outcome")

    def _named(self, node: str) -> list[tuple[str, str]]:
        """The node's files, with the sha256 that the manifest of a finished run has for each."""
        if not self.run.manifest:
            return [(f"parts/{node}/{shard:06d}.parquet", "") for shard in self._done]
        return self._listed("steps", node)

    def _listed(self, folder: str, node: str) -> list[tuple[str, str]]:
        named = [(entry["name"], entry["sha256"]) for entry in self.run.manifest["files"]] if self.run.manifest else []
        return [(name, sha) for name, sha in named if name.startswith(f"{folder}/") and name.removeprefix(f"{folder}/").rpartition("-")[0] == node]

    def _node(self, node: str) -> list[tuple[int, pq.ParquetFile]]:
        return self._opened(node, self._named(node))

    def _opened(self, label: str, named: list[tuple[str, str]]) -> list[tuple[int, pq.ParquetFile]]:
        """The files, each with the number of rows before it; kept open under *label*."""
        if label not in self._files:
            files, start = [], 0
            for name, sha in named:
                where = f"{self.run.prefix}/{name}"
                try:
                    body = self.run.objects.read(where)
                except NotThere:
                    raise Damaged(f"{where} is missing, though the run has it") from None
                if sha and hashlib.sha256(body).hexdigest() != sha:
                    raise Damaged(f"{where} is damaged: its sha256 is not the one in the manifest")
                require_whole(body, where)
                try:
                    file = pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True, pre_buffer=False)
                except (pa.ArrowException, OSError) as error:
                    raise Damaged(f"{where} is damaged: {error}") from None
                files.append((start, file))
                start += file.metadata.num_rows
            self._files[label] = files
        return self._files[label]
