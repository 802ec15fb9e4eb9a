"""Where tasks come from: files, libraries, earlier runs, or values in memory."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address
from beam_ray.define.fingerprint import Json, JsonObject, digest
from beam_ray.errors import Unusable
from beam_ray.store.libraries import read_library
from beam_ray.store.lookup import resolve
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import tasks_digest
from beam_ray.store.runs import Run
from beam_ray.store.tables import TASKS
from beam_ray.tasks.files import STANDARD_INPUT, attach_from, find_files, names_many
from beam_ray.tasks.formats import read_rows
from beam_ray.tasks.parse import TaskReader
from beam_ray.tasks.rows import Row
from beam_ray.tasks.table_files import without_nulls

IN_MEMORY = "values in memory"
"""What a run says of the origin of tasks that were given as values."""


@dataclass(frozen=True)
class Tasks:
    """Which tasks, and how they are read."""

    source: Any
    """
    A file (.jsonl, .json, .csv, .tsv, .parquet or .xlsx; text also as .gz), a folder, a pattern such as ``data/*.jsonl``, an ``s3://`` address,
    ``-`` for standard input, ``library:NAME[@VERSION]``, ``run:RUN``, several of these in a list, an Arrow table, a pandas or polars data frame,
    or a list of dicts.
    """
    columns: Mapping[str, str] = field(default_factory=dict)
    """Field of the task to the column that it is read from, where the names differ: ``{"task_query": "body"}``."""
    labels: tuple[str, ...] = ()
    """Only tasks that have all of these labels."""
    limit: int | None = None
    """Only the first N tasks."""
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
    reader = TaskReader(objects, wanted.columns, None if wanted.labels else wanted.limit)
    if named := _named(wanted.source):
        name = _listed([_add(reader, each, wanted.folder or Path.cwd()) for each in named])
    elif isinstance(wanted.source, pa.Table) and wanted.source.schema.names == TASKS.names:
        name = IN_MEMORY
        reader.add(wanted.source, name)
    else:
        name = IN_MEMORY
        reader.read((Row("tasks", number, row) for number, row in enumerate(_rows(wanted.source), 1)), "tasks", attach_from(Path.cwd()))
    found = reader.table()
    for label in wanted.labels:
        kept = [label in (entry or ()) for entry in found["labels"].to_pylist()]
        found = found.filter(pa.array(kept, pa.bool_()))
    if wanted.limit is not None:
        found = found.slice(0, wanted.limit)
    if found.num_rows == 0:
        raise Unusable(f"{name}: no tasks left" + (f" with the label {' and '.join(wanted.labels)}" if wanted.labels else ""))
    return found, name


def _named(source: Any) -> list[str]:
    """The sources that *source* names; none where it holds the tasks themselves."""
    if isinstance(source, str | Path):
        return [str(source)]
    if isinstance(source, list | tuple) and source and all(isinstance(each, str | Path) for each in source):
        return [str(each) for each in source]
    return []


def _add(reader: TaskReader, source: str, folder: Path) -> str:
    """Add the tasks of a library, a run or files to *reader*; the source's name in full."""
    kind, _, rest = source.partition(":")
    if kind == "library" and rest:
        tasks, number = read_library(reader.objects, rest)
        name = f"library:{rest.partition('@')[0]}@{number}"
        reader.add(tasks, name)
        return name
    if kind == "run" and rest:
        run = Run(reader.objects, resolve(reader.objects, rest))
        reader.add(run.tasks(), f"run:{run.run_id}")
        return f"run:{run.run_id}"
    files = find_files(source, folder)
    for file in files:
        reader.read(read_rows(file), file.name, file.attach)
    if source == STANDARD_INPUT:
        return files[0].name
    many = len(files) > 1 or names_many(source, folder)
    return f"{source} ({len(files)} file{'s'[: len(files) != 1]})" if many else source


def _listed(names: list[str]) -> str:
    if len(names) == 1:
        return names[0]
    shown = ", ".join(names[:3])
    return f"{len(names)} sources: {shown}" + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _rows(source: Any) -> Iterable[Any]:
    """The rows of a table, a data frame or a list; pandas and polars are never imported for it."""
    if isinstance(source, pa.Table):
        return _of_table(source)
    if hasattr(source, "iloc") and hasattr(source, "to_dict"):  # pandas, whose objects Arrow would make structs with fields of other rows
        return _of_pandas(source)
    if hasattr(source, "__arrow_c_stream__"):
        return _of_table(pa.table(source))
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
            yield _given({names.get(name, name): value for name, value in without_nulls(row).items()})


def _of_pandas(frame: Any) -> Iterable[Any]:
    """Row by row, each cell as the frame has it; NaN, NaT and NA are nothing."""
    if not frame.columns.is_unique:
        raise Unusable(f"the data frame has the column {str(frame.columns[frame.columns.duplicated()][0])!r} twice")
    names = {"task_id": "id"} if "task_id" in frame.columns and "id" not in frame.columns else {}
    for start in range(0, len(frame), 1_000):
        part = frame.iloc[start : start + 1_000]
        for row in part.astype(object).where(part.notna(), None).to_dict("records"):
            yield _given({names.get(name, str(name)): value for name, value in row.items()})


def _given(row: Mapping[str, Json]) -> JsonObject:
    """The row without empty cells, but for the query, which every task must have."""
    return {name: value for name, value in row.items() if value is not None or name == "task_query"}


def with_origins(tasks: pa.Table, run_id: str) -> pa.Table:
    """*tasks* as rerun from *run_id*, with the same input: each names the task that it was."""
    origins = pa.array([str(Address(run_id, name)) for name in tasks["task_id"].to_pylist()], pa.string())
    unchanged = tasks.set_column(TASKS.get_field_index("changed_inputs"), TASKS.field("changed_inputs"), pa.nulls(tasks.num_rows, pa.string()))
    return unchanged.set_column(TASKS.get_field_index("origin"), TASKS.field("origin"), origins)


def only(tasks: pa.Table, ids: list[str]) -> pa.Table:
    """The tasks with these ids, in their order in *tasks*."""
    return tasks.filter(pc.is_in(tasks["task_id"], value_set=pa.array(ids, pa.string())))


def shuffled(tasks: pa.Table, key: str = "") -> pa.Table:
    """The tasks in a random order that is the same for the same tasks and *key*."""
    return tasks.take(pa.array(_chance(tasks, key).permutation(tasks.num_rows)))


def sampled(tasks: pa.Table, count: int, clusters: Mapping[str, str] | None = None) -> pa.Table:
    """
    A random sample of so many tasks, in their order; the same for the same tasks.

    Tasks that carry the same labels are drawn in proportion to their number. With *clusters*, task id to cluster, whole
    clusters are drawn instead, as many as fit, and at least one.
    """
    if count >= tasks.num_rows:
        return tasks
    chance = _chance(tasks, "sample")
    if clusters is not None:
        return _sampled_whole(tasks, count, clusters, chance)
    strata: dict[tuple[str, ...], list[int]] = {}
    for row, labels in enumerate(tasks["labels"].to_pylist()):
        strata.setdefault(tuple(sorted(labels or ())), []).append(row)
    # each stratum is spread evenly over one line, from which the first so many are taken
    places = np.empty(tasks.num_rows)
    for rows in strata.values():
        places[chance.permutation(rows)] = (np.arange(len(rows)) + chance.random()) / len(rows)
    return tasks.take(pa.array(np.sort(np.argsort(places, kind="stable")[:count])))


def _sampled_whole(tasks: pa.Table, count: int, clusters: Mapping[str, str], chance: np.random.Generator) -> pa.Table:
    members: dict[tuple[bool, str], list[int]] = {}
    for row, task in enumerate(tasks["task_id"].to_pylist()):
        members.setdefault((task in clusters, clusters.get(task, task)), []).append(row)
    chosen: list[int] = []
    groups = list(members.values())
    for place in chance.permutation(len(groups)).tolist():
        # going on to smaller ones that fit would draw small clusters too often
        if chosen and len(chosen) + len(groups[place]) > count:
            break
        chosen += groups[place]
    return tasks.take(pa.array(sorted(chosen)))


def _chance(tasks: pa.Table, key: str) -> np.random.Generator:
    seed = int(tasks_digest(tasks)[:16], 16)
    return np.random.default_rng([seed, int(digest("order/1", key)[:16], 16)] if key else seed)
