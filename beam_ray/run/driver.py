"""
The loop that drives a run: shards out, counts back, until everything is in the store.

The driver holds a window of calls and never a row, so its memory does not grow with the
number of tasks. Everything it knows it can read from the store again, so any driver can
resume where another died.
"""

import contextlib
import math
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from beam_ray.errors import BudgetReached, OutOfQuota, Stopped, Unusable, WrongSetting
from beam_ray.llm.lanes import lane_of
from beam_ray.llm.scripted import Models
from beam_ray.run.assignment import Assignment
from beam_ray.run.broadcast import Broadcast
from beam_ray.run.budget import is_free, remaining, require_room, require_within
from beam_ray.run.cluster import Cluster, RunnerDied
from beam_ray.run.connection import Connection
from beam_ray.run.crash_isolation import Crashes
from beam_ray.run.merging import ENCODED_AHEAD
from beam_ray.run.model_identity import limits_of
from beam_ray.run.plan import open_rows, price_of, runner_count
from beam_ray.run.progress import Counts, Progress, ProgressCallback, total
from beam_ray.run.runner_pool import RunnerPool, RunnerState
from beam_ray.run.shard import OUTCOME_NODE, ShardLost
from beam_ray.run.signals import Signals
from beam_ray.run.summary import committed_counts, summarise
from beam_ray.run.tool_imports import functions, remedy
from beam_ray.run.tools import Tools, tool_processes
from beam_ray.run.waves import Waves
from beam_ray.store.batches import Batches, Wave
from beam_ray.store.lease import BEAT_S, Lease
from beam_ray.store.manifest import RunSummary
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run
from beam_ray.store.tables import FileEntry

CLUSTER_CHECK_S = 2.0
"""Seconds between two checks that the cluster is still there."""
MAX_LOST_RACES = 5


@dataclass(frozen=True)
class Result:
    """A finished run, with what its driver knows of it."""

    run: Run
    summary: RunSummary


class Driver:
    """The owner of a run, which gives its shards to runners."""

    def __init__(
        self,
        run: Run,
        record: RunRecord,
        models: Models,
        lease: Lease,
        signals: Signals,
        notify: ProgressCallback,
        connection: Connection,
        parts: set[tuple[str, int]],
    ):
        self.run, self.record, self.lease, self.signals, self.notify = run, record, lease, signals, notify
        self.connection = connection
        self.cluster: Cluster | None = None
        self.pool: RunnerPool | None = None
        self.workflow = self.record.plan
        self.models = {name: models[name] for name in self.workflow.models}
        self.free = all(is_free(price_of(written)) for written in self.models.values())
        self.reuse_processes = not Tools(self.workflow).run_in_process
        self.done = {shard for node, shard in parts if node == OUTCOME_NODE}
        self.resumed = bool(parts) or lease.epoch > 1
        self.queue: deque[int] = deque()
        self.unfinished: set[int] = set()
        self.calls: dict[Any, tuple[RunnerState, int, str]] = {}
        self.crashes = Crashes(run)
        self.lost_races: dict[int, int] = {}
        self.missing_parts: dict[str, set[int]] = {}
        """Of a small run: node to the shards whose part is not there yet."""
        self.deferred: set[int] = set()  # shards with rows that wait for a batch
        self.after_wave = False
        """Whether rows that waited for a batch are run again, so that runners must read the spool."""
        self.last_number = 0
        """Number of the last runner that was started; the spool is read in the order of these."""
        self.batched = frozenset(name for name, written in self.models.items() if lane_of(written) == "batch")
        self.waves: Waves | None = None
        if self.batched or (self.resumed and Batches(run).begun):
            self.waves = Waves(Batches(run), self.models, self.workflow.order, self._check, self._say_waiting, connection.rest)
        self.before = committed_counts(run) if self.resumed else Counts()
        self.tasks_done = sum(self._rows(shard) for shard in self.done) // self.record.trials
        self.broadcast = Broadcast(run, lease.epoch)
        self.started_at = self.beat_at = self.cluster_seen_at = time.monotonic()

    def advance(self, rows: int | None = None, budget: Mapping[str, float] | None = None) -> None:
        """
        Run the shards of the first *rows* rows that are not done, or all of them; *budget* replaces the one before.

        Raises:
            Stopped: before that; the same call resumes.
        """
        if budget is not None:
            self.record = self.record.model_copy(update={"budget": dict(budget)})
        if self.waves and (wave := self.waves.unfinished()):
            self._await(wave)
        while self._run(rows):
            self._await(self._close_wave())

    def _run(self, rows: int | None) -> bool:
        """Run the shards of the first *rows* rows as far as they can; whether some wait for a batch."""
        self.queue = deque(shard for shard in self._undone() if rows is None or self.record.shards[shard][0] < rows)
        self.unfinished, self.deferred = set(self.queue), set()
        if not self.unfinished:
            return False
        with self.signals.immediately():
            self.cluster = self.connection.open()
        if self.pool is None:
            if self.after_wave:
                self.before = committed_counts(self.run)
            elif self.before.steps:
                self._message(f"resuming run {self.run.run_id}: {self.before.steps:,} of {self._steps:,} steps are done")
            self.pool = self._open_pool(self.cluster)
            self._require_modules(self.pool)
        while self.unfinished:
            self._submit_shards(self.pool)
            self._collect(self.pool)
            self._monitor(self.pool)
        return bool(self.deferred)

    def beat(self) -> None:
        """Renew the lease, if it is time."""
        if time.monotonic() - self.beat_at >= BEAT_S:
            self.beat_at = time.monotonic()
            self.lease.beat()

    # -- runners ------------------------------------------------------------------------------

    def _open_pool(self, cluster: Cluster) -> RunnerPool:
        undone = self._undone()
        if self.record.rows <= ENCODED_AHEAD:
            self.missing_parts = {name: set(undone) for name, node in self.workflow.nodes.items() if not node.records_calls}
        self.runners = count = min(runner_count(sum(self._rows(shard) for shard in undone), cluster.cpus), len(undone))
        permits = sum(limits_of(settings).concurrency for settings in self.models.values()) or 8 * cluster.cpus
        # of many open rows each waits its turn for its next step, so that all end at about the same time and no long row is left alone
        self.window = max(8, math.ceil(open_rows(self.workflow) / count), math.ceil(2 * permits / count))
        largest = max(stop - start for start, stop in self.record.shards)
        # a runner's open shards must hold a window's worth of rows, or permits would idle
        self.open_shards = max(2, math.ceil(self.window / largest) + 1)
        self.tool_processes = tool_processes(cluster.cpus, count)
        alone = count == 1 and not any(node.resources for node in self.workflow.nodes.values())
        if self.workflow.requirements and not cluster.local and not self.after_wave:
            self._message(f"the cluster installs the requirements of {self.workflow.name}, once on each node")
        self.wave = self.waves.next if self.waves else 0
        pool = RunnerPool(cluster, self._assignment, alone=alone, check=self._check)
        pool.last_number = self.last_number
        self.connection.users += 1
        pool.start(count)
        return pool

    def _assignment(self, number: int) -> Assignment:
        uri = self.run.objects.uri
        others = bool(self.resumed or self.crashes.counts or self.after_wave)
        return Assignment(
            store=uri if uri.startswith("s3://") else os.path.abspath(uri),
            run_id=self.run.run_id,
            models=self.models,
            runner=f"{self.lease.epoch:04d}-{number:04d}-{secrets.token_hex(4)}",
            window=self.window,
            runners=self.runners,
            folder=os.getcwd(),
            record=self.record,
            untouched=not others,
            unfinished=frozenset(self._undone()) if others else frozenset(),
            crashed_rows=dict(self.crashes.rows),
            batched=self.batched,
            tool_processes=self.tool_processes,
            wave=self.wave,
            budget=remaining(self._budget, self._counts()),
            requirements=self.workflow.requirements,
        )

    def _require_modules(self, pool: RunnerPool) -> None:
        """
        Check on every machine that the functions of the workflow find what they import, and that its commands are there, before any row is given out.

        Raises:
            Unusable: a module or a program is not installed.
        """
        if not functions(self.workflow, self.workflow.nodes) and not any(node.command for node in self.workflow.nodes.values()):
            return
        for call in [pool.cluster.call(runner.handle, "import tools", "missing_modules") for runner in pool.runners]:
            with contextlib.suppress(RunnerDied):  # its rows will notice
                for missing in pool.result(call):
                    raise Unusable(remedy(self.workflow, missing, local=pool.cluster.local))

    # -- the loop -----------------------------------------------------------------------------

    def _submit_shards(self, pool: RunnerPool) -> None:
        """Give each runner as many shards as it can hold, the one with the fewest rows first."""
        nodes = len(self.workflow.order)
        while self.queue:
            # a shard of which a few slow rows are left is open, and keeps few permits busy
            if not any(len(runner.open_calls) < self.open_shards or runner.pending_rows(nodes) < self.window for runner in pool.runners):
                return
            shard = self.queue.popleft()
            if self.crashes.must_be_isolated(shard):
                start, stop = self.record.shards[shard]
                self._message(f"worker processes died repeatedly on the same tasks; searching rows {start} to {stop - 1} for the cause")
                self.crashes.isolate(pool, f"{self.workflow.name} (isolating a crash)", shard)
            able = self.crashes.able(pool.runners, shard)
            self._submit(pool, min(able, key=lambda runner: runner.pending_rows(nodes)), shard)

    def _submit(self, pool: RunnerPool, runner: RunnerState, shard: int) -> None:
        runner.open_calls[shard] = len(self.workflow.order)
        runner.assigned_rows += self._rows(shard)
        for node in self.workflow.order:
            self.calls[pool.cluster.call(runner.handle, f"{self.workflow.name}/{node}", "step", shard, node)] = runner, shard, node

    def _collect(self, pool: RunnerPool) -> None:
        if not self.calls:
            return
        for reference in pool.wait(list(self.calls)):
            if reference not in self.calls:
                continue
            runner, shard, node = self.calls.pop(reference)
            try:
                committed = pool.cluster.result(reference)
                self._step_done(runner, shard, deferred=not committed)
                if committed:
                    self._encode_ahead(pool, shard, node)
            except RunnerDied:
                self._replace(pool, runner)
            except ShardLost:
                self._reread(pool, runner, shard)
            except (WrongSetting, OutOfQuota, BudgetReached) as error:
                # what is in flight is paid for: let it end, and keep it
                pool.drain(str(error))
                raise

    def _step_done(self, runner: RunnerState, shard: int, *, deferred: bool) -> None:
        if deferred:
            self.deferred.add(shard)
        runner.open_calls[shard] -= 1
        if runner.open_calls[shard] == 0:
            del runner.open_calls[shard]
            self.unfinished.discard(shard)
            if shard in self.deferred:
                return
            self.done.add(shard)
            self.tasks_done += self._rows(shard) // self.record.trials

    def _encode_ahead(self, pool: RunnerPool, shard: int, node: str) -> None:
        """A part is there; with the last one of its node begin to encode what is merged at the end."""
        missing = self.missing_parts.get(node)
        if missing:
            missing.discard(shard)
            if not missing:
                pool.cluster.call(self._merger(pool, node).handle, f"{self.workflow.name} (encode)", "encode", node)

    def _merger(self, pool: RunnerPool, node: str) -> RunnerState:
        """The runner that merges *node*."""
        return pool.runners[[OUTCOME_NODE, *self.workflow.order].index(node) % len(pool.runners)]

    def _replace(self, pool: RunnerPool, runner: RunnerState) -> None:
        """A runner died: a new one takes its place, and its shards are started again."""
        pool.remove(runner)
        self.calls = {reference: entry for reference, entry in self.calls.items() if entry[0] is not runner}
        for shard in reversed(list(runner.open_calls)):
            self.deferred.discard(shard)
            self.crashes.add(shard, pool.last_number)
            self.queue.appendleft(shard)
        pool.start()
        self._message("a worker process died; a new one repeats what it had not finished")

    def _reread(self, pool: RunnerPool, runner: RunnerState, shard: int) -> None:
        """Another writer committed a part first: read its rows, and continue from there."""
        self.lease.beat()
        self.lost_races[shard] = self.lost_races.get(shard, 0) + 1
        if self.lost_races[shard] > MAX_LOST_RACES:
            raise Stopped(
                f"run {self.run.run_id}: another process keeps committing shard {shard} first\n"
                "  make sure that no second driver is running, then run the same command again to resume"
            )
        self.calls = {reference: entry for reference, entry in self.calls.items() if entry[:2] != (runner, shard)}
        if runner.open_calls.pop(shard, None):
            runner.assigned_rows -= self._rows(shard)
        self.deferred.discard(shard)
        # all of them: whichever has it next must read what the other writer committed
        for call in [pool.cluster.call(each.handle, "drop", "drop", shard) for each in pool.runners]:
            with contextlib.suppress(RunnerDied):
                pool.result(call)
        self.queue.appendleft(shard)

    # -- batches ------------------------------------------------------------------------------

    def _close_wave(self) -> Wave:
        """Close the wave that all rows wait for, and stop the runners."""
        pool, waves = self.pool, self.waves
        assert pool is not None and waves is not None
        pool.poll_all()
        entries = waves.pack(self.wave, self.lease.epoch)
        counts = self._counts()
        require_room(self._budget, counts, entries)
        waves.close(self.wave, entries)
        self.close()
        self.before, self.pool, self.cluster, self.last_number = counts, None, None, pool.last_number
        wave = waves.unfinished()
        assert wave is not None, "rows wait for a batch, and none of them asked for anything"
        return wave

    def _await(self, wave: Wave) -> None:
        """Wait until all batches of a wave have ended and what they brought is in the store."""
        assert self.waves is not None
        self.after_wave, began = True, time.monotonic()
        self.waves.finish(wave)
        # max_minutes limits the work of this run, not the endpoint's
        self.started_at += time.monotonic() - began

    def _say_waiting(self, waits_for: str) -> None:
        progress = replace(self.progress(), waits_for=waits_for)
        self.notify(progress)
        self.broadcast.update(progress)

    # -- monitoring ---------------------------------------------------------------------------

    def _monitor(self, pool: RunnerPool) -> None:
        self._check()
        for runner in pool.poll_due():
            self._replace(pool, runner)
        progress = self.progress()
        self.notify(progress)
        self.broadcast.update(progress)
        require_within(self._budget, self._counts(), progress.seconds)

    def report_budget(self, limit: str) -> None:
        """Let the store say which limit of the budget stopped the run."""
        if limit in self._budget:
            self.broadcast.used_up = {limit: self._budget[limit]}
            self.broadcast.update(self.progress())

    def _check(self) -> None:
        """Check signals, the lease and the cluster; raises Stopped when the run must stop."""
        self.signals.raise_if_interrupted()
        self.beat()
        if reason := self.broadcast.stop_reason():
            if self.pool is not None:
                # what is in flight is paid for: let it end, and keep it
                self.pool.drain(reason)
            raise Stopped(reason)
        if self.cluster is not None and time.monotonic() - self.cluster_seen_at >= CLUSTER_CHECK_S:
            self.cluster.require_alive()
            self.cluster_seen_at = time.monotonic()

    def _message(self, message: str) -> None:
        self.notify(replace(self.progress(), message=message))

    def progress(self) -> Progress:
        """How far the run is, from the runners' last counts."""
        counts = self._counts()
        return Progress(
            title=f"run {self.run.run_id}",
            steps=self._steps,
            steps_done=min(counts.steps, self._steps),
            steps_failed=counts.failed,
            tasks=self.record.tasks,
            tasks_done=self.tasks_done,
            calls=counts.calls,
            tokens=counts.tokens,
            usd=counts.usd,
            seconds=time.monotonic() - self.started_at,
        )

    def _counts(self) -> Counts:
        return total([self.before, self.pool.counts()]) if self.pool else self.before

    # -- ending -------------------------------------------------------------------------------

    def finish(self) -> Result:
        """Merge the parts of all shards and write the manifest."""
        # a store may answer late: what does not depend on the merge, or on all of it, is done meanwhile
        with ThreadPoolExecutor(3) as meanwhile:
            tasks, summaries = meanwhile.submit(lambda: (self.run.tasks_entry, self.run.written)), list[Future[RunSummary]]()
            files = self._merge(lambda outcome: summaries.append(meanwhile.submit(summarise, self.run, outcome)))
            self._check()
            if self.pool is not None:
                self.pool.stop()
            told = meanwhile.submit(self.broadcast.close, finished=True)
            [summary] = [each.result() for each in summaries]
            tasks.result()
            # who comes once the manifest is there sees that it is finished
            self.run.finish(files, summary, told.result, self.lease.release)
        return Result(self.run, summary)

    def _merge(self, on_outcome: Callable[[list[FileEntry]], None]) -> list[FileEntry]:
        """The merged files, those of the outcome last; *on_outcome* is called with these as soon as they are there."""
        nodes = [OUTCOME_NODE, *self.workflow.order]
        merge, pool = partial(self.run.merge, shards=len(self.record.shards)), self.pool
        merged: list[Callable[[], list[FileEntry]]] = [partial(merge, node) for node in nodes]
        if pool is not None and pool.runners:
            runners = [self._merger(pool, node) for node in nodes]
            calls = [pool.cluster.call(runner.handle, f"{self.workflow.name} (merge)", "merge", node) for runner, node in zip(runners, nodes, strict=True)]
            merged = [partial(self._merged, pool, runner, call, here) for runner, call, here in zip(runners, calls, merged, strict=True)]
        on_outcome(outcome := merged[0]())
        return [*(entry for each in merged[1:] for entry in each()), *outcome]

    @staticmethod
    def _merged(pool: RunnerPool, runner: RunnerState, call: Any, here: Callable[[], list[FileEntry]]) -> list[FileEntry]:
        """The files that a runner merges; where it died, they are merged here, if more slowly: all rows are in the store."""
        try:
            return list(pool.result(call, runner))
        except RunnerDied:
            return here()

    def close(self) -> None:
        """Stop the runners and give them a moment to spool finished rows."""
        self.broadcast.close()
        if self.pool is not None:
            self.connection.users -= 1
            self.pool.stop()
            self.pool.wait_until_stopped(keep=self.reuse_processes)

    @property
    def _budget(self) -> Mapping[str, float]:
        """The limits that can be reached."""
        return {name: limit for name, limit in self.record.budget.items() if name != "max_usd" or not self.free}

    # -- shards -------------------------------------------------------------------------------

    @property
    def _steps(self) -> int:
        return self.record.rows * len(self.workflow.order)

    def _undone(self) -> list[int]:
        return [shard for shard in range(len(self.record.shards)) if shard not in self.done]

    def _rows(self, shard: int) -> int:
        start, stop = self.record.shards[shard]
        return stop - start
