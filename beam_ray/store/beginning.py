"""Beginning a run: the same command finds the run that it began and did not finish."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa

from beam_ray.store.checksummed_json import RunMark, read_document, seal
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.parquet import encode
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run
from beam_ray.store.tables import TASKS


def begin(objects: Objects, record: RunRecord, tasks: pa.Table) -> RunRecord:
    """
    Write down *record*; or, where the same command was begun and not finished, the record it has.

    Of several that begin the same at once one wins, and the others are given the winner's.
    """
    with ThreadPoolExecutor(2) as pool:
        found = pool.map(partial(unfinished, objects), filter(None, (record.key, record.refused_key)))
        existing = next(filter(None, found), None)
    if existing:
        return existing
    prefix = f"runs/{record.run_id}"
    # run.json comes first and goes last: whoever lists runs reads it, also where we die between the two
    objects.create(f"{prefix}/run.json", seal(record.model_dump(mode="json")))
    objects.create(f"{prefix}/tasks.parquet", encode(TASKS, tasks, row_group=1_000))
    if objects.create(f"open/{record.key}.json", seal({"run_id": record.run_id})):
        return record
    for name in ("tasks.parquet", "run.json"):
        objects.delete(f"{prefix}/{name}")
    return unfinished(objects, record.key) or begin(objects, record, tasks)


def unfinished(objects: Objects, key: str) -> RunRecord | None:
    """The run that was begun under *key* and not closed."""
    try:
        found = read_document(objects, f"open/{key}.json", RunMark)["run_id"]
    except NotThere:
        return None
    return Run(objects, found).record


def close(objects: Objects, record: RunRecord) -> None:
    """The command has its result: beginning the same again is a new run."""
    objects.delete_all(f"open/{key}.json" for key in (record.key, record.refused_key) if key)


def mark_refused(objects: Objects, record: RunRecord) -> None:
    """An endpoint refused a setting: the same command resumes this run also when that setting was changed."""
    if record.refused_key:
        objects.create(f"open/{record.refused_key}.json", seal({"run_id": record.run_id}))
