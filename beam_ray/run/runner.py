"""
A runner: executes shards of one run in one process, on one event loop.

It knows nothing of Ray; ``cluster`` makes an actor of it. Finished rows are spooled about
once a second until their shard's parts are committed, so that a paid answer is in the store
within a second.
"""

import asyncio
import contextlib
import functools
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import stamina.instrumentation

from beam_ray.errors import Stopped
from beam_ray.llm.request import Model
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage
from beam_ray.run.assignment import Assignment
from beam_ray.run.borrowable_rows import BorrowableRows
from beam_ray.run.budget import require_within
from beam_ray.run.context import StepContext, TaskTrial, carried_calls, no_calls
from beam_ray.run.limiter import Grant, Limiter, Limits, PermitRequest
from beam_ray.run.merging import Merging
from beam_ray.run.model_identity import endpoint_name, endpoint_of, identity, limits_of
from beam_ray.run.permits import PermitLease
from beam_ray.run.programs import Programs
from beam_ray.run.progress import Counts
from beam_ray.run.recordings import Recordings
from beam_ray.run.replay import paid_for
from beam_ray.run.shard import RunElsewhere, Shard
from beam_ray.run.spool import Spool, StepKey, step_key
from beam_ray.run.step_row import usage_of_row
from beam_ray.run.tool_imports import MissingCommand, MissingModule, functions, missing_commands, missing_modules
from beam_ray.run.tools import Tools
from beam_ray.store.attachments import keep_bytes, read_attachment, read_bytes
from beam_ray.store.batches import Batches
from beam_ray.store.call_table import PlacedCallRow
from beam_ray.store.key_index import Key
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from beam_ray.store.tables import FileEntry, StepRow
from beam_ray.store.task_rows import TaskRows

if TYPE_CHECKING:
    import httpx2

    from beam_ray.run.mailbox import RunnerMailbox

FRESH_S = 5.0
"""Seconds after its start in which a runner believes that shards which nobody had are still so: a driver that wakes up after a takeover must look."""

RenewPermits = Callable[[str, PermitRequest], Awaitable[Grant]]
"""Renews the lease of an endpoint's permits."""


class Runner:
    """Executes steps of shards."""

    def __init__(
        self,
        assignment: Assignment,
        renew: RenewPermits | None = None,
        run_elsewhere: RunElsewhere | None = None,
        http: "Callable[[], httpx2.AsyncClient] | None" = None,
    ):
        """
        Args:
            http: Returns an HTTP client whose connections stay open after this run; None opens new ones for this run.
        """
        stamina.instrumentation.set_on_retry_hooks([])
        self.assignment = assignment
        self.objects = open_objects(assignment.store, proven=True)
        self.run = Run(self.objects, assignment.run_id)
        if assignment.record is not None:
            self.run.__dict__["record"] = assignment.record
        self._began, self._others = time.monotonic(), set[int]()
        self.record = self.run.record
        self.workflow = self.record.plan
        self.window = asyncio.Semaphore(assignment.window)
        self.run_elsewhere = run_elsewhere
        self._http = http
        self.shards: dict[int, asyncio.Task[Shard]] = {}
        self._finished = self._failed = 0
        self._spent = Usage()
        """What finished and deferred steps cost."""
        self._merging = Merging(self.run)
        self._loading = threading.Lock()
        self._spooled_rows: dict[StepKey, StepRow] = {}
        self._tasks: TaskRows | None = None
        self._task_ids: dict[int, set[str]] = {}
        """By open shard."""
        self._borrowable = BorrowableRows(self.objects, self.record, self.workflow)
        self._recordings = Recordings(self._borrowable.origin, self._origin_rows_of) if self._borrowable.origin else None
        self._pinned_recordings = Recordings(self._borrowable.pinned, self._pinned_rows_of) if self._borrowable.pinned else None
        self._in_progress: dict[StepKey, Usage] = {}
        """What calls of unfinished steps cost, which is part of what is spent."""
        self._permit_leases: dict[str, PermitLease] = {}
        self._mailbox = self._opened_mailbox() if assignment.wave else None
        self._spool = Spool(self.run, assignment.runner, self._mailbox.flush if self._mailbox else None)
        self._stopped: Stopped | None = None
        self.models = {name: self._model(name, written, renew) for name, written in assignment.models.items()}
        self.context = self._context()

    async def step(self, shard: int, node: str) -> bool:
        """
        Run *node* for all rows of *shard*; its rows are committed when this returns.

        False if rows of it wait for a batch: then their requests are in the outbox, and its other rows in the spool.
        """
        if shard not in self.shards:
            self.shards[shard] = asyncio.create_task(self._open(shard))
        opened = await self.shards[shard]
        committed = await opened.step(node)
        if not committed:
            await self._spool.flush()
        self._spool.require()
        if all(event.is_set() for event in opened.committed.values()):
            self._forget(shard)
        return committed

    async def run_rows(self, shard: int, start: int, stop: int) -> None:
        """Run all nodes for the rows [start, stop) of *shard* and spool them, committing nothing: to find rows that crash."""
        self._spool.begin()
        await self.context.agents.describe()
        tasks = await asyncio.to_thread(self._load, shard, start, stop)
        await Shard(self.context, self.run, shard, tasks, self.window, crashed_rows=self.assignment.crashed_rows).run_rows()
        await self._spool.flush()

    async def run_node(self, shard: int, node: str) -> bool:
        """Run one node of a shard whose predecessors are committed; False if rows of it wait for a batch."""
        self._spool.begin()
        await self.context.agents.describe()
        tasks = await asyncio.to_thread(self._load, shard, *self.record.shards[shard])
        committed = await Shard(self.context, self.run, shard, tasks, self.window, crashed_rows=self.assignment.crashed_rows, only=node).step(node)
        await self._spool.flush()
        return committed

    async def missing_modules(self) -> list[MissingModule | MissingCommand]:
        """
        What the programs that this run is sure to call need and do not find on this machine.

        Raises:
            Unusable: all is there, but a function of an agent cannot be described to a model.
        """
        sure, tools = self._sure_programs(), self.context.tools
        commands = [node for program, node in sure.items() if self.workflow.nodes[node].command and program == self.workflow.nodes[node].program]
        functions = {program: node for program, node in sure.items() if program not in [self.workflow.nodes[each].program for each in commands]}
        missing: list[MissingModule | MissingCommand] = [
            *missing_commands(self.workflow, commands, tools.project),
            *await asyncio.to_thread(missing_modules, functions, tools.folders),
        ]
        if not missing:
            await self.context.agents.describe()
        return missing

    async def encode(self, node: str) -> None:
        """Begin to encode the merged files of *node*, whose parts are all committed."""
        self._merging.encode(node)

    async def merge(self, node: str) -> list[FileEntry]:
        """Merge the committed parts of *node* into its finished files."""
        return await self._merging.merge(node)

    async def progress(self) -> Counts:
        """Steps finished since the runner started, and what they cost."""
        return self._counts

    async def drop(self, shard: int) -> None:
        """Forget a shard, so that it is read from the store again."""
        self._others.add(shard)
        opened = self.shards.pop(shard, None)
        if opened:
            with contextlib.suppress(Exception):
                await (await opened).stop()

    async def drain(self, reason: str) -> None:
        """Start no more calls, and wait for those in flight; their rows are spooled."""
        self._start_no_more(Stopped(reason))
        for opening in list(self.shards.values()):
            with contextlib.suppress(Exception):
                await (await opening).settled()
        await self._spool.flush()

    async def stop(self) -> None:
        """Spool finished rows, and release everything."""
        for shard in list(self.shards):
            await self.drop(shard)
        await self._spool.close()
        self._merging.close()
        for lease in self._permit_leases.values():
            await lease.close()
        for model in self.models.values():
            await model.close()  # type: ignore[attr-defined]
        await self.context.agents.close()
        await self.context.tools.close()
        if self.context.programs:
            await self.context.programs.close()

    def _sure_programs(self) -> dict[str, str]:
        """Functions and commands that no output of the origin stands in for, and no other machine calls, with their nodes."""
        record, workflow, execute = self.record, self.workflow, self.context.execute
        if record.ruler_only:
            return {}
        nodes = [name for name, node in workflow.nodes.items() if not node.resources and (execute is None or name in execute)]
        wanted = functions(workflow, nodes) | {str(workflow.nodes[name].program): name for name in nodes if workflow.nodes[name].command}
        if record.borrow and record.origin:
            known = Run(self.objects, record.origin).record.tools
            wanted = {name: node for name, node in wanted.items() if name in record.tools and known.get(name) != record.tools[name]}
        withheld = {node.program for node in workflow.nodes.values() if node.effects == "write" and not record.allow_writes}
        return {name: node for name, node in wanted.items() if name not in withheld}

    # -- opening a shard ----------------------------------------------------------------------

    async def _open(self, shard: int) -> Shard:
        self._spool.begin()
        await self.context.agents.describe()
        tasks = await asyncio.to_thread(self._load, shard, *self.record.shards[shard])
        return Shard(self.context, self.run, shard, tasks, self.window, run_elsewhere=self.run_elsewhere, crashed_rows=self.assignment.crashed_rows)

    def _load(self, shard: int, start: int, stop: int) -> list[TaskTrial]:
        """The rows [start, stop); the origin's rows of the same tasks are read with them."""
        # shards are opened concurrently, each in a thread of its own
        with self._loading:
            return self._load_locked(shard, start, stop)

    def _load_locked(self, shard: int, start: int, stop: int) -> list[TaskTrial]:
        if self._tasks is None:
            self._tasks = TaskRows(self.run)
            self._spooled_rows = self._spool.read(self.assignment.unfinished) if self.assignment.unfinished else {}
        trials = self.record.trials
        table = self._tasks.tasks(start // trials, -(-stop // trials))
        rows = [TaskTrial.of(row, trial, shard) for row in table.to_pylist() for trial in range(1, trials + 1)]
        rows = rows[start % trials :][: stop - start]
        if self._mailbox:
            self._mailbox.open(shard, [(row.task_id, row.trial) for row in rows])
        self._task_ids[shard] = {row.task_id for row in rows}
        self._borrowable.load([(row.task_id, row.trial) for row in rows], near=start)
        return rows

    def _origin_rows_of(self, shard: int, node: str) -> dict[Key, StepRow]:
        return self._borrowable.origin_rows(node, self._task_ids[shard])

    def _pinned_rows_of(self, shard: int, node: str) -> dict[Key, StepRow]:
        return self._borrowable.pinned_rows(node, self._task_ids[shard])

    def _forget(self, shard: int) -> None:
        self._spool.forget(shard)
        for recordings in filter(None, (self._recordings, self._pinned_recordings)):
            recordings.forget(shard)
        if self._mailbox:
            self._mailbox.forget(shard)
        if self.shards.pop(shard, None):
            gone = self._task_ids.pop(shard, set())
            self._borrowable.forget(gone)
            for key in [key for key in self._spooled_rows if key[1] in gone]:
                del self._spooled_rows[key]

    def _require_budget(self) -> None:
        # an answer that could not be stored is not paid for
        self._spool.require()
        if self._stopped:
            raise self._stopped
        if self.assignment.budget:
            require_within(self.assignment.budget, self._counts)

    def _start_no_more(self, error: Stopped) -> None:
        if self._stopped is None:
            self._stopped = error
            for lease in self._permit_leases.values():
                lease.refuse(error)
            if self.context.programs:
                self.context.programs.stop(error)

    # -- counting and spooling ------------------------------------------------------------------------------

    @property
    def _counts(self) -> Counts:
        spent = self._spent
        return Counts(self._finished, self._failed, spent.calls, spent.input_tokens + spent.output_tokens, spent.usd)

    def _on_row(self, row: StepRow) -> None:
        key = step_key(row)
        if row["outcome"] != "open":
            self._finished += 1
            self._failed += row["outcome"] == "failed"
            for usage in usage_of_row(row):
                self._spent.add(usage)
            if key in self._in_progress:
                self._spent.add(self._in_progress.pop(key).negative())
        for call in (row.get("call_rows") or ()) if row["outcome"] == "open" else ():
            usage = paid_for(call)
            self._spent.add(usage)
            self._in_progress.setdefault(key, Usage()).add(usage)
        if self._is_spooled(row):
            return
        if row["outcome"] == "open" or row["calls"] or row["judge_calls"] or row["seconds"] > 0:
            # a row that cost nothing is made again as quickly as it is read
            self._spool.add(row)

    def _is_spooled(self, row: StepRow) -> bool:
        """Whether the row was read from the spool, where it stays until the run is finished."""
        spooled = self._spooled_rows.get((row["node"], row["task_id"], row["trial"]))
        return spooled is not None and spooled["outcome"] == row["outcome"] != "open" and spooled["ended_at"] == row["ended_at"]

    def _on_deferred(self, usage: Usage, judging: Usage) -> None:
        self._spent.add(usage)
        self._spent.add(judging)

    # -- the context of steps -------------------------------------------------------------------

    def _context(self) -> StepContext:
        record = self.record
        tools = Tools(self.workflow, self.assignment.tool_processes, Path(self.assignment.folder) if self.assignment.folder else None)
        return StepContext(
            run_id=record.run_id,
            workflow=self.workflow,
            models=self.models,
            identities={name: identity(written) for name, written in self.assignment.models.items()},
            tools=tools,
            programs=Programs(tools, {name: endpoint_name(name, written) for name, written in self.assignment.models.items()}),
            allow_writes=record.allow_writes,
            sample=record.sample,
            execute=record.executed_nodes,
            borrow=record.borrow,
            pinned=record.pinned_node or "",
            pinned_row=self._borrowable.pinned_row,
            read_attachments=lambda task: [read_attachment(entry, self.objects) for entry in task.attachments],
            rescore_only=record.ruler_only,
            recorded=bool(record.recorded),
            origin_row=self._borrowable.origin_row,
            lent_rows=self._borrowable.lent_rows,
            untouched=self._is_untouched,
            testing=record.testing,
            recorded_calls=self._recordings.of if self._recordings and not record.sample else no_calls,
            origin_calls=self._origin_calls,
            step_calls=self._recordings.of_row if self._recordings else carried_calls,
            tool_answers=record.tool_answers,
            keep_text=lambda body: keep_bytes("call.json", body, self.objects)["sha256"],
            read_text=lambda sha256: read_bytes(sha256, self.objects).decode("utf-8", "surrogatepass"),
            spooled_row=lambda node, task: self._spooled_rows.get((node, task.task_id, task.trial)),
            require_budget=self._require_budget,
            start_no_more=self._start_no_more,
            on_row=self._on_row,
            on_deferred=self._on_deferred,
            mcp=record.mcp,
            folder=self.assignment.folder,
        )

    def _is_untouched(self, shard: int) -> bool:
        return self.assignment.untouched and shard not in self._others and time.monotonic() - self._began < FRESH_S

    async def _origin_calls(self, node: str, task: TaskTrial) -> Sequence[PlacedCallRow]:
        recordings = self._pinned_recordings if node == self.record.pinned_node else self._recordings
        return await recordings.of(node, task) if recordings else ()

    def _model(self, name: str, written: ModelSettings | ScriptedModel, renew: RenewPermits | None) -> Model:
        permits = self._permits(endpoint_of(name, written), renew)
        if isinstance(written, ModelSettings):
            # imported here because a run of tools alone needs no client
            from beam_ray.llm.client import OpenAIModel

            model = OpenAIModel(written, permits, name=name, http=self._http() if self._http else None)
            if self._mailbox is None:
                return model
            from beam_ray.llm.batched import BatchedModel

            return BatchedModel(model, self._mailbox, defers=name in self.assignment.batched)
        scripted: Model = replace(written, permits=permits)
        return scripted

    def _opened_mailbox(self) -> "RunnerMailbox":
        from beam_ray.run.mailbox import RunnerMailbox  # loads openai

        return RunnerMailbox(Batches(self.run), self.assignment.wave, self.assignment.runner)

    def _permits(self, endpoint: str, renew: RenewPermits | None) -> PermitLease:
        """The permits of an endpoint, shared by all model names that use it."""
        if endpoint not in self._permit_leases:
            limiter = Limiter()

            async def ask(request: PermitRequest) -> Grant:
                return await renew(endpoint, request) if renew else limiter.renew("", request, asyncio.get_running_loop().time())

            limits = [limits_of(written) for name, written in self.assignment.models.items() if endpoint_of(name, written) == endpoint]
            self._permit_leases[endpoint] = PermitLease(ask, functools.reduce(Limits.tightest, limits), self.assignment.runners)
        return self._permit_leases[endpoint]
