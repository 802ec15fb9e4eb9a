"""
The spool of a runner: finished rows whose shard is not finished, and the calls of steps that are not.

Files are written about once a second, so that a paid answer is in the store within a second. Each
call of a step is written once: an open row has only those that no earlier file has, and a finished
row has stubs in their place. Reading the spool joins them again.
"""

import asyncio
import contextlib
import datetime
from collections.abc import Awaitable, Callable
from typing import cast

from beam_ray.errors import Stopped
from beam_ray.store.call_table import CALL, CallRow
from beam_ray.store.runs import Run
from beam_ray.store.tables import StepRow

SPOOL_S = 0.8
"""Seconds between the beginnings of two spool files; with the time that writing takes, an answer is in the store within a second."""

StepKey = tuple[str, str, int]
"""A node, a task's id and a trial."""

CallKey = tuple[int, int, datetime.datetime]
"""An attempt, the number of a call in it, and when it began: a step may be executed again, and number its calls anew."""


class Spool:
    """Keeps a runner's rows until their parts are committed."""

    def __init__(self, run: Run, runner: str, first: Callable[[], Awaitable[None]] | None = None):
        """
        Args:
            first: Called before each file is written: what rows refer to is stored before them.
        """
        self.run, self.runner, self._first = run, runner, first
        self._waiting: dict[StepKey, StepRow] = {}
        self._number = 0
        self._shards: dict[int, set[int]] = {}
        """Spool file to the shards that it has rows of."""
        self._kept: dict[int, dict[StepKey, set[CallKey]]] = {}
        """Unfinished shard to the calls of its steps that are in a file."""
        self._committed: set[int] = set()
        self._writing: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()

    def begin(self) -> None:
        """Write the waiting rows about once a second from now on."""
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    def require(self) -> None:
        """Raise the error that keeps rows from being written: what could not be stored is not to be paid for."""
        if self._writing and self._writing.done() and not self._writing.cancelled() and (fault := self._writing.exception()):
            raise fault

    def add(self, row: StepRow) -> None:
        """Write *row* with the next file. It takes the place of an open row of the same step, and has its calls."""
        key = step_key(row)
        before = self._waiting.pop(key, None)
        if before and row["outcome"] == "open":
            row = {**row, "call_rows": [*(before.get("call_rows") or ()), *(row.get("call_rows") or ())]}
        self._waiting[key] = row

    def forget(self, shard: int) -> None:
        """Write no rows of a shard whose parts are committed."""
        self._committed.add(shard)
        self._kept.pop(shard, None)
        for key in [key for key, row in self._waiting.items() if row["shard"] == shard]:
            del self._waiting[key]

    async def flush(self, *, last: bool = False) -> None:
        """Write the waiting rows; unless these are the *last* ones, also delete files whose rows are all in parts."""
        async with self._flushing:
            if self._first:
                await self._first()
            rows, self._waiting = self._waiting, {}
            if rows:
                number = self._number
                self._number += 1
                try:
                    await asyncio.to_thread(self.run.spool, self.runner, number, [self._with_stubs(row) for row in rows.values()])
                except BaseException:
                    newer, self._waiting = self._waiting, rows
                    for row in newer.values():
                        self.add(row)
                    raise
                self._shards[number] = {row["shard"] for row in rows.values()}
                for row in rows.values():
                    if row.get("call_rows"):
                        self._kept_of(row).update(map(call_key, row["call_rows"] or ()))
            # a long run would leave so many files that resuming it, and deleting them, would take as long as the run
            gone = [] if last else [number for number, shards in self._shards.items() if shards <= self._committed]
            for number in gone:
                del self._shards[number]
            if gone:
                with contextlib.suppress(Stopped):
                    await asyncio.to_thread(self.run.unspool, self.runner, gone)

    async def close(self) -> None:
        """Write the waiting rows, and no more."""
        if self._writing:
            self._writing.cancel()
        await self.flush(last=True)

    def read(self, shards: frozenset[int]) -> dict[StepKey, StepRow]:
        """The rows that earlier drivers of this run spooled of unfinished *shards*, with all of their calls."""
        rows: dict[StepKey, StepRow] = {}
        calls: dict[StepKey, dict[CallKey, CallRow]] = {}
        committed = self.run.parts()
        for table in self.run.spooled():
            for row in table.to_pylist():
                key = step_key(row)
                if row["shard"] not in shards or (row["node"], row["shard"]) in committed:
                    continue
                for call in row.get("call_rows") or ():
                    if not _is_stub(call):
                        calls.setdefault(key, {})[call_key(call)] = call
                before = rows.get(key)
                if before is None or before["outcome"] == "open":
                    rows[key] = row
                elif row["ended_at"] == before["ended_at"] and len(row.get("call_rows") or ()) > len(before.get("call_rows") or ()):
                    rows[key] = row  # the same row; the other is from a merged file whose calls were not merged yet
        for key, row in rows.items():
            if row.get("call_rows") or key in calls:
                found = calls.get(key, {})
                self._kept_of(row).update(found)
                rows[key] = joined(row, found)
        return rows

    def _kept_of(self, row: StepRow) -> set[CallKey]:
        return self._kept.setdefault(row["shard"], {}).setdefault(step_key(row), set())

    def _with_stubs(self, row: StepRow) -> StepRow:
        """The row as it is written: calls that an earlier file has are stubs."""
        if not row.get("call_rows"):
            return row
        kept = self._kept_of(row)
        return {**row, "call_rows": [_stub(call) if call_key(call) in kept else call for call in row["call_rows"] or ()]}

    async def _write(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + SPOOL_S
            await self.flush()
            await asyncio.sleep(max(due - clock(), 0))


def joined(row: StepRow, calls: dict[CallKey, CallRow]) -> StepRow:
    """
    A row from the spool, with its *calls*, which may be from other files.

    A finished row of which calls are lost stays finished, and says how many there were: its output is paid for.
    """
    if row["outcome"] != "open":
        return {**row, "call_rows": [calls[key] for call in row.get("call_rows") or () if (key := call_key(call)) in calls]}
    newest = {key[:2]: calls[key] for key in sorted(calls)}
    return {**row, "call_rows": list(newest.values())}


def step_key(row: StepRow) -> StepKey:
    """The step that a row is of."""
    return row["node"], row["task_id"], row["trial"]


def call_key(call: CallRow) -> CallKey:
    """Identifies a call of a step."""
    return call["attempt"], call["number"], call["started_at"]


def _is_stub(call: CallRow) -> bool:
    return call["fingerprint"] is None


_STUB = dict.fromkeys(field.name for field in CALL)


def _stub(call: CallRow) -> CallRow:
    return cast(CallRow, {**_STUB, "attempt": call["attempt"], "number": call["number"], "started_at": call["started_at"]})
