"""
A runner: the shards of one run in one process, on one event loop.

Nothing of Ray in here; ``cluster`` makes an actor of it. Finished rows are spooled at most
once a second until their shard's parts are committed, so that a paid answer is never more
than a second away from the store.
"""

import asyncio
import contextlib
import functools
import threading
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import stamina.instrumentation

from beam_ray.define.fingerprint import digest
from beam_ray.errors import BudgetReached, Stopped
from beam_ray.llm.request import Model
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.context import Desk, Row, TaskRow
from beam_ray.run.limiter import Grant, Limiter, Limits
from beam_ray.run.limiter import Report as Need
from beam_ray.run.permits import Leased
from beam_ray.run.shard import External, Report, Shard
from beam_ray.run.tools import Tools
from beam_ray.store.attachments import read_attachment
from beam_ray.store.objects import open_objects
from beam_ray.store.runs import Run
from beam_ray.store.steps import Key, StepRows

SPOOL_S = 0.8
"""Seconds between the beginnings of two spool files; with the time that writing takes, an answer is in the store within a second."""

RenewFor = Callable[[str, Need], Awaitable[Grant]]
"""Renews the lease of an endpoint's permits: which endpoint, and what is needed."""


@dataclass(frozen=True)
class Assignment:
    """What a runner is told when it starts."""

    store: str
    run_id: str
    models: Mapping[str, Any]
    """Name to ModelSettings or ScriptedModel."""
    runner: str
    window: int
    """Rows in flight."""
    folder: str = ""
    """Where the driver works: a cluster's workers may have been started elsewhere on its machine."""
    unfinished: frozenset[int] = frozenset()
    """Shards of which an earlier driver may have spooled rows."""
    budget: Mapping[str, float] = field(default_factory=dict)
    """What is left of max_usd, max_tokens and max_calls when the runner starts; the driver adds up what all runners spend."""
    poisoned: Mapping[Key, str] = field(default_factory=dict)


class Runner:
    """Does steps of shards."""

    def __init__(self, assignment: Assignment, renew: RenewFor | None = None, external: External | None = None):
        stamina.instrumentation.set_on_retry_hooks([])
        self.assignment = assignment
        self.objects = open_objects(assignment.store, proven=True)
        self.run = Run(self.objects, assignment.run_id)
        self.record = self.run.record
        self.workflow = self.record.plan
        self.window = asyncio.Semaphore(assignment.window)
        self.external = external
        self.shards: dict[int, asyncio.Task[Shard]] = {}
        self.progress_: dict[str, Any] = {"rows": 0, "done": 0, "borrowed": 0, "failed": 0, "skipped": 0, "calls": 0, "tokens": 0, "usd": 0.0}
        self._fresh: list[Row] = []
        self._spooled = 0
        self._spools: dict[int, set[int]] = {}
        """Our spool files, and the shards that they have rows of."""
        self._committed: set[int] = set()
        self._spooling: asyncio.Task[None] | None = None
        self._flushing = asyncio.Lock()
        self._merging = asyncio.Lock()
        self._loading = threading.Lock()
        self._kept: dict[tuple[str, str, int], Row] | None = None
        self._tasks: Any = None
        self._origin = StepRows(Run(self.objects, self.record.origin)) if self.record.origin else None
        self._origin_rows: dict[tuple[str, str, int], Row] = {}
        self._leased: dict[str, Leased] = {}
        self.models = {name: self._model(name, written, renew) for name, written in assignment.models.items()}
        self.desk = self._desk()

    async def step(self, shard: int, node: str) -> Report:
        """Do *node* for all rows of *shard*; its rows are committed when this returns."""
        if shard not in self.shards:
            self.shards[shard] = asyncio.create_task(self._open(shard))
        opened = await self.shards[shard]
        report = await opened.step(node)
        self._require_spool()
        if all(event.is_set() for event in opened.committed.values()):
            self._forget(shard)
        return report

    async def settle(self, shard: int, start: int, stop: int) -> None:
        """Do all nodes for the rows [start, stop) of *shard* and spool them: for rows that are suspected of killing."""
        self._begin_spooling()
        tasks = await asyncio.to_thread(self._load, shard, start, stop)
        await Shard(self.desk, self.run, shard, tasks, self.window, poisoned=self.assignment.poisoned).settle()
        await self._flush()

    async def only(self, shard: int, node: str) -> None:
        """Do one node of a shard whose nodes before it are committed."""
        self._begin_spooling()
        tasks = await asyncio.to_thread(self._load, shard, *self.record.shards[shard])
        await Shard(self.desk, self.run, shard, tasks, self.window, poisoned=self.assignment.poisoned, only=node).step(node)
        await self._flush()

    async def merge(self, node: str) -> list[dict[str, Any]]:
        """Merge the committed parts of *node* into its finished files."""
        # one after the other: each holds all rows of its node
        async with self._merging:
            return await asyncio.to_thread(self.run.merge, node, len(self.record.shards))

    async def progress(self) -> dict[str, Any]:
        """Counts of rows and of what they cost, since the runner started."""
        return dict(self.progress_)

    async def drop(self, shard: int) -> None:
        """Forget what is known of a shard, so that it is read anew."""
        opened = self.shards.pop(shard, None)
        if opened:
            with contextlib.suppress(Exception):
                await (await opened).stop()

    async def stop(self) -> None:
        """Spool what is finished, and end."""
        for shard in list(self.shards):
            await self.drop(shard)
        if self._spooling:
            self._spooling.cancel()
        await self._flush()
        for leased in self._leased.values():
            await leased.close()
        for model in self.models.values():
            await model.close()  # type: ignore[attr-defined]
        await self.desk.tools.close()

    # -- opening a shard ----------------------------------------------------------------------

    async def _open(self, shard: int) -> Shard:
        self._begin_spooling()
        tasks = await asyncio.to_thread(self._load, shard, *self.record.shards[shard])
        return Shard(self.desk, self.run, shard, tasks, self.window, external=self.external, poisoned=self.assignment.poisoned)

    def _load(self, shard: int, start: int, stop: int) -> list[TaskRow]:
        """The tasks of the rows [start, stop); their origin's rows are read with them."""
        # shards are opened at the same time, each in a thread of its own
        with self._loading:
            return self._load_alone(shard, start, stop)

    def _load_alone(self, shard: int, start: int, stop: int) -> list[TaskRow]:
        if self._tasks is None:
            self._tasks = self.run.tasks()
            self._kept = self._read_spool()
        trials = self.record.trials
        table = self._tasks.slice(start // trials, -(-stop // trials) - start // trials)
        rows = [TaskRow.of(row, trial, shard) for row in table.to_pylist() for trial in range(1, trials + 1)]
        rows = rows[start % trials :][: stop - start]
        if self._origin:
            keys = [(row.task_id, row.trial) for row in rows]
            for node in self.workflow.order:
                for (task_id, trial), found in self._origin.rows(node, keys).items():
                    self._origin_rows[node, task_id, trial] = found
        return rows

    def _read_spool(self) -> dict[tuple[str, str, int], Row]:
        kept: dict[tuple[str, str, int], Row] = {}
        if not self.assignment.unfinished:
            return kept
        for table in self.run.spooled():
            for row in table.to_pylist():
                key = row["node"], row["task_id"], row["trial"]
                if row["shard"] in self.assignment.unfinished and (key not in kept or kept[key]["outcome"] == "open"):
                    kept[key] = row
        return kept

    def _forget(self, shard: int) -> None:
        self._committed.add(shard)
        if self.shards.pop(shard, None):
            self._fresh = [row for row in self._fresh if row["shard"] != shard]
            gone = {row["task_id"] for row in self._tasks_of(shard)}
            for table in (self._origin_rows, self._kept or {}):
                for key in [key for key in table if key[1] in gone]:
                    del table[key]

    def _tasks_of(self, shard: int) -> list[dict[str, Any]]:
        start, stop = self.record.shards[shard]
        trials = self.record.trials
        return list(self._tasks.slice(start // trials, (stop - start) // trials).select(["task_id"]).to_pylist()) if self._origin_rows or self._kept else []

    def _require_spool(self) -> None:
        if self._spooling and self._spooling.done() and not self._spooling.cancelled() and (fault := self._spooling.exception()):
            raise fault

    def _afford(self) -> None:
        # what cannot be kept is not bought
        self._require_spool()
        spent = {"max_usd": self.progress_["usd"], "max_tokens": self.progress_["tokens"], "max_calls": self.progress_["calls"]}
        for name, limit in self.assignment.budget.items():
            if spent.get(name) is not None and spent[name] >= limit:
                raise BudgetReached(f"the budget is reached: {name}; raise it and run the same command again, what was paid for is kept")

    # -- spooling ------------------------------------------------------------------------------

    def _keep(self, row: Row) -> None:
        if row["outcome"] != "open":
            told = self.progress_
            told["rows"] += 1
            told[row["outcome"]] += 1
            told["calls"] += row["calls"] + row["judge_calls"]
            told["tokens"] += row["input_tokens"] + row["output_tokens"] + row["judge_input_tokens"] + row["judge_output_tokens"]
            told["usd"] = None if None in (told["usd"], row["usd"], row["judge_usd"]) else told["usd"] + row["usd"] + row["judge_usd"]
        if row["outcome"] == "open" or row["calls"] or row["judge_calls"] or row["seconds"] > 0:
            # a row that cost nothing is as quickly made again as read
            self._fresh.append(row)

    def _begin_spooling(self) -> None:
        if self._spooling is None:
            self._spooling = asyncio.create_task(self._spool())

    async def _spool(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + SPOOL_S
            await self._flush()
            await asyncio.sleep(max(due - clock(), 0))

    async def _flush(self) -> None:
        async with self._flushing:
            rows, self._fresh = self._fresh, []
            if rows:
                number = self._spooled
                self._spooled += 1
                try:
                    await asyncio.to_thread(self.run.spool, self.assignment.runner, number, rows)
                except BaseException:
                    self._fresh = [*rows, *self._fresh]
                    raise
                self._spools[number] = {row["shard"] for row in rows}
            # a long run would leave so many that going on, and tidying up, took as long as the run
            for number in [number for number, shards in self._spools.items() if shards <= self._committed]:
                del self._spools[number]
                with contextlib.suppress(Stopped):
                    await asyncio.to_thread(self.run.unspool, self.assignment.runner, number)

    # -- what steps work with -------------------------------------------------------------------

    def _desk(self) -> Desk:
        record = self.record
        execute = None
        if record.start_node:
            execute = frozenset({record.start_node}) | self.workflow.downstream(record.start_node)
        return Desk(
            run_id=record.run_id,
            workflow=self.workflow,
            models=self.models,
            identities={name: identity(written) for name, written in self.assignment.models.items()},
            tools=Tools(self.workflow, folder=Path(self.assignment.folder) if self.assignment.folder else None),
            allow_writes=record.allow_writes,
            sample=record.sample,
            execute=execute,
            borrow=record.borrow,
            attachments=lambda task: [read_attachment(entry, self.objects) for entry in task.attachments],
            ruler_only=record.ruler_only,
            origin=lambda node, task: self._origin_rows.get((node, task.task_id, task.trial)),
            kept=lambda node, task: (self._kept or {}).get((node, task.task_id, task.trial)),
            afford=self._afford,
            keep=self._keep,
        )

    def _model(self, name: str, written: Any, renew: RenewFor | None) -> Model:
        permits = self._permits(endpoint_of(name, written), renew)
        if isinstance(written, ModelSettings):
            # imported here: a run of tools alone needs no client
            from beam_ray.llm.model import OpenAIModel

            return OpenAIModel(written, permits, name=name)
        scripted: Model = replace(written, permits=permits)
        return scripted

    def _permits(self, endpoint: str, renew: RenewFor | None) -> Leased:
        """The permits of an endpoint, shared by all names that its model has here."""
        if endpoint not in self._leased:
            limiter = Limiter()

            async def ask(need: Need) -> Grant:
                return await renew(endpoint, need) if renew else limiter.renew("", need, asyncio.get_running_loop().time())

            limits = [limits_of(written) for name, written in self.assignment.models.items() if endpoint_of(name, written) == endpoint]
            self._leased[endpoint] = Leased(ask, functools.reduce(Limits.tightest, limits))
        return self._leased[endpoint]


def endpoint_of(name: str, written: Any) -> str:
    """What shares its limits: one model at one address by one key, however many names it has here."""
    return digest("endpoint/1", written.url, written.model, written.secret) if isinstance(written, ModelSettings) else f"scripted {name}"


def limits_of(written: Any) -> Limits:
    """The limits of a model, real or scripted."""
    return Limits(written.concurrency, written.requests_per_minute, written.tokens_per_minute)


def identity(written: Any) -> str:
    """What makes a model's answers what they are: which model, and its settings; not where it answers or what it costs."""
    if isinstance(written, ModelSettings):
        return written.identity
    return digest("model/1", written.identity)
