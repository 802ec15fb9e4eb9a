"""Where tasks come from: a file, a library, an earlier run, or values in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.errors import Unusable
from beam_ray.store.libraries import read_library
from beam_ray.store.lookup import resolve
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import tasks_digest
from beam_ray.store.runs import Run
from beam_ray.store.tables import TASKS
from beam_ray.tasks.parse import parse_values, read_tasks

IN_MEMORY = "values in memory"
"""What a run says of the origin of tasks that were given as values."""


@dataclass(frozen=True)
class Tasks:
    """Which tasks, and how they are read."""

    source: Any
    """A path (.jsonl, .csv, .parquet), ``library:NAME[@VERSION]``, ``run:RUN``, an Arrow table, a pandas or polars data frame, or a list of dicts."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of the task to the column that it is read from, where the names differ: ``{"task_query": "body"}``."""
    labels: tuple[str, ...] = ()
    """Only tasks that have all of these labels."""
    limit: int | None = None
    """Only the first so many tasks."""
    folder: Path | None = None
    """Where a relative path is looked for first; the working folder follows."""


def read(objects: Objects, tasks: Any) -> tuple[pa.Table, str]:
    """
    The tasks as the table TASKS, and the name of their source in full.

    Args:
        tasks: A ``Tasks``, or what its ``source`` may be.

    Raises:
        BadDefinition: rows are wrong, each with its place.
        Unusable: there is no such source, or no task is left of it.
    """
    wanted = tasks if isinstance(tasks, Tasks) else Tasks(tasks)
    found, name = _read(objects, wanted)
    for label in wanted.labels:
        kept = [label in (entry or ()) for entry in found["labels"].to_pylist()]
        found = found.filter(pa.array(kept, pa.bool_()))
    if wanted.limit is not None:
        found = found.slice(0, wanted.limit)
    if found.num_rows == 0:
        raise Unusable(f"{name}: no tasks left" + (f" with the label {' and '.join(wanted.labels)}" if wanted.labels else ""))
    return found, name


def read_source(
    objects: Objects,
    written: str,
    *,
    mapping: Mapping[str, str] | None = None,
    limit: int | None = None,
    labels: tuple[str, ...] = (),
    folder: Path | None = None,
) -> tuple[pa.Table, str]:
    """The tasks that *written* names, and its name in full: see ``read``."""
    return read(objects, Tasks(written, mapping or {}, labels, limit, folder))


def _read(objects: Objects, wanted: Tasks) -> tuple[pa.Table, str]:
    source = wanted.source
    limit = None if wanted.labels else wanted.limit
    if isinstance(source, pa.Table) and source.schema.names == TASKS.names:
        return source, IN_MEMORY
    if not isinstance(source, str | Path):
        return parse_values(_rows(source), objects, mapping=wanted.columns, limit=limit), IN_MEMORY
    written = str(source)
    kind, _, rest = written.partition(":")
    if kind == "library" and rest:
        tasks, number = read_library(objects, rest)
        return tasks, f"library:{rest.partition('@')[0]}@{number}"
    if kind == "run" and rest:
        run = Run(objects, resolve(objects, rest))
        return run.tasks(), f"run:{run.run_id}"
    path = next((path for path in ((wanted.folder or Path.cwd()) / written, Path.cwd() / written) if path.is_file()), Path(written))
    return read_tasks(path, objects, mapping=wanted.columns, limit=limit), written


def _rows(source: Any) -> Iterable[Any]:
    """The rows of a table, a data frame or a list; pandas and polars are never imported for it."""
    if isinstance(source, pa.Table):
        return _of_table(source)
    if hasattr(source, "__arrow_c_stream__"):  # polars, and pandas from version 2.2 on
        return _of_table(pa.table(source))
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return _of_table(pa.Table.from_pandas(source, preserve_index=False))
    if isinstance(source, list | tuple):
        return source
    raise Unusable(
        f"tasks cannot be read from a {type(source).__name__}\n  give a path, library:NAME, run:RUN, an Arrow table, a data frame or a list of dicts"
    )


def _of_table(table: pa.Table) -> Iterable[Any]:
    """Row by row; a task that came from a store has its id under another name, and its JSON as text."""
    names = {"task_id": "id"} if "task_id" in table.column_names and "id" not in table.column_names else {}
    for batch in table.to_batches(max_chunksize=1_000):
        for row in batch.to_pylist():
            yield {names.get(name, name): value for name, value in row.items() if value is not None or name == "task_query"}


def with_origins(tasks: pa.Table, run_id: str) -> pa.Table:
    """*tasks* as rerun from *run_id*: each names the task that it was."""
    origins = pa.array([str(Address(run_id, name)) for name in tasks["task_id"].to_pylist()], pa.string())
    return tasks.set_column(TASKS.get_field_index("origin"), TASKS.field("origin"), origins)


def only(tasks: pa.Table, ids: list[str]) -> pa.Table:
    """The tasks with these ids, in their order in *tasks*."""
    return tasks.filter(pc.is_in(tasks["task_id"], value_set=pa.array(ids, pa.string())))


def shuffled(tasks: pa.Table) -> pa.Table:
    """The tasks in a random order that is the same for the same tasks."""
    seed = int(tasks_digest(tasks)[:16], 16)
    return tasks.take(pa.array(np.random.default_rng(seed).permutation(tasks.num_rows)))
