"""
Which files of a run are damaged, what can still be read, and how repaired files replace them.

A finished run never changes, with this one exception. Repaired files replace damaged ones in
three steps, so that after a crash at any point the run is either as damaged as before or is
repaired by the same command:

    runs/<run_id>/repair/files/<sha256>     the repaired files, each under its digest
    runs/<run_id>/repair/manifest.json      created if absent: the commit. It names every file of the repaired run
    (then)                                  each file is put in its place, the manifest last, and repair/ is removed

Of two repairers one commits, and both put the same bytes in the same places. A reader during
the third step finds files that do not match the manifest, which it reports as damage. What
was repaired is listed in the manifest under "repairs".
"""

import contextlib
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from beam_ray.errors import Damaged
from beam_ray.store.batches import ANSWERS, Batches
from beam_ray.store.call_table import CALLS, CallRow, unplaced
from beam_ray.store.checksummed_json import read_document, seal
from beam_ray.store.manifest import Manifest
from beam_ray.store.objects import NotThere
from beam_ray.store.parquet import decode, salvage
from beam_ray.store.run_index import note_repair
from beam_ray.store.run_record import RunRecord
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME, PART, STEPS, TASKS, FileEntry, StepRow

Key = tuple[str, int]
"""A task's id and a trial."""

NUMBER = r"-\d+"
"""What follows a node's name in the name of a merged file."""


@dataclass(frozen=True)
class Damage:
    """A file that is not what was written."""

    name: str
    rows: int
    """Rows of it that cannot be read; 0 where it holds none."""
    why: str


@dataclass
class Found:
    """What was found in a finished run."""

    manifest: Manifest | None
    """None where it is damaged or gone."""
    record: RunRecord
    tasks: pa.Table | None
    """None where they are damaged or gone."""
    steps: dict[str, pa.Table] = field(default_factory=dict)
    """Node to its intact rows."""
    calls: dict[str, pa.Table] = field(default_factory=dict)
    """Node to its calls that can be read; what cannot is lost, which changes no output."""
    outcome: pa.Table = field(default_factory=OUTCOME.empty_table)
    damaged: list[Damage] = field(default_factory=list)

    @property
    def keys(self) -> list[Key]:
        """Every task and trial of the run, in order; where the tasks are lost, those that are known."""
        if self.tasks is not None:
            return [(task, trial) for task in self.tasks["task_id"].to_pylist() for trial in range(1, self.record.trials + 1)]
        return list(dict.fromkeys(key for table in [*self.steps.values(), self.outcome] for key in keys_of(table)))

    @property
    def lost(self) -> dict[str, set[Key]]:
        """Node to the tasks and trials whose rows cannot be read."""
        return {node: set(self.keys) - set(keys_of(table)) for node, table in self.steps.items()}


def keys_of(table: pa.Table) -> list[Key]:
    """The tasks and trials of the rows."""
    return list(zip(table["task_id"].to_pylist(), table["trial"].to_pylist(), strict=True))


def inspect(run: Run) -> Found:
    """
    Read every file of a finished run.

    Raises:
        Damaged: nothing can be done, since nothing says what the run was to do.
    """
    damaged: list[Damage] = []
    manifest = None
    try:
        manifest = run.manifest
    except Damaged as error:
        damaged.append(Damage("manifest.json", 0, str(error)))
    else:
        if manifest is None:
            damaged.append(Damage("manifest.json", 0, f"{run.prefix}/manifest.json is missing"))
    try:
        record = run.record
    except Damaged as error:
        if manifest is None:
            raise
        damaged.append(Damage("run.json", 0, str(error)))
        record = run.shortened(RunRecord.model_validate(manifest["record"]))
    if record.cut_from and manifest:
        try:
            _ = run.cut_after
        except (Damaged, NotThere) as error:
            damaged.append(Damage("cut.json", 0, _why(run, "cut.json", error)))
    found = Found(manifest, record, None, damaged=damaged)
    try:
        found.tasks = run.read("tasks.parquet", TASKS, entry=_entry(manifest, "tasks.parquet"))
        found.tasks = found.tasks.slice(0, record.tasks)
    except (Damaged, NotThere) as error:
        found.damaged.append(Damage("tasks.parquet", record.tasks, _why(run, "tasks.parquet", error)))
    for node in record.plan.order:
        found.steps[node] = _readable(run, found, rf"steps/{node}{NUMBER}\.parquet", STEPS)
    for node in record.plan.order:
        found.calls[node] = _readable_calls(run, found, rf"calls/{node}{NUMBER}\.parquet")
    found.outcome = _readable(run, found, rf"outcome({NUMBER})?\.parquet", OUTCOME)
    return found


def _readable(run: Run, found: Found, pattern: str, schema: pa.Schema) -> pa.Table:
    """The intact rows of the files whose names match; the damage of the others is noted."""
    names = _matching(run, found, pattern)
    tables, sound_files = [schema.empty_table()], True
    for name in names:
        entry = _entry(found.manifest, name)
        try:
            tables.append(run.read(name, schema, entry=entry))
        except (Damaged, NotThere) as error:
            sound = _salvaged(run, name, schema)
            tables += sound
            rows = (entry["rows"] if entry else found.record.rows) - sum(table.num_rows for table in sound)
            found.damaged.append(Damage(name, rows, _why(run, name, error)))
            sound_files = False
    table = pa.concat_tables(tables)
    if sound_files and table.num_rows < found.record.rows:
        name = pattern.replace(f"({NUMBER})?", "").replace(NUMBER, "-000").replace("\\", "")
        found.damaged.append(Damage(name, found.record.rows - table.num_rows, f"{run.prefix}/{name} is missing"))
    return table


def _readable_calls(run: Run, found: Found, pattern: str) -> pa.Table:
    """The intact calls of the files whose names match; the damage of the others is noted."""
    tables = [CALLS.empty_table()]
    for name in _matching(run, found, pattern):
        entry = _entry(found.manifest, name)
        try:
            tables.append(run.read(name, CALLS, entry=entry))
        except (Damaged, NotThere) as error:
            sound = _salvaged(run, name, CALLS)
            tables += sound
            rows = entry["rows"] - sum(table.num_rows for table in sound) if entry else 0
            found.damaged.append(Damage(name, rows, _why(run, name, error)))
    return pa.concat_tables(tables)


def _matching(run: Run, found: Found, pattern: str) -> list[str]:
    """The names of the run's files that match."""
    listed = [entry["name"] for entry in found.manifest["files"]] if found.manifest else in_order(run.names())
    return [name for name in listed if re.fullmatch(pattern, name)]


def in_order(names: Iterable[str]) -> list[str]:
    """The names of a run's files in the order of their rows: the first file of the outcome has no number."""
    return sorted(names, key=lambda name: (len(name), name))


def _salvaged(run: Run, name: str, schema: pa.Schema) -> list[pa.Table]:
    where = f"{run.prefix}/{name}"
    try:
        return [table for _, table in salvage(run.objects.read(where), schema, where) if table is not None]
    except (Damaged, NotThere, pa.ArrowException, OSError, ValueError, KeyError):
        return []


def _entry(manifest: Manifest | None, name: str) -> FileEntry | None:
    return next((entry for entry in (manifest["files"] if manifest else ()) if entry["name"] == name), None)


def _why(run: Run, name: str, error: Exception) -> str:
    return f"{run.prefix}/{name} is missing" if isinstance(error, NotThere) else str(error)


def damaged_parts(run: Run) -> Iterator[tuple[str, int, Damage]]:
    """The parts of an unfinished run that are not what was written, with node and shard; the node of spool files and of answers from batches is empty."""
    for node, shard in sorted(run.parts()):
        name = f"parts/{node}/{shard:06d}.parquet"
        try:
            run.read(name, OUTCOME if node == "_outcome" else PART)
        except Damaged as error:
            # a run that ended early may have parts beyond its end, of which it has no rows
            rows = [stop - start for start, stop in run.record.shards[shard : shard + 1]]
            yield node, shard, Damage(name, sum(rows), str(error))
    for folder, schema in (("spool", PART), ("batches/answers", ANSWERS)):
        for key, _ in run.objects.keys(f"{run.prefix}/{folder}/"):
            try:
                decode(run.objects.read(key), schema, key)
            except Damaged as error:
                yield "", 0, Damage(key.removeprefix(f"{run.prefix}/"), 0, str(error))


def delete_damaged_parts(run: Run) -> list[str]:
    """
    Take away the damaged parts of an unfinished run; their names.

    What is sound of the parts after them goes to the spool first, so that it is not paid again.
    """
    workflow = run.record.plan
    there, damaged, gone = run.parts(), list(damaged_parts(run)), list[str]()
    if any(node for node, _, _ in damaged):
        _delete_merged(run, {(node, shard) for node, shard, _ in damaged})
    for node, shard, damage in damaged:
        for below in [name for name in workflow.order if node in workflow.upstream.get(name, ())]:
            if (below, shard) in there:
                try:
                    part = run.part(below, shard)
                except Damaged:
                    continue  # it is in the list too
                if part is not None:
                    run.spool(f"0000-intact-{below}-{hashlib.sha256(damage.name.encode()).hexdigest()[:8]}", shard, part.to_pylist())
        if node:
            after = ["_outcome", *reversed([name for name in workflow.order if node in workflow.upstream.get(name, ())])]
            for name in after:
                run.objects.delete(f"{run.prefix}/parts/{name}/{shard:06d}.parquet")
        if damage.name.startswith("batches/"):
            Batches(run).forget_end(damage.name)
        run.objects.delete(f"{run.prefix}/{damage.name}")
        gone.append(damage.name)
    return gone


def _delete_merged(run: Run, lost: set[tuple[str, int]]) -> None:
    """Delete the files that a driver merged before it died: with parts missing, the run would look finished. Rows of *lost* parts are kept."""
    merged = [key for folder in ("steps/", "calls/", "outcome") for key, _ in run.objects.keys(f"{run.prefix}/{folder}")]
    calls: dict[str, dict[Key, list[CallRow]]] = {}
    # an earlier repair of this run may have kept rows of other parts
    spool = f"0000-merged-{hashlib.sha256(repr(sorted(lost)).encode()).hexdigest()[:8]}"
    for key in merged:
        if "/calls/" in key:
            with contextlib.suppress(Damaged):
                found = decode(run.objects.read(key), CALLS, key).to_pylist()
                for call in found:
                    calls.setdefault(call["node"], {}).setdefault((call["task_id"], call["trial"]), []).append(unplaced(call))
    for number, key in enumerate(merged):
        with contextlib.suppress(Damaged):
            rows: list[StepRow] = decode(run.objects.read(key), STEPS, key).to_pylist() if "/steps/" in key else []
            if rows := [row for row in rows if (row["node"], row["shard"]) in lost]:
                run.spool(spool, number, [{**row, "call_rows": calls.get(row["node"], {}).get((row["task_id"], row["trial"]))} for row in rows])
    for key in merged:
        run.objects.delete(key)


# -- mended files ------------------------------------------------------------------------------


def commit(run: Run, manifest: Manifest, bodies: list[bytes]) -> None:
    """Commit *manifest* as the run's new manifest; *bodies* are the repaired files."""
    for body in bodies:
        run.objects.create(f"{run.prefix}/repair/files/{hashlib.sha256(body).hexdigest()}", body)
    run.objects.create(f"{run.prefix}/repair/manifest.json", seal(manifest))


def pending(run: Run) -> Manifest | None:
    """The manifest that a repair has committed and not yet put in place."""
    try:
        return read_document(run.objects, f"{run.prefix}/repair/manifest.json", Manifest)
    except (NotThere, Damaged):
        return None


def put_in_place(run: Run) -> None:
    """Put the committed repair in place, or complete that."""
    manifest = pending(run)
    if manifest is not None:
        note_repair(run, manifest)
        named = {entry["name"] for entry in manifest["files"]}
        for entry in manifest["files"]:
            try:
                body = run.objects.read(f"{run.prefix}/repair/files/{entry['sha256']}")
            except NotThere:
                continue  # it was sound, and stays
            if hashlib.sha256(body).hexdigest() == entry["sha256"]:
                run.objects.put(f"{run.prefix}/{entry['name']}", body)
        for key, _ in [*run.objects.keys(f"{run.prefix}/steps/"), *run.objects.keys(f"{run.prefix}/calls/")]:
            if key.removeprefix(f"{run.prefix}/") not in named:
                run.objects.delete(key)
        run.objects.put(f"{run.prefix}/run.json", seal(manifest["record"]))
        record = run.shortened(RunRecord.model_validate(manifest["record"]))
        if record.cut_from:
            run.objects.put(f"{run.prefix}/cut.json", seal({"shards": len(record.shards)}))
        run.objects.put(f"{run.prefix}/manifest.json", seal(manifest))
    keys = [key for key, _ in run.objects.keys(f"{run.prefix}/repair/")]
    # the commit goes last: while it is there, the same command does all this again
    for key in sorted(keys, key=lambda key: key.endswith("/manifest.json")):
        if manifest is not None or key.endswith("/manifest.json"):
            run.objects.delete(key)
