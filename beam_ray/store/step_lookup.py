"""Finding the steps of given tasks in a run, without reading all of it. The columns of the table are in ``tables``."""

import hashlib
from collections.abc import Iterable
from functools import cached_property

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.errors import Damaged
from beam_ray.store.objects import NotThere
from beam_ray.store.parquet import completed, require_whole
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME, STEPS, StepRow

Key = tuple[str, int]
"""A task's id and a trial."""


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

    @cached_property
    def _index(self) -> dict[Key, int]:
        columns = ["task_id", "trial"]
        tables = [self.run.read(f"parts/_outcome/{shard:06d}.parquet", OUTCOME, columns) for shard in self._done]
        outcome = self.run.outcome(columns) if self.run.manifest else pa.concat_tables([OUTCOME.empty_table().select(columns), *tables])
        keys = zip(outcome["task_id"].to_pylist(), outcome["trial"].to_pylist(), strict=True)
        return {key: position for position, key in enumerate(keys)}

    def rows(self, node: str, wanted: Iterable[Key]) -> dict[Key, StepRow]:
        """The node's rows for those of the *wanted* tasks that the run has."""
        wanted = list(wanted)
        if not self.run.manifest and not all(key in self._index for key in wanted):
            # the run has gone on since
            self._files.clear()
            for known in ("_index", "_done"):
                self.__dict__.pop(known, None)
        positions = sorted((self._index[key], key) for key in wanted if key in self._index)
        found: dict[Key, StepRow] = {}
        for start, file in self._node(node):
            for group in range(file.metadata.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                here = [(position - start, key) for position, key in positions if start <= position < stop]
                if here:
                    try:
                        table = completed(file.read_row_group(group, use_threads=False), STEPS)
                    except (pa.ArrowException, OSError) as error:
                        raise Damaged(f"{self.run.prefix}: the steps of {node!r} are damaged: {error}") from None
                    taken = table.take(pa.array([offset for offset, _ in here])).to_pylist()
                    found.update(zip((key for _, key in here), taken, strict=True))
                start = stop
        return found

    @cached_property
    def _done(self) -> list[int]:
        """The shards of an unfinished run that have their outcome, which is a shard's last part."""
        return [] if self.run.manifest else sorted(shard for node, shard in self.run.parts() if node == "_outcome")

    def _named(self, node: str) -> list[tuple[str, str]]:
        """The node's files, with the sha256 that the manifest of a finished run has for each."""
        if not self.run.manifest:
            return [(f"parts/{node}/{shard:06d}.parquet", "") for shard in self._done]
        named = [(entry["name"], entry["sha256"]) for entry in self.run.manifest["files"]]
        return [(name, sha) for name, sha in named if name.startswith("steps/") and name.removeprefix("steps/").rpartition("-")[0] == node]

    def _node(self, node: str) -> list[tuple[int, pq.ParquetFile]]:
        if node not in self._files:
            files, start = [], 0
            for name, sha in self._named(node):
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
            self._files[node] = files
        return self._files[node]
