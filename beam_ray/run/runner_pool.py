"""
The runners of a run as its driver sees them: started, polled, replaced when they die or hang, and stopped.
"""

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from beam_ray.errors import Stopped
from beam_ray.run.assignment import Assignment
from beam_ray.run.cluster import Cluster, RunnerDied, RunnerHandle
from beam_ray.run.progress import Counts, total

TICK_S = 0.25
"""Seconds for which results are waited for before signals and the lease are checked again."""
POLL_S = 1.0
"""Seconds between two polls of a runner's counts."""
HUNG_S = 60.0
"""Seconds without an answer to a poll after which a runner is killed: something blocks its event loop."""
STOP_S = 1.2
"""Seconds that runners have to spool finished rows when a run stops."""
START_TRIES = 3


@dataclass(eq=False)
class RunnerState:
    """A runner, and the shards assigned to it."""

    handle: RunnerHandle
    number: int
    """Runners are numbered in the order of their start; a later one has read what earlier ones spooled."""
    open_calls: dict[int, int] = field(default_factory=dict)
    """Shard to the number of its calls that have not returned."""
    counts: Counts | None = None
    """From the last poll that was answered."""
    assigned_rows: int = 0
    """Rows of all shards that it was given."""
    polled_at: float = 0.0

    def pending_rows(self, nodes: int) -> float:
        """Assigned rows that were not finished when it was last polled."""
        return self.assigned_rows - (self.counts.steps if self.counts else 0) / nodes


class RunnerPool:
    """The runners of one run."""

    def __init__(self, cluster: Cluster, assignment: Callable[[int], Assignment], *, alone: bool, check: Callable[[], None]):
        """
        Args:
            assignment: Gives the assignment of the runner with this number.
            alone: Whether the run never has a second process that calls models.
            check: Called while something is waited for; raises when the run must stop.
        """
        self.cluster = cluster
        self.runners: list[RunnerState] = []
        self.last_number = 0
        self._assignment, self._alone, self._check = assignment, alone, check
        self._polls: dict[Any, RunnerState] = {}
        self._stopping: list[tuple[RunnerState, Any]] = []
        self._gone: list[Counts] = []
        """Counts of runners that died or were stopped."""

    # -- starting and ending -----------------------------------------------------------------

    def start(self, count: int = 1) -> None:
        """Start runners, and poll them before they have a row that could block them."""
        started = [self._start_one() for _ in range(count)]
        self.runners += started
        self._poll(started)

    def start_isolated(self, run_id: str) -> RunnerState:
        """
        Start a runner outside the pool and wait until it answers: if it dies before it has any row, no row is to blame.

        Raises:
            Stopped: three in a row died.
        """
        reason = ""
        for _ in range(START_TRIES):
            runner = self._start_one()
            try:
                self.result(self.cluster.call(runner.handle, "progress", "progress"))
                return runner
            except RunnerDied as error:
                self.cluster.discard(runner.handle)
                reason = str(error)
        raise Stopped(f"run {run_id}: worker processes die before they are given any work ({reason}); fix the cause, then run the same command again to resume")

    def _start_one(self) -> RunnerState:
        self.last_number += 1
        return RunnerState(self.cluster.start_runner(self._assignment(self.last_number), alone=self._alone), self.last_number)

    def remove(self, runner: RunnerState) -> None:
        """Forget a runner that died; its counts are kept."""
        self.cluster.discard(runner.handle)
        self._polls = {reference: polled for reference, polled in self._polls.items() if polled is not runner}
        self._keep_counts(runner)
        self.runners.remove(runner)

    def restart_idle(self) -> None:
        """Replace the runners that have no shard, or add one where all have: new ones know what was spooled and which rows crash."""
        idle = [runner for runner in self.runners if not runner.open_calls]
        for runner in idle:
            self.runners.remove(runner)
            self._keep_counts(runner)
            self.cluster.kill(runner.handle)
        self.start(len(idle) or 1)

    def drain(self, reason: str) -> None:
        """Let all runners end the calls that they have in flight, and start no other."""
        calls = [(runner, self.cluster.call(runner.handle, "drain", "drain", reason)) for runner in self.runners]
        for runner, call in calls:
            with contextlib.suppress(RunnerDied):
                self.result(call, runner)

    def stop(self) -> None:
        """Tell all runners to stop; nothing more is asked of them."""
        while self.runners:
            runner = self.runners.pop()
            self._keep_counts(runner)
            with contextlib.suppress(Exception):
                self._stopping.append((runner, self.cluster.call(runner.handle, "stop", "stop")))

    def wait_until_stopped(self, *, keep: bool) -> None:
        """Give stopping runners a moment to spool finished rows; *keep* their processes for the next run."""
        deadline = time.monotonic() + STOP_S
        for runner, stopped in self._stopping:
            with contextlib.suppress(Exception):
                self.cluster.result(stopped, max(deadline - time.monotonic(), 0.05))
                if keep:
                    self.cluster.keep_idle(runner.handle)

    # -- polling -----------------------------------------------------------------------------

    def counts(self) -> Counts:
        """Counts of all runners so far, from their last polls."""
        return total([*self._gone, *(runner.counts for runner in self.runners if runner.counts)])

    def poll_all(self) -> None:
        """Poll every runner and wait for the answers."""
        for runner in self.runners:
            with contextlib.suppress(RunnerDied):
                runner.counts = self.result(self._progress(runner), runner)

    def wait(self, calls: list[Any]) -> list[Any]:
        """Those of *calls* whose result is there, after at most a tick; answers to polls are taken meanwhile."""
        done = []
        for reference in self.cluster.wait([*calls, *self._polls], TICK_S):
            runner = self._polls.pop(reference, None)
            if runner is None:
                done.append(reference)
                continue
            with contextlib.suppress(RunnerDied):
                runner.counts = self.cluster.result(reference)
        return done

    def poll_due(self) -> list[RunnerState]:
        """Poll the runners that are due; gives those that hang, which are killed."""
        moment, polled = time.monotonic(), {runner: reference for reference, runner in self._polls.items()}
        self._poll([runner for runner in self.runners if runner not in polled and moment - runner.polled_at >= POLL_S])
        hung = []
        for runner in [runner for runner in self.runners if runner in polled and moment - runner.polled_at >= HUNG_S]:
            # one that never answered may still be starting, and the answer of another may have waited for us
            if runner.counts is not None and not self.cluster.wait([polled[runner]], 0):
                self.cluster.kill(runner.handle)
                hung.append(runner)
        return hung

    def result(self, call: Any, runner: RunnerState | None = None) -> Any:
        """
        What a call returns, waited for while signals, the lease, and whether *runner* hangs are checked.

        Raises:
            RunnerDied: its process is gone, or hung and was killed.
        """
        asked_at, poll = time.monotonic(), self._progress(runner) if runner else None
        while not self.cluster.wait([call], TICK_S):
            self._check()
            if runner and self.cluster.wait([poll], 0):
                asked_at, poll = time.monotonic(), self._progress(runner)
            elif runner and time.monotonic() - asked_at > HUNG_S:
                self.cluster.kill(runner.handle)
                raise RunnerDied("the worker process hung")
        return self.cluster.result(call)

    def _poll(self, runners: list[RunnerState]) -> None:
        for runner in runners:
            runner.polled_at = time.monotonic()
            self._polls[self._progress(runner)] = runner

    def _progress(self, runner: RunnerState) -> Any:
        return self.cluster.call(runner.handle, "progress", "progress")

    def _keep_counts(self, runner: RunnerState) -> None:
        if runner.counts:
            self._gone.append(runner.counts)
