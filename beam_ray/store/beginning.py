"""Beginning a run: the same command finds the run that it began and did not finish."""

from functools import partial

import pyarrow as pa

from beam_ray.store.checksummed_json import RunMark, read_document, seal
from beam_ray.store.objects import NotThere, Objects, at_once
from beam_ray.store.parquet import encode
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run
from beam_ray.store.tables import TASKS


def begin(objects: Objects, record: RunRecord, tasks: pa.Table) -> RunRecord:
    """
    Write down *record*; or, where the same command was begun and not finished, the record it has.

    Of several that begin the same at once one wins, and the others are given the winner's.
    """
    found = at_once(objects, *(partial(unfinished, objects, key) for key in (record.key, record.refused_key) if key))
    existing: RunRecord | None = next(filter(None, found), None)
    if existing:
        _keep_tasks(objects, existing, tasks)
        return existing
    prefix = f"runs/{record.run_id}"
    # run.json comes first and goes last: whoever lists runs reads it, also where we die between the two
    objects.create(f"{prefix}/run.json", seal(record.model_dump(mode="json")))
    mark = partial(objects.create, f"open/{record.key}.json", seal({"run_id": record.run_id}))
    _, is_ours = at_once(objects, partial(_create_tasks, objects, record, tasks), mark)
    if is_ours:
        return record
    for name in ("tasks.parquet", "run.json"):
        objects.delete(f"{prefix}/{name}")
    return unfinished(objects, record.key) or begin(objects, record, tasks)


def _create_tasks(objects: Objects, record: RunRecord, tasks: pa.Table) -> None:
    objects.create(f"runs/{record.run_id}/tasks.parquet", encode(TASKS, tasks, row_group=1_000))


def _keep_tasks(objects: Objects, record: RunRecord, tasks: pa.Table) -> None:
    """Write down the tasks of a run that another process began, and is only about to write down, or died before it did."""
    try:
        objects.age(f"runs/{record.run_id}/tasks.parquet")
    except NotThere:
        if not Run(objects, record.run_id).finished:
            _create_tasks(objects, record, tasks)


def unfinished(objects: Objects, key: str) -> RunRecord | None:
    """The run that was begun under *key* and not closed."""
    try:
        found = read_document(objects, f"open/{key}.json", RunMark)["run_id"]
    except NotThere:
        return None
    return Run(objects, found).record


def close(objects: Objects, *records: RunRecord) -> None:
    """The command that began these has its result: beginning the same again is a new run."""
    objects.delete_all(f"open/{key}.json" for record in records for key in (record.key, record.refused_key) if key)


def mark_refused(objects: Objects, record: RunRecord) -> None:
    """An endpoint refused a setting: the same command resumes this run also when that setting was changed."""
    if record.refused_key:
        objects.create(f"open/{record.refused_key}.json", seal({"run_id": record.run_id}))
