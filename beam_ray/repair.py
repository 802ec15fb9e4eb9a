"""
Repair a damaged run: intact data is kept, derived data is computed again, and only the rest is executed again.

    a step's rows        rows in intact pieces of the file are read; the others are executed again by a separate
                         run (mode "repair"), which gets all intact rows of their tasks as if it had spooled them.
                         So a row after a repeated one is paid for again only if its inputs have changed
    a node's calls       rows in intact pieces are kept, and answer the steps that are executed again; the others are lost
    outcome.parquet      computed from the steps, without model calls
    manifest.json        computed from the steps and the outcome, without model calls
    run.json             restored from its copy in the manifest
    tasks.parquet        restored from the library or the run that the tasks came from; otherwise it is lost
    parts of an          deleted, and the rows that depend on them are moved to the spool: resume does the rest
    unfinished run

Rows that are repeated are new answers under the old run's id: the manifest records which, when,
and what they cost. How the new files replace the damaged ones, and why a crash or a second
repair at the same time does no harm, is described in ``store.integrity``. The repair run stays
in the store as a record of what was paid.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.define.fingerprint import JsonObject
from beam_ray.diagnosis import diagnose, restored_tasks, to_redo
from beam_ray.errors import Damaged, Unusable
from beam_ray.llm.scripted import Models
from beam_ray.run.context import TaskTrial
from beam_ray.run.execute import changed_tools
from beam_ray.run.model_identity import identity
from beam_ray.run.outcome import outcome_row, output_nodes, sum_of_prices
from beam_ray.run.plan import Lineage, make_plan, require_models
from beam_ray.run.summary import summary_of
from beam_ray.store.beginning import begin
from beam_ray.store.call_table import CALLS, CallRow, PlacedCallRow, attachments_in, carried
from beam_ray.store.checksummed_json import RunMark, read_document, seal
from beam_ray.store.integrity import Found, Key, commit, delete_damaged_parts, in_order, inspect, keys_of, pending, put_in_place
from beam_ray.store.lease import Lease
from beam_ray.store.manifest import Manifest, RepairEntry
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.parquet import decode, encode, encode_batches, to_table
from beam_ray.store.run_record import RunRecord, now
from beam_ray.store.runs import FILE_BYTES, Run, with_attachments
from beam_ray.store.tables import OUTCOME, STEPS, TASKS, FileEntry, OutcomeRow, StepRow
from beam_ray.tasks.sources import only

ExecuteRun = Callable[[RunRecord], Any]
"""Executes a run that was stored, to its end."""


@dataclass(frozen=True)
class RepairResult:
    """What a repair did."""

    run_id: str
    files: tuple[str, ...]
    """Files that were replaced: damaged ones, and those derived from them."""
    repair_run: str | None = None
    rows: int = 0
    """Rows that were executed again."""
    calls: int = 0
    usd: float | None = 0.0


def repair(objects: Objects, run_id: str, models: Models, execute: ExecuteRun, *, allow_writes: bool = False, takeover: bool = False) -> RepairResult:
    """
    Repair the run; a run without damage is not changed.

    The same call resumes an interrupted repair. Unless *allow_writes*, tools with write effects
    are not called again: their lost rows are skipped, with that reason.

    Raises:
        Unusable: the run was made with other models or tools.
        Damaged: it cannot be repaired; nothing was changed.
        RunIsTaken: a driver of the run is alive.
        Stopped: it stopped before the end; the same call resumes it.
    """
    run = Run(objects, run_id)
    lease = Lease(run, takeover=takeover)
    try:
        if not run.merged:
            return RepairResult(run_id, tuple(delete_damaged_parts(run)))
        # a commit that cannot be read is no commit; the files that it replaced match it, or are repaired now
        waiting = pending(run)
        put_in_place(run)
        run = Run(objects, run_id)
        diagnosis = diagnose(run)
        if diagnosis.hopeless:
            raise Damaged(diagnosis.hopeless)
        if not diagnosis.damaged:
            return _recorded_result(run_id, waiting["repairs"][-1]) if waiting else RepairResult(run_id, ())
        return _repair_finished(objects, run, models, execute, lease, allow_writes)
    finally:
        lease.release()


def _repair_finished(objects: Objects, run: Run, models: Models, execute: ExecuteRun, lease: Lease, allow_writes: bool) -> RepairResult:
    found = inspect(run)
    workflow = found.record.plan
    bodies: dict[str, bytes] = {}
    if found.tasks is None:
        tasks = restored_tasks(run, found)
        assert tasks is not None
        bodies["tasks.parquet"] = encode(TASKS, tasks, row_group=1_000)
        found.tasks = tasks.slice(0, found.record.tasks)
    _, affected = to_redo(found)
    redone = _redo(objects, run, found, affected, models, execute, allow_writes) if affected else None
    lease.beat()
    rows = {node: _new_rows(found, node, affected, redone) for node in workflow.order}
    _keep_rows_after_withheld_writes(found, rows)
    files, changed = list[FileEntry](), set[Key]()
    for node in workflow.order:
        before = {key: row for key, row in zip(keys_of(found.steps[node]), found.steps[node].to_pylist(), strict=True) if key in rows[node]}
        changed |= {key for key, row in rows[node].items() if before.get(key) != row}
        broken = [damage for damage in found.damaged if damage.name.startswith(f"steps/{node}-")]
        if broken or before != rows[node]:
            files += _encoded(found, STEPS, found.steps[node], rows[node], f"steps/{node}-{{:03d}}.parquet", bodies)
        else:
            files += _entries(run, found, f"steps/{node}-")
        files += _call_files(run, found, node, {key for key, row in rows[node].items() if before.get(key) != row}, redone, bodies)
    lost = set(found.keys) - set(keys_of(found.outcome))
    if lost | changed or any(damage.name.startswith("outcome") for damage in found.damaged):
        outcomes = _outcomes(found, rows, lost | changed)
        files += _encoded(found, OUTCOME, found.outcome, outcomes, "outcome.parquet", bodies)
        found.outcome = _together(found, OUTCOME, found.outcome, outcomes)
    else:
        files += _entries(run, found, "outcome")
    tasks_body = bodies.get("tasks.parquet") or objects.read(f"{run.prefix}/tasks.parquet")
    files.append(Run.entry("tasks.parquet", tasks_body, found.tasks.num_rows))
    result = _result(run, found, bodies, redone)
    commit(run, _manifest(run, found, files, result), list(bodies.values()))
    lease.beat()
    put_in_place(run)
    return result


def _redo(objects: Objects, run: Run, found: Found, affected: list[Key], models: Models, execute: ExecuteRun, allow_writes: bool) -> Run:
    """A finished run of the tasks that lost rows, in which all their intact rows are kept as they are."""
    record = found.record
    _require_same(record, models)
    assert found.tasks is not None
    special: JsonObject = {name: value for name in ("borrow_from", "pinned_node", "pinned_from") if (value := getattr(record, name))}
    plan = make_plan(
        record.plan,
        only(found.tasks, list({task for task, _ in affected})),
        models,
        source=f"damaged rows of run {run.run_id}",
        version_number=record.version,
        trials=record.trials,
        lineage=Lineage(
            origin=record.origin,
            start_node=record.start_node,
            borrow=record.borrow,
            rescore_only=record.ruler_only,
            recorded=record.recorded,
            mode="repair",
            because=f"repair of run {run.run_id}",
            allow_writes=record.allow_writes and allow_writes,
            **special,
        ),
    )
    mark = f"{run.prefix}/repair/{plan.record.key}.json"
    try:
        redo = Run(objects, read_document(objects, mark, RunMark)["run_id"])
    except (NotThere, Damaged):
        # put, not create: a damaged mark must be replaced, and two repairs at once have the same run
        redo = Run(objects, begin(objects, plan.record, plan.tasks).run_id)
        objects.put(mark, seal({"run_id": redo.run_id}))
    if not redo.finished:
        ids = redo.tasks()["task_id"]
        shard_of = _shards([(task, trial) for task in ids.to_pylist() for trial in range(1, record.trials + 1)], redo.record)
        for number, (node, table) in enumerate(found.steps.items()):
            sound: list[StepRow] = table.filter(pc.is_in(table["task_id"], value_set=ids.combine_chunks())).to_pylist()
            calls = carried(found.calls[node].to_pylist())
            rows: list[StepRow] = [
                {**row, "shard": shard_of[row["task_id"], row["trial"]], "call_rows": calls.pop((row["task_id"], row["trial"]), None)} for row in sound
            ]
            # what a lost step had asked is not asked again
            lost = [_open_row(redo.run_id, node, key, shard_of[key], found_calls) for key, found_calls in calls.items() if key in shard_of]
            redo.spool("0000-intact", number, [*rows, *lost])
        # the next driver is not the first one of this run, and so reads the spool
        Lease(redo).release()
        execute(redo.record)
        redo = Run(objects, redo.run_id)
    return redo


def _open_row(run_id: str, node: str, key: Key, shard: int, calls: list[CallRow]) -> StepRow:
    """The row of a step of which only its calls are known."""
    row = {"run_id": run_id, "task_id": key[0], "node": node, "trial": key[1], "outcome": "open", "shard": shard, "call_rows": calls}
    return cast(StepRow, row)


def _call_files(run: Run, found: Found, node: str, changed: set[Key], redone: Run | None, bodies: dict[str, bytes]) -> list[FileEntry]:
    """The files of the node's calls: as they are, or without what is lost and with the calls of *changed* steps as the repair run made them."""
    broken = any(damage.name.startswith(f"calls/{node}-") for damage in found.damaged)
    if not changed and not broken:
        return _entries(run, found, f"calls/{node}-")
    made: list[PlacedCallRow] = redone.calls([node]).to_pylist() if redone and changed else []
    before: list[PlacedCallRow] = found.calls[node].to_pylist()
    rows = [row for row in before if (row["task_id"], row["trial"]) not in changed]
    rows += [{**row, "run_id": found.record.run_id} for row in made if (row["task_id"], row["trial"]) in changed]
    if not rows:
        return []
    place = {key: number for number, key in enumerate(found.keys)}
    rows.sort(key=lambda row: (place[row["task_id"], row["trial"]], row["attempt"], row["number"]))
    table = to_table(CALLS, rows)
    entries = []
    for number, (body, count) in enumerate(encode_batches(CALLS, [table], FILE_BYTES)):
        name = f"calls/{node}-{number:03d}.parquet"
        bodies[name] = body
        entries.append(Run.entry(name, body, count))
    return with_attachments(entries, attachments_in(table))


def _require_same(record: RunRecord, models: Models) -> None:
    other = [name for name, written in require_models(record.plan, models).items() if record.models.get(name, {}).get("identity") != identity(written)]
    if other:
        raise Unusable(
            f"run {record.run_id} was made with another model under the name {other[0]!r}\n  repair it with the model and settings that it was made with"
        )
    tools = changed_tools(record)
    if tools:
        raise Unusable(f"run {record.run_id} was made with other code: {', '.join(tools)} changed since\n  restore the old code to repair it")


def _new_rows(found: Found, node: str, affected: list[Key], redone: Run | None) -> dict[Key, StepRow]:
    """The rows of the affected tasks and trials, as the repaired run will have them."""
    if redone is None:
        return {}
    shard_of = _shards(found.keys, found.record)
    wanted, rows = set(affected), dict[Key, StepRow]()
    executed: list[StepRow] = redone.steps([node]).to_pylist()
    for row in executed:
        key = row["task_id"], row["trial"]
        if key in wanted:
            rows[key] = {**row, "run_id": found.record.run_id, "shard": shard_of[key]}
    return rows


def _keep_rows_after_withheld_writes(found: Found, rows: dict[str, dict[Key, StepRow]]) -> None:
    """Where a write was not called again, keep the intact rows after it: their inputs were what the write returned when it was called."""
    workflow, lost = found.record.plan, found.lost
    for name, node in workflow.nodes.items():
        withheld = {key for key in lost[name] & set(rows[name]) if node.effects == "write" and rows[name][key]["outcome"] == "skipped"}
        for below in workflow.downstream(name):
            for key in withheld - lost[below]:
                rows[below].pop(key, None)


def _shards(keys: list[Key], record: RunRecord) -> dict[Key, int]:
    return {key: number for number, (start, stop) in enumerate(record.shards) for key in keys[start:stop]}


def _outcomes(found: Found, rows: Mapping[str, Mapping[Key, StepRow]], wanted: set[Key]) -> dict[Key, OutcomeRow]:
    """The outcome rows of the tasks and trials, from their steps."""
    assert found.tasks is not None
    workflow, shard_of = found.record.plan, _shards(found.keys, found.record)
    steps = {
        node: {key: row for key, row in zip(keys_of(table), table.to_pylist(), strict=True) if key in wanted} | dict(rows[node])
        for node, table in found.steps.items()
    }
    made = {}
    for task in found.tasks.to_pylist():
        for trial in range(1, found.record.trials + 1):
            key = task["task_id"], trial
            if key in wanted:
                made[key] = outcome_row(
                    found.record.run_id, TaskTrial.of(task, trial, shard_of[key]), [steps[node][key] for node in workflow.order], output_nodes(workflow)
                )
    return made


def _together(found: Found, schema: pa.Schema, sound: pa.Table, rows: Mapping[Key, StepRow | OutcomeRow]) -> pa.Table:
    """The intact rows and the new ones, in the run's order."""
    kept = sound.filter(pa.array([key not in rows for key in keys_of(sound)], pa.bool_()))
    table = pa.concat_tables([kept, to_table(schema, rows.values())])
    place = {key: number for number, key in enumerate(keys_of(table))}
    return table.take(pa.array([place[key] for key in found.keys], pa.int64()))


def _encoded(
    found: Found, schema: pa.Schema, sound: pa.Table, rows: Mapping[Key, StepRow | OutcomeRow], name: str, bodies: dict[str, bytes]
) -> list[FileEntry]:
    """The files of a node as a merge of its shards would make them."""
    table = _together(found, schema, sound, rows)
    entries = []
    for number, (body, count) in enumerate(encode_batches(schema, (table.slice(start, stop - start) for start, stop in found.record.shards), FILE_BYTES)):
        full = name.format(number) if number == 0 or "{" in name else name.replace(".parquet", f"-{number:03d}.parquet")
        bodies[full] = body
        entries.append(Run.entry(full, body, count))
    return entries


def _entries(run: Run, found: Found, start: str) -> list[FileEntry]:
    """The manifest's entries of the intact files whose names begin with *start*; where it is lost, entries of those that exist."""
    if found.manifest:
        return [entry for entry in found.manifest["files"] if entry["name"].startswith(start)]
    folder, _, rest = start.partition("/")
    schema = {"steps": STEPS, "calls": CALLS}.get(folder, OUTCOME)
    names = in_order(key.removeprefix(f"{run.prefix}/") for key, _ in run.objects.keys(f"{run.prefix}/{start}"))
    bodies = [run.objects.read(f"{run.prefix}/{name}") for name in names]
    entries = [Run.entry(name, body, decode(body, schema, name, ["task_id"]).num_rows) for name, body in zip(names, bodies, strict=True)]
    return with_attachments(entries, attachments_in(found.calls[rest.removesuffix("-")])) if folder == "calls" else entries


def _result(run: Run, found: Found, bodies: Mapping[str, bytes], redone: Run | None) -> RepairResult:
    names = tuple(sorted({*bodies, *(damage.name for damage in found.damaged if damage.name.endswith(".json"))}))
    if redone is None:
        return RepairResult(run.run_id, names)
    calls, usd = _paid(found, redone)
    return RepairResult(run.run_id, names, redone.run_id, sum(len(lost) for lost in found.lost.values()), calls, usd)


def _paid(found: Found, redone: Run) -> tuple[int, float | None]:
    """Calls and US dollars of the rows that the repair run executed."""
    made = list[StepRow]()
    for node in found.record.plan.order:
        # an intact row kept its start time
        sound = set(zip(keys_of(found.steps[node]), found.steps[node]["started_at"].to_pylist(), strict=True))
        made += [row for row in redone.steps([node]).to_pylist() if ((row["task_id"], row["trial"]), row["started_at"]) not in sound]
    # calls that could be read answered the steps that were executed again
    known = {(row["node"], row["task_id"], row["trial"], row["started_at"]) for table in found.calls.values() for row in table.to_pylist()}
    steps = {(row["node"], row["task_id"], row["trial"]) for row in made}
    answered = [
        row for row in redone.calls().to_pylist() if (key := (row["node"], row["task_id"], row["trial"])) in steps and (*key, row["started_at"]) in known
    ]
    calls = sum(row["calls"] + row["judge_calls"] for row in made) - sum(row["calls"] for row in answered)
    usd = sum_of_prices(price for row in made for price in (row["usd"], row["judge_usd"]))
    spared = sum_of_prices(row["usd"] for row in answered if row["source"] == "live")
    return calls, None if usd is None or spared is None else usd - spared


def _manifest(run: Run, found: Found, files: list[FileEntry], result: RepairResult) -> Manifest:
    old = found.manifest
    usage = summary_of(found.outcome)
    entry: RepairEntry = {
        "at": now(),
        "files": list(result.files),
        "rows": result.rows,
        "repair_run": result.repair_run,
        "calls": result.calls,
        "usd": result.usd,
    }
    return {
        "format": 1,
        "run_id": found.record.run_id,
        "finished_at": old["finished_at"] if old else usage["ended_at"],
        "files": files,
        "usage": usage,
        "record": old["record"] if old else run.written,
        "repairs": [*(old.get("repairs", ()) if old else ()), entry],
    }


def _recorded_result(run_id: str, entry: RepairEntry) -> RepairResult:
    return RepairResult(run_id, tuple(entry["files"]), entry["repair_run"], entry["rows"], entry["calls"], entry["usd"])
