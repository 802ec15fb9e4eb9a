"""Where tasks come from: a file, a library, or an earlier run."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.errors import Unusable
from beam_ray.store.libraries import read_library
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, resolve, tasks_digest
from beam_ray.store.tables import TASKS
from beam_ray.tasks.parse import read_tasks


def read_source(
    objects: Objects,
    written: str,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    labels: tuple[str, ...] = (),
    folder: Path | None = None,
) -> tuple[pa.Table, str]:
    """
    The tasks that *written* names, and its name in full: a file, ``library:NAME[@V]`` or ``run:ID``.

    Raises:
        Unusable: there is no such source, or nothing is left of it.
    """
    kind, _, rest = written.partition(":")
    if kind == "library" and rest:
        tasks, number = read_library(objects, rest)
        name = f"library:{rest.partition('@')[0]}@{number}"
    elif kind == "run" and rest:
        run = Run(objects, resolve(objects, rest))
        tasks, name = run.tasks(), f"run:{run.run_id}"
    else:
        path = next((path for path in ((folder or Path.cwd()) / written, Path.cwd() / written) if path.is_file()), Path(written))
        tasks, name = read_tasks(path, objects, mapping=mapping, limit=None if labels else limit), written
    for label in labels:
        kept = [label in (entry or ()) for entry in tasks["labels"].to_pylist()]
        tasks = tasks.filter(pa.array(kept, pa.bool_()))
    if limit is not None:
        tasks = tasks.slice(0, limit)
    if tasks.num_rows == 0:
        raise Unusable(f"{name}: no task is left" + (f" with the label {' and '.join(labels)}" if labels else ""))
    return tasks, name


def with_origins(tasks: pa.Table, run_id: str) -> pa.Table:
    """*tasks* as redone from *run_id*: each remembers the task that it was."""
    origins = pa.array([str(Address(run_id, name)) for name in tasks["task_id"].to_pylist()], pa.string())
    return tasks.set_column(TASKS.get_field_index("origin"), TASKS.field("origin"), origins)


def only(tasks: pa.Table, ids: list[str]) -> pa.Table:
    """Those of *tasks* with these ids, in the order they stand in."""
    return tasks.filter(pc.is_in(tasks["task_id"], value_set=pa.array(ids, pa.string())))


def shuffled(tasks: pa.Table) -> pa.Table:
    """The tasks in a random order that is the same for the same tasks."""
    seed = int(tasks_digest(tasks)[:16], 16)
    return tasks.take(pa.array(np.random.default_rng(seed).permutation(tasks.num_rows)))
