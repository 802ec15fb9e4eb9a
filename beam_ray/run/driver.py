"""
The loop that drives a run: shards out, keys and counts back, until all is in the store.

The driver holds a window of calls and never a row, so its memory does not grow with the
number of tasks. Everything it knows it can read from the store again, so any driver can go
on where another died.
"""

import contextlib
import math
import os
import secrets
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from beam_ray.errors import BudgetReached, Stopped
from beam_ray.run.cluster import Cluster, Handle, RunnerDied
from beam_ray.run.plan import runner_count
from beam_ray.run.progress import NOTHING, Progress, ProgressCallback, spent_before
from beam_ray.run.runner import Assignment, limits_of
from beam_ray.run.shard import OUTCOME_NODE, Report, ShardLost
from beam_ray.run.signals import Signals
from beam_ray.run.summary import summarise
from beam_ray.run.tools import Tools
from beam_ray.store.lease import BEAT_S, Lease
from beam_ray.store.runs import Run, RunRecord
from beam_ray.store.steps import Key

TICK_S = 0.25
POLL_S = 1.0
"""Seconds between two looks at how far the runners are."""
STOP_S = 1.2
"""Seconds that runners have to spool what is finished when we are asked to stop."""
LOOK_S = 2.0
"""Seconds between two looks at whether the cluster is there."""
CRASHES_BEFORE_SPLIT = 2
RIDDLES = 3
"""Times that a shard may kill its runners with no row to blame, before the run stops."""
HUNG_S = 60.0
"""Seconds without a sign of life after which a runner is ended: something holds its loop."""


@dataclass(frozen=True)
class Result:
    """A finished run."""

    run_id: str
    summary: Mapping[str, Any]


class Connection:
    """A cluster that is connected to when it is first needed, and kept until it is closed; one that is given stays open."""

    def __init__(self, address: str | None = None, cluster: Cluster | None = None):
        self.address, self.cluster, self._given = address, cluster, cluster is not None

    def open(self) -> Cluster:
        """The cluster."""
        self.cluster = self.cluster or Cluster(self.address)
        return self.cluster

    def close(self) -> None:
        """Leave the cluster; a local one ends."""
        if self.cluster is not None and not self._given:
            self.cluster.close()
            self.cluster = None


@dataclass(eq=False)
class _Seat:
    """A runner and the shards that it has."""

    handle: Handle
    number: int
    """Runners are counted; a later one has read what those before it spooled."""
    shards: dict[int, int] = field(default_factory=dict)
    """Shard to the number of its calls that are out."""
    told: dict[str, Any] = field(default_factory=dict)
    given: int = 0
    """Rows of all shards that it was given."""
    asked: float = 0.0
    """When it was last asked how far it is."""


class Driver:
    """Whoever owns a run, and its runners."""

    def __init__(
        self,
        run: Run,
        record: RunRecord,
        models: Mapping[str, Any],
        lease: Lease,
        signals: Signals,
        notify: ProgressCallback,
        connection: Connection,
    ):
        self.run, self.record, self.lease, self.signals, self.notify = run, record, lease, signals, notify
        self.connection = connection
        self.cluster: Cluster | None = None
        self.workflow = self.record.plan
        self.models = {name: models[name] for name in self.workflow.models}
        self.strange = Tools(self.workflow).strange
        parts = run.parts()
        self.done = {shard for node, shard in parts if node == OUTCOME_NODE}
        self.resumed = bool(parts) or lease.epoch > 1
        self.todo: deque[int] = deque()
        self.left: set[int] = set()
        self.crashes: dict[int, int] = {}
        self.riddles: dict[int, int] = {}
        """Shard to how often its deaths had no row to blame."""
        self.losses: dict[int, int] = {}
        self.since: dict[int, int] = {}
        """Shard to the first runner that knows what was spooled of it: an earlier one would pay for it again."""
        self.poisoned: dict[Key, str] = {}
        self.seats: list[_Seat] = []
        self.stops: list[tuple[_Seat, Any]] = []
        self.calls: dict[Any, tuple[_Seat, int, str]] = {}
        self.past: dict[str, Any] = spent_before(run) if self.resumed else dict(NOTHING)
        self.tasks_done = sum(self._rows(shard) for shard in self.done) // self.record.trials
        self.started = self.beaten = self.looked = time.monotonic()
        self.polls: dict[Any, _Seat] = {}
        self.generation = 0

    def advance(self, rows: int | None = None, budget: Mapping[str, float] | None = None) -> None:
        """
        Do the shards of the first *rows* rows that are not done, or all; *budget* replaces the one before.

        Raises:
            Stopped: before that; the same call goes on.
        """
        if budget is not None:
            self.record = self.record.model_copy(update={"budget": dict(budget)})
        self.todo = deque(shard for shard in self._undone() if rows is None or self.record.shards[shard][0] < rows)
        self.left = set(self.todo)
        if not self.left:
            return
        with self.signals.at_once():
            self.cluster = cluster = self.connection.open()
        if not self.seats:
            if self.past["rows"]:
                self._say(f"resuming run {self.run.run_id}: {self.past['rows']:,} of {self.record.rows * len(self.workflow.order):,} steps are done")
            self._open(cluster)
        while self.left:
            self._fill(cluster)
            self._collect(cluster)
            self._look_up(cluster)

    def beat(self) -> None:
        """Give a sign of life, if it is time for one."""
        if time.monotonic() - self.beaten >= BEAT_S:
            self.beaten = time.monotonic()
            self.lease.beat()

    def _undone(self) -> list[int]:
        return [shard for shard in range(len(self.record.shards)) if shard not in self.done]

    # -- starting -----------------------------------------------------------------------------

    def _open(self, cluster: Cluster) -> None:
        undone = self._undone()
        self.count = min(runner_count(sum(self._rows(shard) for shard in undone), cluster.cpus), len(undone))
        permits = sum(limits_of(written).concurrency for written in self.models.values()) or 8 * cluster.cpus
        self.window = max(8, math.ceil(2 * permits / self.count))
        largest = max(stop - start for start, stop in self.record.shards)
        # a runner's open shards must hold a window's worth of rows, or permits would idle
        self.open_shards = max(2, math.ceil(self.window / largest) + 1)
        self.seats = [self._seat(cluster) for _ in range(self.count)]
        self._poll(cluster, self.seats)

    def _seat(self, cluster: Cluster) -> _Seat:
        self.generation += 1
        unfinished = frozenset(self._undone()) if self.resumed or self.crashes else frozenset()
        assignment = Assignment(
            store=self.run.objects.uri if self.run.objects.uri.startswith("s3://") else os.path.abspath(self.run.objects.uri),
            run_id=self.run.run_id,
            models=self.models,
            runner=f"{self.lease.epoch:04d}-{self.generation:04d}-{secrets.token_hex(4)}",
            window=self.window,
            folder=os.getcwd(),
            unfinished=unfinished,
            poisoned=dict(self.poisoned),
            budget=self._left(),
        )
        alone = self.count == 1 and not any(node.resources for node in self.workflow.nodes.values())
        return _Seat(cluster.runner(assignment, alone=alone), self.generation)

    def _left(self) -> dict[str, float]:
        progress = self.progress()
        used = {"max_usd": progress.usd, "max_tokens": progress.tokens, "max_calls": progress.calls}
        return {name: limit - (used[name] or 0) for name, limit in self.record.budget.items() if name in used}

    # -- the loop -----------------------------------------------------------------------------

    def _fill(self, cluster: Cluster) -> None:
        """Give each runner as many shards as it can hold, the one with the fewest rows first."""
        while self.todo:
            # a shard of which a few slow rows are left is open, and keeps few permits busy
            if not any(len(seat.shards) < self.open_shards or self._pending(seat) < self.window for seat in self.seats):
                return
            shard = self.todo.popleft()
            if self.crashes.get(shard, 0) >= CRASHES_BEFORE_SPLIT:
                self._isolate(cluster, shard)
            able = [seat for seat in self.seats if seat.number >= self.since.get(shard, 0)]
            self._submit(cluster, min(able, key=self._pending), shard)

    def _pending(self, seat: _Seat) -> float:
        """Rows that the runner was given and has not brought to their end, by what it last told."""
        return seat.given - float(seat.told.get("rows", 0)) / len(self.workflow.order)

    def _submit(self, cluster: Cluster, seat: _Seat, shard: int) -> None:
        seat.shards[shard] = len(self.workflow.order)
        seat.given += self._rows(shard)
        for node in self.workflow.order:
            reference = cluster.call(seat.handle, f"{self.workflow.name}/{node}", "step", shard, node)
            self.calls[reference] = seat, shard, node

    def _collect(self, cluster: Cluster) -> None:
        if not self.calls:
            return
        for reference in cluster.wait([*self.calls, *self.polls], TICK_S):
            if reference in self.polls:
                seat = self.polls.pop(reference)
                with contextlib.suppress(RunnerDied):
                    seat.told = cluster.result(reference)
                continue
            if reference not in self.calls:
                continue
            seat, shard, _ = self.calls.pop(reference)
            try:
                self._count(seat, shard, cluster.result(reference))
            except RunnerDied:
                self._replace(cluster, seat)
            except ShardLost:
                self._again(cluster, seat, shard)

    def _count(self, seat: _Seat, shard: int, report: Report) -> None:
        seat.shards[shard] -= 1
        if seat.shards[shard] == 0:
            del seat.shards[shard]
            self.left.discard(shard)
            self.done.add(shard)
            self.tasks_done += self._rows(shard) // self.record.trials

    def _replace(self, cluster: Cluster, seat: _Seat) -> None:
        """A runner died: a new one takes its place, and its shards are begun again."""
        cluster.forget(seat.handle)
        lost = list(seat.shards)
        self.calls = {reference: entry for reference, entry in self.calls.items() if entry[0] is not seat}
        self.polls = {reference: entry for reference, entry in self.polls.items() if entry is not seat}
        self._bank(seat)
        self.seats.remove(seat)
        for shard in reversed(lost):
            self.crashes[shard] = self.crashes.get(shard, 0) + 1
            self.since[shard] = self.generation + 1
            self.todo.appendleft(shard)
        self.seats.append(self._seat(cluster))
        self._poll(cluster, self.seats[-1:])
        self._say("a worker process died; its unfinished tasks are repeated on a new one")

    def _again(self, cluster: Cluster, seat: _Seat, shard: int) -> None:
        """Another writer was first with a part: read what it kept, and go on from there."""
        self.lease.beat()
        self.losses[shard] = self.losses.get(shard, 0) + 1
        if self.losses[shard] > 5:
            raise Stopped(
                f"run {self.run.run_id}: other writers keep winning shard {shard}; see that no second driver is alive, then run the same command again"
            )
        for reference, entry in list(self.calls.items()):
            if entry[0] is seat and entry[1] == shard:
                del self.calls[reference]
        if seat.shards.pop(shard, None):
            seat.given -= self._rows(shard)
        with contextlib.suppress(RunnerDied):
            self._result(cluster, cluster.call(seat.handle, "drop", "drop", shard))
        self.todo.appendleft(shard)

    def _isolate(self, cluster: Cluster, shard: int) -> None:
        """
        A shard that killed its runner twice: find the rows that kill, in halves.

        Rows that are settled are spooled; a single row that kills twice becomes a failed step.
        """
        start, stop = self.record.shards[shard]
        ranges, alone, known = [(start, stop)], dict[int, int](), len(self.poisoned)
        seat = self._suspect(cluster)
        while ranges:
            first, last = ranges.pop()
            try:
                self._result(cluster, cluster.call(seat.handle, f"{self.workflow.name} (finding a row that kills)", "settle", shard, first, last), seat)
            except RunnerDied:
                cluster.forget(seat.handle)
                if last - first > 1:
                    middle = (first + last) // 2
                    ranges += [(middle, last), (first, middle)]
                else:
                    alone[first] = alone.get(first, 0) + 1
                    if alone[first] < 2:
                        ranges.append((first, last))
                    else:
                        self._poison(first)
                seat = self._suspect(cluster)
        cluster.end(seat.handle)
        self.crashes[shard] = 0
        if len(self.poisoned) == known:
            self.riddles[shard] = self.riddles.get(shard, 0) + 1
            if self.riddles[shard] >= RIDDLES:
                raise Stopped(
                    f"run {self.run.run_id}: worker processes keep dying on shard {shard} (rows {start} to {stop - 1}), and on no row of it alone\n"
                    "  see whether they run out of memory; then run the same command again"
                )
        # runners that are up know nothing of the rows spooled meanwhile, nor of those that kill
        self.since[shard] = self.generation + 1
        idle = [seat for seat in self.seats if not seat.shards]
        for seat in idle:
            self.seats.remove(seat)
            self._bank(seat)
            cluster.end(seat.handle)
        fresh = [self._seat(cluster) for _ in idle or range(1)]
        self.seats += fresh
        self._poll(cluster, fresh)

    def _suspect(self, cluster: Cluster) -> _Seat:
        """
        A runner that is known to live: what dies before it has any row says nothing of rows.

        Raises:
            Stopped: three in a row died.
        """
        for _ in range(3):
            seat = self._seat(cluster)
            try:
                self._result(cluster, cluster.call(seat.handle, "progress", "progress"))
                return seat
            except RunnerDied as error:
                cluster.forget(seat.handle)
                reason = str(error)
        raise Stopped(f"run {self.run.run_id}: worker processes die before they have anything to do ({reason}); run the same command again")

    def _poison(self, row: int) -> None:
        task = self.run.tasks().slice(row // self.record.trials, 1).to_pylist()[0]
        self.poisoned[task["task_id"], row % self.record.trials + 1] = "the worker process died twice on this row alone"

    # -- watching -----------------------------------------------------------------------------

    def _look_up(self, cluster: Cluster) -> None:
        self._alive()
        moment, asked = time.monotonic(), {seat: reference for reference, seat in self.polls.items()}
        self._poll(cluster, [seat for seat in self.seats if seat not in asked and moment - seat.asked >= POLL_S])
        for seat in [seat for seat in self.seats if seat in asked and moment - seat.asked >= HUNG_S]:
            # one that never told anything may be on its way up, and one that has answered may have waited for us
            if seat.told and not cluster.wait([asked[seat]], 0):
                cluster.end(seat.handle)
                self._replace(cluster, seat)
        progress = self.progress()
        self.notify(progress)
        self._hold_budget(progress)

    def _poll(self, cluster: Cluster, seats: list[_Seat]) -> None:
        """Ask how far they are; those that are new, before they have a row that could hold them."""
        for seat in seats:
            seat.asked = time.monotonic()
            self.polls[cluster.call(seat.handle, "progress", "progress")] = seat

    def _result(self, cluster: Cluster, call: Any, seat: _Seat | None = None) -> Any:
        """
        What a call returns, waited for with an eye on signals, the lease, and whether *seat* lives.

        Raises:
            RunnerDied: its process is gone, or hung and was ended.
        """
        asked, sign = time.monotonic(), cluster.call(seat.handle, "progress", "progress") if seat else None
        while not cluster.wait([call], TICK_S):
            self._alive()
            if seat and cluster.wait([sign], 0):
                asked, sign = time.monotonic(), cluster.call(seat.handle, "progress", "progress")
            elif seat and time.monotonic() - asked > HUNG_S:
                cluster.end(seat.handle)
                raise RunnerDied("it gave no sign of life")
        return cluster.result(call)

    def _alive(self) -> None:
        self.signals.heed()
        self.beat()
        if self.cluster is not None and time.monotonic() - self.looked >= LOOK_S:
            self.cluster.require()
            self.looked = time.monotonic()

    def _say(self, message: str) -> None:
        self.notify(replace(self.progress(), message=message))

    def progress(self) -> Progress:
        """How far the run is, by what the runners last told."""
        told = [self.past, *(seat.told for seat in self.seats if seat.told)]
        usd = [each["usd"] for each in told]
        of = self.record.rows * len(self.workflow.order)
        return Progress(
            title=f"run {self.run.run_id}",
            steps=of,
            steps_done=min(sum(each["rows"] for each in told), of),
            steps_failed=sum(each["failed"] for each in told),
            tasks=self.record.tasks,
            tasks_done=self.tasks_done,
            calls=sum(each["calls"] for each in told),
            tokens=sum(each["tokens"] for each in told),
            usd=None if None in usd else math.fsum(usd),
            seconds=time.monotonic() - self.started,
        )

    def _bank(self, seat: _Seat) -> None:
        for name in self.past:
            if seat.told:
                self.past[name] = None if self.past[name] is None or seat.told[name] is None else self.past[name] + seat.told[name]

    def _hold_budget(self, progress: Progress) -> None:
        budget = self.record.budget
        used = {"max_usd": progress.usd, "max_tokens": progress.tokens, "max_calls": progress.calls, "max_minutes": progress.seconds / 60}
        for name, limit in budget.items():
            value = used[name]
            if value is not None and value >= limit:
                raise BudgetReached(f"the budget is reached: {name} of {limit:g}; raise it and run the same command again, what was paid for is kept")

    # -- ending -------------------------------------------------------------------------------

    def finish(self) -> Result:
        """Merge the parts of all shards and write the manifest."""
        cluster = self.cluster
        files: list[dict[str, Any]] = []
        nodes = [*self.workflow.order, OUTCOME_NODE]
        if cluster is not None and self.seats:
            seats = [self.seats[index % len(self.seats)] for index in range(len(nodes))]
            calls = [cluster.call(seat.handle, f"{self.workflow.name} (merge)", "merge", node) for seat, node in zip(seats, nodes, strict=True)]
            for seat, node, call in zip(seats, nodes, calls, strict=True):
                try:
                    files += self._result(cluster, call, seat)
                except RunnerDied:
                    # all its rows are in the store; we are slower, and there
                    files += self.run.merge(node, len(self.record.shards))
        else:
            for node in nodes:
                files += self.run.merge(node, len(self.record.shards))
        self._alive()
        self._dismiss()
        summary = summarise(self.run, files)
        self.run.finish(files, summary)
        return Result(self.run.run_id, summary)

    def close(self) -> None:
        """Give the runners a moment to spool what is finished."""
        if self.cluster is None:
            return
        self._dismiss()
        deadline = time.monotonic() + STOP_S
        for seat, stop in self.stops:
            with contextlib.suppress(Exception):
                self.cluster.result(stop, max(deadline - time.monotonic(), 0.05))
                if not self.strange:
                    self.cluster.rest(seat.handle)

    def _dismiss(self) -> None:
        """Tell the runners to stop; nothing more is asked of them."""
        while self.cluster is not None and self.seats:
            seat = self.seats.pop()
            self._bank(seat)
            with contextlib.suppress(Exception):
                self.stops.append((seat, self.cluster.call(seat.handle, "stop", "stop")))

    def _rows(self, shard: int) -> int:
        start, stop = self.record.shards[shard]
        return stop - start
