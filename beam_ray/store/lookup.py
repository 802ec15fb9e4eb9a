"""Finding tasks: by address, by a word that begins one, or by what became of them."""

import contextlib
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.address import Address, parse
from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import BadTemplate, BeamRayError, Unusable
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.outcome_index import outcome_index
from beam_ray.store.run_index import all_runs
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME, OutcomeRow

STATUSES = ("passed", "below", "failed", "failing", "review")
"""below: no step failed, but a score is below its threshold; failing: below or failed."""


FULL_ID = re.compile(r"\d{6}-[0-9a-f]{6}")
LOOKED_AT = 16
"""Newest runs in which a task is looked for before the index of all is read."""


def find_runs(objects: Objects) -> list[str]:
    """The ids of all runs, newest day last."""
    return objects.folders("runs")


def resolve(objects: Objects, short: str) -> str:
    """
    The full id of the run that *short* is the beginning of; ``last`` is the newest.

    Raises:
        Unusable: no run, or more than one, begins so.
    """
    if FULL_ID.fullmatch(short) and _is_there(objects, short):
        return short
    if short == "last" and (runs := newest_first(objects)):
        return runs[0].run_id
    ids = find_runs(objects)
    matches = [short] if short in ids else [name for name in ids if name.startswith(short) or name.partition("-")[2].startswith(short)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise Unusable(f"{short!r} is ambiguous: {', '.join(matches[:5])}; give more of the id")
    raise Unusable(f"there is no run {short!r} in {objects.uri}\n  beam-ray tasks  lists the tasks of all runs")


def _is_there(objects: Objects, run_id: str) -> bool:
    try:
        objects.age(f"runs/{run_id}/run.json")
    except NotThere:
        return False
    return True


def newest_first(objects: Objects, *, skip_damaged: bool = False) -> list[Run]:
    """
    All runs, the newest first; finished ones by the index.

    Raises:
        Damaged: a run that the index does not have cannot be read, and is not to be skipped.
    """
    dated = []
    for run in all_runs(objects):
        try:
            dated.append((run.created_at, run.run_id, run))
        except BeamRayError:
            if not skip_damaged:
                raise
    return [run for _, _, run in sorted(dated, key=lambda entry: entry[:2], reverse=True)]


def recent_runs(objects: Objects, most: int = 200) -> list[Run]:
    """The newest runs, the newest first."""
    return newest_first(objects)[:most]


def find_task(objects: Objects, written: str) -> Address:
    """
    The address of a task: RUN/TASK, or a task's id alone, which means its newest run.

    Raises:
        Unusable: there is no such task.
    """
    if "/" in written:
        address = parse(written)
        run = Run(objects, resolve(objects, address.run))
        if address.task not in run.tasks()["task_id"].to_pylist():
            raise Unusable(f"run {run.run_id} has no task {address.task!r}\n  beam-ray tasks --run {run.run_id}  lists them")
        return Address(run.run_id, address.task, address.trial, address.node, address.attempt)
    runs = newest_first(objects)
    for run in runs[:LOOKED_AT]:
        with contextlib.suppress(Unusable):  # it was planned and never started
            if written in run.tasks()["task_id"].to_pylist():
                return Address(run.run_id, written)
    if len(runs) > LOOKED_AT:
        named = outcome_index(objects).table().select(["run_id", "task_id"])
        found = named.filter(pc.equal(named["task_id"], written))["run_id"]
        if len(found):
            return Address(found[0].as_py(), written)
    raise Unusable(f"there is no task {written!r} in {objects.uri}\n  beam-ray tasks  lists them")


def status_of(row: OutcomeRow) -> str:
    """passed, below or failed."""
    if row["passed"]:
        return "passed"
    return "failed" if row["outcome"] == "failed" else "below"


def select(table: pa.Table, *, status: str | None = None, labels: tuple[str, ...] = (), where: str | None = None) -> pa.Table:
    """
    Those rows of an outcome table that have the status and the labels, and for which *where* holds.

    *where* is an expression over the table's columns, such as ``score < 80 and 'scan' in labels``.

    Raises:
        Unusable: *where* cannot be computed.
    """
    if status:
        failed = pc.equal(table["outcome"], "failed")
        masks = {
            "passed": table["passed"],
            "failed": failed,
            "failing": pc.invert(table["passed"]),
            "below": pc.and_(pc.invert(table["passed"]), pc.invert(failed)),
            "review": table["review"],
        }
        table = table.filter(masks[status])
    for label in labels:
        table = table.filter(pa.array([label in (entry or ()) for entry in table["labels"].to_pylist()], pa.bool_()))
    if where:
        from beam_ray.define.template import evaluate_rows

        try:
            table = table.filter(pa.array([bool(value) for value in evaluate_rows(where, map(_known, _rows(table)))], pa.bool_()))
        except BadTemplate as error:
            raise Unusable(f"--where: {error}\n  it may use {', '.join(OUTCOME.names)}") from None
    return table


def _known(row: OutcomeRow) -> JsonObject:
    return {**row, "status": status_of(row)}


def _rows(table: pa.Table) -> Iterator[OutcomeRow]:
    for batch in table.to_batches(max_chunksize=5_000):
        yield from batch.to_pylist()
