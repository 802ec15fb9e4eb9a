"""
The rows of a shard, streaming from node to node.

A row goes on to its next node the moment everything before it is settled; no row waits for
another. A node's rows are committed as one part when the last of them is settled, after
the parts of the nodes before it: so a part never stands on rows that lost a race.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from beam_ray.address import Address
from beam_ray.define.workflow import Workflow
from beam_ray.errors import BeamRayError, StepFailed, Stopped
from beam_ray.run.context import RAN, Desk, Row, TaskRow
from beam_ray.run.step import failure, output_of, run_step
from beam_ray.store.runs import Run

OUTCOME_NODE = "_outcome"


class ShardLost(BeamRayError):
    """Another writer's rows for a part were kept, and they differ: this shard must be read anew."""


@dataclass
class Report:
    """What the call for one step of one shard gives back: never rows."""

    node: str
    shard: int
    outcomes: dict[str, int] = field(default_factory=dict)
    scored: int = 0
    passed: int = 0
    score_sum: float = 0.0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: float | None = 0.0
    replayed: bool = False
    tasks_passed: int = 0
    tasks_failed: int = 0
    """Tasks with a failed step; told with the shard's last node."""
    tasks_below: int = 0
    """Tasks without a failed step that did not pass."""


External = Callable[[str, int], Awaitable[None]]
"""Runs a node with resources of its own elsewhere; when it returns, its part is committed."""


class Shard:
    """One shard of a run in one runner."""

    def __init__(
        self,
        desk: Desk,
        run: Run,
        number: int,
        tasks: list[TaskRow],
        window: asyncio.Semaphore,
        *,
        external: External | None = None,
        poisoned: Mapping[tuple[str, int], str] | None = None,
        only: str | None = None,
    ):
        self.desk, self.run, self.number, self.tasks, self.window = desk, run, number, tasks, window
        self.workflow = desk.workflow
        self.external = {name for name, node in self.workflow.nodes.items() if node.resources and external and name != only}
        self._call_out = external
        self.poisoned = poisoned or {}
        self.only = only
        self.rows: dict[str, dict[tuple[str, int], Row]] = {name: {} for name in self.workflow.order}
        self.settled = {name: asyncio.Event() for name in self.workflow.order}
        self.committed = {name: asyncio.Event() for name in self.workflow.order}
        self.ready = {name: asyncio.Event() for name in self.external}
        self.replayed: set[str] = set()
        self._streams: asyncio.Task[None] | None = None
        self._begun = asyncio.Lock()
        self._last_committed = ""

    async def step(self, node: str) -> Report:
        """Do one node for all rows of the shard, and commit its part; what came of it."""
        async with self._begun:
            if self._streams is None:
                await self._replay()
                self._streams = asyncio.create_task(self._stream())
        if node in self.external and node not in self.replayed:
            await self._outside(node)
        await self._until(self.settled[node])
        await self._commit(node)
        report = self._report(node)
        if all(event.is_set() for event in self.committed.values()) and node == self._last_committed:
            await self._finish(report)
        return report

    async def settle(self) -> None:
        """Do every node for the rows and commit nothing: the rows are told to ``desk.keep``."""
        await self._replay()
        try:
            await self._stream()
        except BaseExceptionGroup as group:
            raise _first(group) from None

    async def stop(self) -> None:
        """Give up: rows in flight are dropped."""
        if self._streams:
            self._streams.cancel()
            await asyncio.gather(self._streams, return_exceptions=True)

    # -- rows -------------------------------------------------------------------------------

    async def _replay(self) -> None:
        """Take the rows of parts that are already committed."""
        for name in self.workflow.order:
            if self.only and name == self.only:
                continue
            part = await asyncio.to_thread(self.run.part, name, self.number)
            if part is not None:
                self._take_part(name, part.to_pylist())
                self.replayed.add(name)

    def _take_part(self, name: str, rows: list[Row]) -> None:
        self.rows[name] = {(row["task_id"], row["trial"]): row for row in rows}
        self.settled[name].set()
        self.committed[name].set()
        self._last_committed = name

    async def _stream(self) -> None:
        if all(event.is_set() for event in self.settled.values()):
            return
        # without branches a row needs no coroutine per node
        line = (
            not self.external
            and self.only is None
            and all(
                node.after == tuple(self.workflow.order[index - 1 : index])
                for index, node in enumerate(map(self.workflow.nodes.get, self.workflow.order))
                if node and index
            )
        )
        async with asyncio.TaskGroup() as group:
            for task in self.tasks:
                group.create_task(self._row_in_line(task) if line else self._row_of_graph(task))

    async def _row_in_line(self, task: TaskRow) -> None:
        values = task.values(self.workflow)
        async with self.window:
            for name in self.workflow.order:
                await self._one(name, task, values)

    async def _row_of_graph(self, task: TaskRow) -> None:
        values = task.values(self.workflow)
        done = {name: asyncio.Event() for name in self.workflow.order}
        held = [True]
        await self.window.acquire()

        async def node(name: str) -> None:
            for parent in self.workflow.nodes[name].after:
                await done[parent].wait()
            if name in self.external and name not in self.replayed:
                # the others wait for all rows at this node, so this row must let them in
                if held[0] and [event for event in done.values() if not event.is_set()] and self._only_external_left(done):
                    held[0] = False
                    self.window.release()
                await self.ready[name].wait()
            await self._one(name, task, values)
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
        """Whether all that this row can still do waits for a node that runs elsewhere."""
        waits = {name for name in self.workflow.order if name in self.external and name not in self.replayed and not done[name].is_set()}
        return all(event.is_set() or name in waits or self.workflow.upstream[name] & waits for name, event in done.items())

    async def _one(self, name: str, task: TaskRow, values: dict[str, Any]) -> None:
        key = (task.task_id, task.trial)
        row = self.rows[name].get(key)
        if row is None:
            above = {parent: self.rows[parent][key] for parent in self.workflow.nodes[name].after}
            if key in self.poisoned and self.desk.kept(name, task) is None and all(row["outcome"] in RAN for row in above.values()):
                row = failure(self.desk, name, task, StepFailed(self.poisoned[key]))
            else:
                row = await run_step(self.desk, name, task, values, above)
            self.rows[name][key] = row
            self.desk.keep(row)
            if len(self.rows[name]) == len(self.tasks):
                self.settled[name].set()
        values[name] = output_of(row)

    async def _outside(self, node: str) -> None:
        for parent in self.workflow.nodes[node].after:
            await self._until(self.committed[parent])
        assert self._call_out
        await self._call_out(node, self.number)
        part = await asyncio.to_thread(self.run.part, node, self.number)
        if part is None:
            raise ShardLost(f"{Address(self.run.run_id)}: the part of {node!r} is not there")
        self._take_part(node, part.to_pylist())
        self.replayed.add(node)
        self.ready[node].set()

    async def _until(self, event: asyncio.Event) -> None:
        """Wait for *event*, or for the fault that keeps it from coming."""
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
            if kept is None or [_essence(row) for row in kept.to_pylist()] != [_essence(row) for row in rows]:
                raise ShardLost(f"{Address(self.run.run_id)}: another writer's rows for {node!r}, shard {self.number}, were kept")
        self._last_committed = node
        self.committed[node].set()

    async def _finish(self, report: Report) -> None:
        rows = [self._outcome(task) for task in self.tasks]
        await asyncio.to_thread(self.run.commit_outcome, self.number, rows)
        report.tasks_passed = sum(row["passed"] for row in rows)
        report.tasks_failed = sum(row["outcome"] == "failed" for row in rows)
        report.tasks_below = len(rows) - report.tasks_passed - report.tasks_failed

    def _outcome(self, task: TaskRow) -> Row:
        key = (task.task_id, task.trial)
        steps = [self.rows[name][key] for name in self.workflow.order]
        return outcome_row(self.run.run_id, task, steps, ends_of(self.workflow))

    def _report(self, node: str) -> Report:
        return summed(node, self.number, self.rows[node].values(), replayed=node in self.replayed)


def _first(error: BaseException) -> BaseException:
    """Of several rows' faults the first one's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _essence(row: Row) -> tuple[Any, ...]:
    return row["task_id"], row["trial"], row["outcome"], row.get("output"), row.get("score")


def summed(node: str, shard: int, rows: Iterable[Row], *, replayed: bool) -> Report:
    """The counts of a node's rows."""
    report = Report(node, shard, replayed=replayed)
    for row in rows:
        report.outcomes[row["outcome"]] = report.outcomes.get(row["outcome"], 0) + 1
        if row.get("score") is not None:
            report.scored += 1
            report.score_sum += row["score"]
            report.passed += bool(row["passed"])
        report.calls += row["calls"] + row["judge_calls"]
        report.input_tokens += row["input_tokens"] + row["judge_input_tokens"]
        report.output_tokens += row["output_tokens"] + row["judge_output_tokens"]
        report.usd = None if report.usd is None or row["usd"] is None or row["judge_usd"] is None else report.usd + row["usd"] + row["judge_usd"]
    return report


def ends_of(workflow: Workflow) -> set[str]:
    """The nodes whose outputs are the task's: the last ones, a write after them being an effect and no result."""
    writes = {name for name, node in workflow.nodes.items() if node.effects == "write"}
    last = {name for name in workflow.order if name not in writes and workflow.downstream(name) <= writes}
    return last or {name for name in workflow.order if not workflow.downstream(name)}


def outcome_row(run_id: str, task: TaskRow, steps: list[Row], ends: set[str]) -> Row:
    """One row of the outcome table from the rows of a task's steps, in the workflow's order."""
    ran = [row for row in steps if row["outcome"] in RAN]
    scored = [row for row in ran if row.get("score") is not None]
    firsts = [row["first_score"] for row in ran if row.get("first_score") is not None]
    failed = [row for row in steps if row["outcome"] == "failed"]
    again = [attempt for row in steps for attempt in [tried for tried in row["attempts"] if not tried["error"]][1:]]
    money = [row[column] for row in steps for column in ("usd", "judge_usd")]
    counts = {word: sum(row["outcome"] == word for row in steps) for word in ("done", "borrowed", "failed", "skipped")}
    return {
        "run_id": run_id,
        "task_id": task.task_id,
        "trial": task.trial,
        "outcome": "failed" if failed else "done",
        "passed": not failed and all(row["passed"] for row in scored),
        "score": sum(row["score"] for row in scored) / len(scored) if scored else None,
        "first_score": sum(firsts) / len(firsts) if firsts else None,
        "inputs": task.inputs,
        "labels": list(task.labels),
        "routes": [row["route"] for row in ran if row.get("route")],
        "path": [row["node"] for row in ran],
        "output": json.dumps({row["node"]: output_of(row) for row in ran if row["node"] in ends}, ensure_ascii=False),
        **{f"steps_{word}": count for word, count in counts.items()},
        "steps_unscored": sum(row.get("score") is None and row.get("threshold") is not None for row in ran),
        "auto_reruns": len(again),
        "auto_rerun_tokens": sum(attempt["input_tokens"] + attempt["output_tokens"] for attempt in again),
        "auto_rerun_usd": None if any(attempt["usd"] is None for attempt in again) else sum(attempt["usd"] for attempt in again),
        "review": any(row["review"] for row in steps),
        "seconds": sum(row["seconds"] for row in steps),
        "calls": sum(row["calls"] + row["judge_calls"] for row in steps),
        "input_tokens": sum(row["input_tokens"] + row["judge_input_tokens"] for row in steps),
        "output_tokens": sum(row["output_tokens"] + row["judge_output_tokens"] for row in steps),
        "usd": None if None in money else sum(money),
        "work_seconds": sum(row["work_seconds"] for row in steps),
        "work_calls": sum(row["work_calls"] for row in steps),
        "work_tokens": sum(row["work_tokens"] for row in steps),
        "work_usd": None if any(row["work_usd"] is None for row in steps) else sum(row["work_usd"] for row in steps),
        "started_at": min(row["started_at"] for row in steps),
        "ended_at": max(row["ended_at"] for row in steps),
        "error": failed[0]["error"] if failed else None,
    }
