"""
The rows of a shard, streaming from node to node.

A row moves on to its next node as soon as its predecessors have finished; no row waits for
another. A node's rows are committed as one part when the last of them has finished, after
the parts of the nodes before it: so a part never depends on rows that lost a race.
Rows that wait for a batch go no further; a node with such rows is not committed.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from beam_ray.address import Address
from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import BeamRayError, StepFailed, Stopped
from beam_ray.llm.request import Deferred
from beam_ray.run.context import RAN, StepContext, TaskTrial
from beam_ray.run.outcome import outcome_row, output_nodes
from beam_ray.run.prompt_order import grouped_by_beginning
from beam_ray.run.step import failed_row, run_step
from beam_ray.run.step_row import output_of
from beam_ray.store.runs import Run
from beam_ray.store.tables import StepRow

OUTCOME_NODE = "_outcome"


class ShardLost(BeamRayError):
    """Another writer committed different rows for a part: this shard must be read again."""


RunElsewhere = Callable[[str, int], Awaitable[bool]]
"""Runs a node of a shard where its resources are; whether its part is committed, since no row of it waits for a batch."""


class Shard:
    """One shard of a run in one runner."""

    def __init__(
        self,
        context: StepContext,
        run: Run,
        number: int,
        tasks: list[TaskTrial],
        window: asyncio.Semaphore,
        *,
        run_elsewhere: RunElsewhere | None = None,
        crashed_rows: Mapping[tuple[str, int], str] | None = None,
        only: str | None = None,
    ):
        self.context, self.run, self.number, self.tasks, self.window = context, run, number, tasks, window
        self.workflow = context.workflow
        self.elsewhere = {name for name, node in self.workflow.nodes.items() if node.resources and run_elsewhere and name != only}
        self._run_elsewhere = run_elsewhere
        self.crashed_rows = crashed_rows or {}
        self.only = only
        self.rows: dict[str, dict[tuple[str, int], StepRow]] = {name: {} for name in self.workflow.order}
        self.deferred: dict[str, set[tuple[str, int]]] = {name: set() for name in self.workflow.order}
        """Rows that wait for a batch, at this node or before it."""
        self.at_rest = {name: asyncio.Event() for name in self.workflow.order}
        """Whether every row of a node is finished or deferred."""
        self.committed = {name: asyncio.Event() for name in self.workflow.order}
        self.ready = {name: asyncio.Event() for name in self.elsewhere}
        self.replayed: set[str] = set()
        self._streams: asyncio.Task[None] | None = None
        self._started = asyncio.Lock()
        self._last_committed = ""
        self._stopped: Stopped | None = None

    async def step(self, node: str) -> bool:
        """
        Run one node for all rows of the shard, and commit its part; the last node commits the outcome too.

        False if rows of it wait for a batch, so that it is not committed.
        """
        async with self._started:
            if self._streams is None:
                await self._replay()
                self._streams = asyncio.create_task(self._stream())
        if node in self.elsewhere and node not in self.replayed:
            await self._wait_elsewhere(node)
        await self._until(self.at_rest[node])
        if self.deferred[node]:
            return False
        await self._commit(node)
        if all(event.is_set() for event in self.committed.values()) and node == self._last_committed:
            await self._commit_outcome()
        return True

    async def run_rows(self) -> None:
        """Run every node for the rows and commit nothing: ``context.on_row`` receives them."""
        await self._replay()
        try:
            await self._stream()
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def settled(self) -> None:
        """Wait until no row is in flight any more."""
        if self._streams:
            await asyncio.wait({self._streams})

    async def stop(self) -> None:
        """Stop: rows in flight are dropped."""
        if self._streams:
            self._streams.cancel()
            await asyncio.gather(self._streams, return_exceptions=True)

    # -- rows -------------------------------------------------------------------------------

    async def _replay(self) -> None:
        """Read the rows of parts that are already committed."""
        if self.only is None and self.context.untouched(self.number):
            return
        names = [name for name in self.workflow.order if name != self.only]
        parts = await asyncio.gather(*(asyncio.to_thread(self.run.part, name, self.number) for name in names))
        for name, part in zip(names, parts, strict=True):
            if part is not None:
                self._take_part(name, part.to_pylist())
                self.replayed.add(name)

    def _take_part(self, name: str, rows: list[StepRow]) -> None:
        self.rows[name] = {(row["task_id"], row["trial"]): row for row in rows}
        self.at_rest[name].set()
        self.committed[name].set()
        self._last_committed = name

    async def _stream(self) -> None:
        if all(event.is_set() for event in self.at_rest.values()):
            return
        # without branches a row needs no coroutine per node
        line = (
            not self.elsewhere
            and self.only is None
            and all(
                node.after == tuple(self.workflow.order[index - 1 : index])
                for index, node in enumerate(map(self.workflow.nodes.get, self.workflow.order))
                if node and index
            )
        )
        async with asyncio.TaskGroup() as group:
            for task in grouped_by_beginning(self.tasks, self.workflow):
                group.create_task(self._until_stopped(self._row_in_line(task) if line else self._row_of_graph(task)))
                # the row's first request goes out before the next rows begin, and later answers come one after the other too
                await asyncio.sleep(0)
        if self._stopped:
            raise self._stopped

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do *work*; when it must stop, the other rows still end the calls that they have in flight."""
        if self._stopped:
            work.close()
            return
        try:
            await work
        except Stopped as error:
            self._stopped = self._stopped or error
            self.context.start_no_more(error)

    async def _row_in_line(self, task: TaskTrial) -> None:
        values = task.values(self.workflow)
        async with self.window:
            for name in self.workflow.order:
                if self._stopped:
                    return
                await self._one(name, task, values)

    async def _row_of_graph(self, task: TaskTrial) -> None:
        values = task.values(self.workflow)
        done = {name: asyncio.Event() for name in self.workflow.order}
        held = [True]
        await self.window.acquire()

        async def node(name: str) -> None:
            for parent in self.workflow.nodes[name].after:
                await done[parent].wait()
            if self._stopped:
                done[name].set()
                return
            if name in self.elsewhere and name not in self.replayed:
                # the node runs elsewhere for all rows at once, so this row must give up its place in the window
                if held[0] and [event for event in done.values() if not event.is_set()] and self._only_external_left(done):
                    held[0] = False
                    self.window.release()
                await self.ready[name].wait()
            if (task.task_id, task.trial) not in self.deferred[name]:
                await self._until_stopped(self._one(name, task, values))
            done[name].set()

        try:
            async with asyncio.TaskGroup() as group:
                for name in self.workflow.order:
                    if self.only is None or name == self.only or name in self.workflow.upstream[self.only]:
                        group.create_task(node(name))
        finally:
            if held[0]:
                self.window.release()

    def _only_external_left(self, done: Mapping[str, asyncio.Event]) -> bool:
        """Whether everything left of this row waits for a node that runs elsewhere."""
        waits = {name for name in self.workflow.order if name in self.elsewhere and name not in self.replayed and not done[name].is_set()}
        return all(event.is_set() or name in waits or self.workflow.upstream[name] & waits for name, event in done.items())

    async def _one(self, name: str, task: TaskTrial, values: JsonObject) -> None:
        key = (task.task_id, task.trial)
        row = self.rows[name].get(key)
        if row is None and any(key in self.deferred[parent] for parent in self.workflow.nodes[name].after):
            self._defer(name, key)
            return
        if row is None:
            agents = [agent for agent in self.context.nodes[name].agents_taken_in if key in self.rows[agent]]
            above = {parent: self.rows[parent][key] for parent in (*self.workflow.nodes[name].after, *agents)}
            if key in self.crashed_rows and self.context.spooled_row(name, task) is None and all(row["outcome"] in RAN for row in above.values()):
                row = failed_row(self.context, name, task, StepFailed(self.crashed_rows[key]))
            else:
                try:
                    row = await run_step(self.context, name, task, values, above)
                except Deferred:
                    self._defer(name, key)
                    return
            self.rows[name][key] = row
            self.context.on_row(row)
            self._settle(name)
        values[name] = output_of(row)

    def _defer(self, name: str, key: tuple[str, int]) -> None:
        self.deferred[name].add(key)
        self._settle(name)

    def _settle(self, name: str) -> None:
        if len(self.rows[name]) + len(self.deferred[name]) == len(self.tasks):
            self.at_rest[name].set()

    async def _wait_elsewhere(self, node: str) -> None:
        for parent in self.workflow.nodes[node].after:
            await self._until(self.at_rest[parent])
        waits = any(self.deferred[parent] for parent in self.workflow.nodes[node].after)
        for parent in self.workflow.nodes[node].after:
            if not waits:
                await self._until(self.committed[parent])
        assert self._run_elsewhere
        if waits or not await self._run_elsewhere(node, self.number):
            # it has all rows of its shard or none
            self.deferred[node] = {(task.task_id, task.trial) for task in self.tasks}
            self.at_rest[node].set()
            self.ready[node].set()
            return
        part = await asyncio.to_thread(self.run.part, node, self.number)
        if part is None:
            raise ShardLost(f"{Address(self.run.run_id)}: the part of {node!r} is missing")
        self._take_part(node, part.to_pylist())
        self.replayed.add(node)
        self.ready[node].set()

    async def _until(self, event: asyncio.Event) -> None:
        """Wait for *event*, or raise the error that keeps it from happening."""
        if event.is_set():
            return
        assert self._streams
        waiting = asyncio.create_task(event.wait())
        await asyncio.wait({waiting, self._streams}, return_when=asyncio.FIRST_COMPLETED)
        if not event.is_set() and self._streams.done():
            waiting.cancel()
            error = self._streams.exception() if not self._streams.cancelled() else None
            raise _first(error) if error else Stopped("the run was stopped")
        if not event.is_set():
            await event.wait()
        waiting.cancel()

    # -- committing -------------------------------------------------------------------------

    async def _commit(self, node: str) -> None:
        if self.committed[node].is_set():
            return
        for parent in self.workflow.nodes[node].after:
            await self.committed[parent].wait()
        rows = [self.rows[node][(task.task_id, task.trial)] for task in self.tasks]
        won = await asyncio.to_thread(self.run.commit_part, node, self.number, rows)
        if not won:
            kept = await asyncio.to_thread(self.run.part, node, self.number)
            if kept is None or [_identity(row) for row in kept.to_pylist()] != [_identity(row) for row in rows]:
                raise ShardLost(f"{Address(self.run.run_id)}: another writer committed node {node!r} of shard {self.number} first")
        self._last_committed = node
        self.committed[node].set()

    async def _commit_outcome(self) -> None:
        ends = output_nodes(self.workflow)
        rows = [outcome_row(self.run.run_id, task, self._steps(task), ends) for task in self.tasks]
        await asyncio.to_thread(self.run.commit_outcome, self.number, rows)

    def _steps(self, task: TaskTrial) -> list[StepRow]:
        return [self.rows[name][task.task_id, task.trial] for name in self.workflow.order]


def _first(error: BaseException) -> BaseException:
    """The first of several rows' errors."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _identity(row: StepRow) -> tuple[Any, ...]:
    return row["task_id"], row["trial"], row["outcome"], row.get("output"), row.get("score")
