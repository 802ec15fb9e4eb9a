"""
Mending a damaged run: what is intact is kept, what can be computed again is, and only the rest is asked again.

    a step's rows        those in sound pieces of the file are read; the others are executed again, by a run of
                         its own ("repair"), which is given all sound rows of their tasks as if it had spooled them.
                         So a row after a redone one is paid for again only if what it was given has changed
    outcome.parquet      from the steps, without a call
    manifest.json        from the steps and the outcome, without a call
    run.json             from its copy in the manifest
    tasks.parquet        from the library or the run that the tasks came from; from nowhere else
    parts of a run that  are taken away, and what hangs on them goes to the spool: resume does the rest
    is not finished

Rows that are redone are new answers, under the old run's id: the manifest says which, when and
what they cost. How the files take their places, and why a crash or a second repairer does no
harm, stands in ``store.damage``. The repair run stays in the store: it is what was paid.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.diagnosis import diagnose, tasks_again, to_redo
from beam_ray.errors import Damaged, Unusable
from beam_ray.run.context import Row, TaskTrial
from beam_ray.run.execute import changed_tools
from beam_ray.run.outcome import outcome_row, output_nodes
from beam_ray.run.plan import Lineage, make_plan, require_models
from beam_ray.run.runner import identity
from beam_ray.run.summary import summary_of
from beam_ray.store.checksummed_json import seal, unseal
from beam_ray.store.integrity import Found, Key, commit, keys_of, look, pending, put_in_place, take_away
from beam_ray.store.lease import Lease
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.runs import FILE_BYTES, Run, RunRecord, begin, now
from beam_ray.store.tables import OUTCOME, STEPS, TASKS, encode, encode_batches, to_table
from beam_ray.tasks.sources import only

Drive = Callable[[RunRecord], Any]
"""Does a run that was begun."""


@dataclass(frozen=True)
class Mended:
    """What a repair did."""

    run_id: str
    files: tuple[str, ...]
    """Files that were put in the place of damaged ones, or of what hung on them."""
    repair_run: str | None = None
    rows: int = 0
    """Rows that were executed again."""
    calls: int = 0
    usd: float | None = 0.0


def repair(objects: Objects, run_id: str, models: Mapping[str, Any], drive: Drive, *, allow_writes: bool = False, takeover: bool = False) -> Mended:
    """
    Mend the run; a run without damage is left alone.

    The same call goes on where it was cut off. Tools with write effects are not called again
    unless *allow_writes*: their lost rows are then skipped, with that reason.

    Raises:
        Unusable: the models or tools are others than the run was made with.
        Damaged: it cannot be mended; nothing was changed.
        Stopped: before the end; the same call goes on.
    """
    run = Run(objects, run_id)
    lease = Lease(run, takeover=takeover)
    try:
        if not run.merged:
            return Mended(run_id, tuple(take_away(run)))
        # a commit that cannot be read is no commit, and what stands in the others' places fits it or is mended now
        waiting = pending(run)
        put_in_place(run)
        run = Run(objects, run_id)
        diagnosis = diagnose(run)
        if diagnosis.hopeless:
            raise Damaged(diagnosis.hopeless)
        if not diagnosis.damaged:
            return _told(run_id, waiting["repairs"][-1]) if waiting else Mended(run_id, ())
        return _mend(objects, run, models, drive, lease, allow_writes)
    finally:
        lease.release()


def _mend(objects: Objects, run: Run, models: Mapping[str, Any], drive: Drive, lease: Lease, allow_writes: bool) -> Mended:
    found = look(run)
    workflow = found.record.plan
    bodies: dict[str, bytes] = {}
    if found.tasks is None:
        tasks = tasks_again(run, found)
        assert tasks is not None
        bodies["tasks.parquet"] = encode(TASKS, tasks, row_group=1_000)
        found.tasks = tasks.slice(0, found.record.tasks)
    _, affected = to_redo(found)
    redone = _redo(objects, run, found, affected, models, drive, allow_writes) if affected else None
    lease.beat()
    rows = {node: _new_rows(found, node, affected, redone) for node in workflow.order}
    _keep_what_was_paid(found, rows)
    files, changed = list[dict[str, Any]](), set[Key]()
    for node in workflow.order:
        before = {key: row for key, row in zip(keys_of(found.steps[node]), found.steps[node].to_pylist(), strict=True) if key in rows[node]}
        changed |= {key for key, row in rows[node].items() if before.get(key) != row}
        broken = [damage for damage in found.damaged if damage.name.startswith(f"steps/{node}-")]
        if broken or before != rows[node]:
            files += _encoded(found, STEPS, found.steps[node], rows[node], f"steps/{node}-{{:03d}}.parquet", bodies)
        else:
            files += [entry for entry in _entries(run, found) if entry["name"].startswith(f"steps/{node}-")]
    lost = set(found.keys) - set(keys_of(found.outcome))
    if lost | changed or any(damage.name.startswith("outcome") for damage in found.damaged):
        outcomes = _outcomes(found, rows, lost | changed)
        files += _encoded(found, OUTCOME, found.outcome, outcomes, "outcome.parquet", bodies)
        found.outcome = _together(found, OUTCOME, found.outcome, outcomes)
    else:
        files += [entry for entry in _entries(run, found) if entry["name"].startswith("outcome")]
    tasks_body = bodies.get("tasks.parquet") or objects.read(f"{run.prefix}/tasks.parquet")
    files.append(Run.entry("tasks.parquet", tasks_body, found.tasks.num_rows))
    mended = _mended(run, found, bodies, redone)
    commit(run, _manifest(run, found, files, mended), list(bodies.values()))
    lease.beat()
    put_in_place(run)
    return mended


def _redo(objects: Objects, run: Run, found: Found, affected: list[Key], models: Mapping[str, Any], drive: Drive, allow_writes: bool) -> Run:
    """A finished run of the tasks with rows that are lost; all their sound rows are kept in it as they are."""
    record = found.record
    _require_same(record, models)
    assert found.tasks is not None
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
            mode="repair",
            because=f"repair of run {run.run_id}",
            allow_writes=record.allow_writes and allow_writes,
        ),
    )
    mark = f"{run.prefix}/repair/{plan.record.key}.json"
    try:
        redo = Run(objects, str(unseal(objects.read(mark), mark)["run_id"]))
    except (NotThere, Damaged):
        # put, since a mark that is damaged says nothing; of two repairers both have the same run
        redo = Run(objects, begin(objects, plan.record, plan.tasks).run_id)
        objects.put(mark, seal({"run_id": redo.run_id}))
    if not redo.finished:
        ids = redo.tasks()["task_id"]
        shard_of = _shards([(task, trial) for task in ids.to_pylist() for trial in range(1, record.trials + 1)], redo.record)
        for number, table in enumerate(found.steps.values()):
            sound = table.filter(pc.is_in(table["task_id"], value_set=ids.combine_chunks())).to_pylist()
            redo.spool("0000-sound", number, [{**row, "shard": shard_of[row["task_id"], row["trial"]]} for row in sound])
        # whoever drives it next is not the first, and so reads the spool
        Lease(redo).release()
        drive(redo.record)
        redo = Run(objects, redo.run_id)
    return redo


def _require_same(record: RunRecord, models: Mapping[str, Any]) -> None:
    other = [name for name, written in require_models(record.plan, models).items() if record.models.get(name, {}).get("identity") != identity(written)]
    if other:
        raise Unusable(
            f"run {record.run_id} was made with another model under the name {other[0]!r}\n  its rows can only be redone with the same model and settings"
        )
    tools = changed_tools(record)
    if tools:
        raise Unusable(f"run {record.run_id} was made with other code: {', '.join(tools)} changed since\n  put the old code back to repair it")


def _new_rows(found: Found, node: str, affected: list[Key], redone: Run | None) -> dict[Key, Row]:
    """The rows of the affected tasks and trials as the mended run has them."""
    if redone is None:
        return {}
    shard_of = _shards(found.keys, found.record)
    wanted, rows = set(affected), {}
    for row in redone.steps([node]).to_pylist():
        key = row["task_id"], row["trial"]
        if key in wanted:
            rows[key] = {**row, "run_id": found.record.run_id, "shard": shard_of[key]}
    return rows


def _keep_what_was_paid(found: Found, rows: dict[str, dict[Key, Row]]) -> None:
    """Where a write was not called again, a sound row after it stays as it is: it was given what the write said when it was called."""
    workflow, lost = found.record.plan, found.lost
    for name, node in workflow.nodes.items():
        withheld = {key for key in lost[name] & set(rows[name]) if node.effects == "write" and rows[name][key]["outcome"] == "skipped"}
        for below in workflow.downstream(name):
            for key in withheld - lost[below]:
                rows[below].pop(key, None)


def _shards(keys: list[Key], record: RunRecord) -> dict[Key, int]:
    return {key: number for number, (start, stop) in enumerate(record.shards) for key in keys[start:stop]}


def _outcomes(found: Found, rows: Mapping[str, Mapping[Key, Row]], wanted: set[Key]) -> dict[Key, Row]:
    """The outcome of the tasks and trials, from their steps."""
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


def _together(found: Found, schema: pa.Schema, sound: pa.Table, rows: Mapping[Key, Row]) -> pa.Table:
    """The sound rows and the new ones, in the run's order."""
    kept = sound.filter(pa.array([key not in rows for key in keys_of(sound)], pa.bool_()))
    table = pa.concat_tables([kept, to_table(schema, rows.values())])
    place = {key: number for number, key in enumerate(keys_of(table))}
    return table.take(pa.array([place[key] for key in found.keys], pa.int64()))


def _encoded(found: Found, schema: pa.Schema, sound: pa.Table, rows: Mapping[Key, Row], name: str, bodies: dict[str, bytes]) -> list[dict[str, Any]]:
    """The files of a node as a merge of its shards would make them."""
    table = _together(found, schema, sound, rows)
    entries = []
    for number, (body, count) in enumerate(encode_batches(schema, (table.slice(start, stop - start) for start, stop in found.record.shards), FILE_BYTES)):
        full = name.format(number) if number == 0 or "{" in name else name.replace(".parquet", f"-{number:03d}.parquet")
        bodies[full] = body
        entries.append(Run.entry(full, body, count))
    return entries


def _entries(run: Run, found: Found) -> list[dict[str, Any]]:
    """What the manifest says of the files; where it is lost, what they are."""
    if found.manifest:
        return list(found.manifest["files"])
    entries = []
    for key, _ in run.objects.keys(f"{run.prefix}/"):
        name = key.removeprefix(f"{run.prefix}/")
        if name.endswith(".parquet") and name.partition("/")[0] not in ("parts", "spool", "repair"):
            body = run.objects.read(key)
            node = name.removeprefix("steps/").rpartition("-")[0]
            entries.append(Run.entry(name, body, found.steps[node].num_rows if name.startswith("steps/") else found.outcome.num_rows))
    return entries


def _mended(run: Run, found: Found, bodies: Mapping[str, bytes], redone: Run | None) -> Mended:
    names = tuple(sorted({*bodies, *(damage.name for damage in found.damaged if damage.name.endswith(".json"))}))
    if redone is None:
        return Mended(run.run_id, names)
    calls, usd = _paid(found, redone)
    return Mended(run.run_id, names, redone.run_id, sum(len(lost) for lost in found.lost.values()), calls, usd)


def _paid(found: Found, redone: Run) -> tuple[int, float | None]:
    """Calls and US dollars of the rows of the repair run that it did not take over."""
    made = list[Row]()
    for node in found.record.plan.order:
        # a row that was taken over began when it began
        sound = set(zip(keys_of(found.steps[node]), found.steps[node]["started_at"].to_pylist(), strict=True))
        made += [row for row in redone.steps([node]).to_pylist() if ((row["task_id"], row["trial"]), row["started_at"]) not in sound]
    money = [row[column] for row in made for column in ("usd", "judge_usd")]
    return sum(row["calls"] + row["judge_calls"] for row in made), None if None in money else sum(money)


def _manifest(run: Run, found: Found, files: list[dict[str, Any]], mended: Mended) -> dict[str, Any]:
    old = found.manifest or {}
    usage = summary_of(found.outcome)
    story = {"at": now(), "files": list(mended.files), "rows": mended.rows, "repair_run": mended.repair_run, "calls": mended.calls, "usd": mended.usd}
    record = old.get("record") or run.written
    return {
        "format": 1,
        "run_id": found.record.run_id,
        "finished_at": old.get("finished_at") or usage["ended_at"],
        "files": files,
        "usage": usage,
        "record": record,
        "repairs": [*old.get("repairs", ()), story],
    }


def _told(run_id: str, story: Mapping[str, Any]) -> Mended:
    return Mended(run_id, tuple(story["files"]), story["repair_run"], story["rows"], story["calls"], story["usd"])
