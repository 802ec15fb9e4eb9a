"""Keep tasks back from a comparison, on which its best candidate is run again."""

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.errors import Unusable
from beam_ray.tasks.sources import sampled

LEAST = 10
"""Tasks on each side: fewer show nothing."""


def fresh_split(tasks: pa.Table, limit: int | Mapping[str, int] | None, source: str, clusters: Mapping[str, str] | None = None) -> tuple[pa.Table, pa.Table]:
    """
    The tasks that are compared, and others to run the best candidate on: half of them each, or what *limit* takes and as many of the rest.

    A task whose inputs are compared under another id is not fresh. The split is random, in proportion to labels, and
    the same for the same tasks.

    Args:
        limit: a number of tasks drawn at random, or ``{"first": N}``.
        clusters: task id to cluster; a cluster is on one side as a whole.

    Raises:
        Unusable: fewer than ten tasks are left on one side.
    """
    half = -(-tasks.num_rows // 2)
    compared = tasks.slice(0, limit["first"]) if isinstance(limit, Mapping) else sampled(tasks, half if limit is None else limit, clusters)
    fresh = tasks.filter(pc.invert(pc.is_in(tasks["inputs"], value_set=pc.unique(compared["inputs"]))))
    if clusters is not None:
        used = {clusters[task] for task in compared["task_id"].to_pylist() if task in clusters}
        fresh = fresh.filter(pa.array([clusters.get(task) not in used for task in fresh["task_id"].to_pylist()], pa.bool_()))
    fresh = sampled(fresh, compared.num_rows, clusters)
    if min(compared.num_rows, fresh.num_rows) < LEAST:
        what = (
            f"compares {compared.num_rows:,} and leaves {fresh.num_rows:,} other"
            if limit is not None
            else f"splits them into {compared.num_rows:,} and {fresh.num_rows:,}"
        )
        raise Unusable(
            f"rerun: fresh needs at least {LEAST} tasks to compare and {LEAST} others; of {tasks.num_rows:,} tasks from {source} it {what}\n"
            + ("  set a smaller limit, or add tasks" if limit is not None else "  add tasks, or leave rerun out")
        )
    return compared, fresh
