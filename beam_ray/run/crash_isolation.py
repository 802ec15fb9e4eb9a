"""What crashed in a run: shards whose runner died, and the rows that crash it, found by bisection."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from beam_ray.errors import Stopped
from beam_ray.run.cluster import RunnerDied
from beam_ray.run.runner_pool import RunnerPool, RunnerState
from beam_ray.store.key_index import Key
from beam_ray.store.runs import Run

CRASHES_BEFORE_SPLIT = 2
"""Crashes of a shard after which the rows that crash are searched for."""
MAX_UNEXPLAINED_CRASHES = 3
"""Times that a shard may crash its runners with no row to blame, before the run stops."""
CRASHES_TO_BLAME = 2
"""Crashes of a row alone before it is blamed: one may be chance."""


def crashing_rows(pool: RunnerPool, run_id: str, title: str, shard: int, rows: tuple[int, int]) -> Iterator[int]:
    """
    The rows among [start, stop) of *shard* that crash a runner on their own, one after the other.

    All other rows are executed and spooled meanwhile.

    Raises:
        Stopped: runners die before they are given any row.
    """
    ranges, crashes = [rows], dict[int, int]()
    runner = pool.start_isolated(run_id)
    while ranges:
        first, last = ranges.pop()
        try:
            pool.result(pool.cluster.call(runner.handle, title, "run_rows", shard, first, last), runner)
        except RunnerDied:
            pool.cluster.discard(runner.handle)
            if last - first > 1:
                middle = (first + last) // 2
                ranges += [(middle, last), (first, middle)]
            else:
                crashes[first] = crashes.get(first, 0) + 1
                if crashes[first] < CRASHES_TO_BLAME:
                    ranges.append((first, last))
                else:
                    yield first
            runner = pool.start_isolated(run_id)
    pool.cluster.kill(runner.handle)


@dataclass
class Crashes:
    """The crashes of one run, by shard."""

    run: Run
    counts: dict[int, int] = field(default_factory=dict)
    """Shard to its crashes since its rows were last searched."""
    rows: dict[Key, str] = field(default_factory=dict)
    """Rows that crash their runner, with the error that they get."""
    _unexplained: dict[int, int] = field(default_factory=dict)
    """Shard to how often it crashed with no row to blame."""
    _first_runner: dict[int, int] = field(default_factory=dict)
    """Shard to the first runner that has read what was spooled of it: an earlier one would pay for it again."""

    def add(self, shard: int, last_runner: int) -> None:
        """The runner of a shard died; *last_runner* is the number of the last one that was started."""
        self.counts[shard] = self.counts.get(shard, 0) + 1
        self._first_runner[shard] = last_runner + 1

    def must_be_isolated(self, shard: int) -> bool:
        """Whether the shard crashed so often that a row of it is to blame."""
        return self.counts.get(shard, 0) >= CRASHES_BEFORE_SPLIT

    def able(self, runners: list[RunnerState], shard: int) -> list[RunnerState]:
        """The runners that know all that was spooled of the shard."""
        return [runner for runner in runners if runner.number >= self._first_runner.get(shard, 0)]

    def isolate(self, pool: RunnerPool, title: str, shard: int) -> None:
        """
        Find the rows of a shard that crash their runner, by bisection.

        Rows that finish are spooled; a row that crashes twice alone becomes a failed step.

        Raises:
            Stopped: the shard keeps crashing, and no row of it does.
        """
        (start, stop), trials = self.run.record.shards[shard], self.run.record.trials
        found = 0
        for row in crashing_rows(pool, self.run.run_id, title, shard, (start, stop)):
            task = self.run.tasks().slice(row // trials, 1).to_pylist()[0]
            self.rows[task["task_id"], row % trials + 1] = "the worker process died twice on this row alone"
            found += 1
        self.counts[shard] = 0
        if not found:
            self._unexplained[shard] = self._unexplained.get(shard, 0) + 1
            if self._unexplained[shard] >= MAX_UNEXPLAINED_CRASHES:
                raise Stopped(
                    f"run {self.run.run_id}: worker processes keep dying on shard {shard} (rows {start} to {stop - 1}), but on no single row of it\n"
                    "  check whether they run out of memory, then run the same command again to resume"
                )
        # runners that are up have not read the rows spooled meanwhile, and do not know which rows crash
        self._first_runner[shard] = pool.last_number + 1
        pool.restart_idle()
