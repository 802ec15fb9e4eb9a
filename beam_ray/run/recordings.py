"""The calls that the origin of a run recorded, read as steps need them."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from beam_ray.address import parse
from beam_ray.errors import Unusable
from beam_ray.run.context import TaskTrial
from beam_ray.store.call_table import CallRow, PlacedCallRow
from beam_ray.store.key_index import Key
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import StepRow

Calls = dict[Key, list[PlacedCallRow]]


class Recordings:
    """
    The recorded calls of the origin's steps, a node of a shard at a time.

    A step that the origin itself borrowed has its calls in the run that it was borrowed from.
    """

    def __init__(self, origin: StepRows, rows: Callable[[int, str], dict[Key, StepRow]]):
        """
        Args:
            rows: The origin's rows for a shard and a node.
        """
        self._rows = rows
        self._runs = {origin.run.run_id: origin}
        self._loaded: dict[tuple[int, str], asyncio.Task[Calls]] = {}
        self._reading = asyncio.Lock()

    async def of(self, node: str, task: TaskTrial) -> Sequence[PlacedCallRow]:
        """The calls that the origin's step recorded; none where it has none."""
        part = task.shard, node
        if part not in self._loaded:
            self._loaded[part] = asyncio.create_task(self._load(*part))
        return (await self._loaded[part]).get((task.task_id, task.trial), ())

    async def of_row(self, row: StepRow) -> Sequence[CallRow]:
        """The calls of a step of this run, which it has made itself, or which are those of the step that it is borrowed from."""
        if row.get("call_rows") or not row["borrowed_from"]:
            return row.get("call_rows") or ()
        key = row["task_id"], row["trial"]
        async with self._reading:
            return (await asyncio.to_thread(recorded_calls, self._runs, {key: row})).get(key, ())

    def forget(self, shard: int) -> None:
        """Drop what was read for a shard."""
        for part in [part for part in self._loaded if part[0] == shard]:
            del self._loaded[part]

    async def _load(self, shard: int, node: str) -> Calls:
        # an open Parquet file is read by one thread at a time
        async with self._reading:
            return await asyncio.to_thread(recorded_calls, self._runs, self._rows(shard, node))


def recorded_calls(runs: dict[str, StepRows], rows: Mapping[Key, StepRow]) -> Calls:
    """
    The calls of stored steps, wherever they are recorded.

    Args:
        runs: Open runs by id; the run of the *rows* is among them, and runs that they are borrowed from are added.
    """
    places: dict[tuple[str, str], dict[Key, Key]] = {}
    for key, row in rows.items():
        run_id, node, there = row["run_id"], row["node"], key
        if row["borrowed_from"]:
            address = parse(row["borrowed_from"])
            run_id, node, there = address.run, address.node, (address.task, address.trial)
        places.setdefault((run_id, node), {})[there] = key
    found: Calls = {}
    for (run_id, node), keys in places.items():
        if run_id not in runs:
            runs[run_id] = StepRows(Run(next(iter(runs.values())).run.objects, run_id))
        try:
            calls = runs[run_id].calls(node, keys)
        except Unusable:
            continue  # a run that is not in this store, such as one that was left out of an imported backtest
        found |= {keys[there]: made for there, made in calls.items()}
    return found
