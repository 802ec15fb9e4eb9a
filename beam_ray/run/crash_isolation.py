"""Which rows crash the process of their runner, found by bisection."""

from collections.abc import Iterator

from beam_ray.run.cluster import RunnerDied
from beam_ray.run.runner_pool import RunnerPool

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
