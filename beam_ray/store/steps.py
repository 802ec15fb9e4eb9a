"""Finding the rows of given tasks in a finished run, without reading all of it."""

import hashlib
from collections.abc import Iterable
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.errors import Damaged
from beam_ray.store.objects import NotThere
from beam_ray.store.runs import Run

Key = tuple[str, int]
"""A task's id and a trial."""


class StepRows:
    """
    The steps of a finished run by task.

    Every node has one row for every task and trial, in the same order, so one index serves
    all nodes; of a node's files only the row groups that hold wanted rows are decoded.
    For one thread at a time: an open Parquet file is no thread's but its reader's.
    """

    def __init__(self, run: Run):
        self.run = run
        self._files: dict[str, list[tuple[int, pq.ParquetFile]]] = {}

    @cached_property
    def _index(self) -> dict[Key, int]:
        outcome = self.run.outcome(["task_id", "trial"])
        keys = zip(outcome["task_id"].to_pylist(), outcome["trial"].to_pylist(), strict=True)
        return {key: position for position, key in enumerate(keys)}

    def rows(self, node: str, wanted: Iterable[Key]) -> dict[Key, dict[str, Any]]:
        """The node's rows for those of the *wanted* tasks that the run has."""
        positions = sorted((self._index[key], key) for key in wanted if key in self._index)
        found: dict[Key, dict[str, Any]] = {}
        for start, file in self._node(node):
            for group in range(file.metadata.num_row_groups):
                stop = start + file.metadata.row_group(group).num_rows
                here = [(position - start, key) for position, key in positions if start <= position < stop]
                if here:
                    try:
                        table = file.read_row_group(group, use_threads=False)
                    except (pa.ArrowException, OSError) as error:
                        raise Damaged(f"{self.run.prefix}: the steps of {node!r} are damaged: {error}") from None
                    taken = table.take(pa.array([offset for offset, _ in here])).to_pylist()
                    found.update(zip((key for _, key in here), taken, strict=True))
                start = stop
        return found

    def _node(self, node: str) -> list[tuple[int, pq.ParquetFile]]:
        if node not in self._files:
            files, start = [], 0
            for entry in (self.run.manifest or {"files": []})["files"]:
                if entry["name"].startswith("steps/") and entry["name"].removeprefix("steps/").rpartition("-")[0] == node:
                    where = f"{self.run.prefix}/{entry['name']}"
                    try:
                        body = self.run.objects.read(where)
                    except NotThere:
                        raise Damaged(f"{where} is missing, though the run's manifest names it") from None
                    if hashlib.sha256(body).hexdigest() != entry["sha256"]:
                        raise Damaged(f"{where} is damaged: its sha256 is not the one in the manifest")
                    files.append((start, pq.ParquetFile(pa.BufferReader(body), page_checksum_verification=True, pre_buffer=False)))
                    start += entry["rows"]
            self._files[node] = files
        return self._files[node]
