"""rerun: tasks again, whole or from one node onward."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from beam_ray.address import Address
from beam_ray.cli.runs import document, drive, probe_models, workflow_of
from beam_ray.cli.screen import MARKS, emit, existing, model_options, money, number, run_options, say, show, store_options, store_words, table
from beam_ray.cli.workflows import document as plan_document
from beam_ray.cli.workflows import plan_table, totals
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Unusable
from beam_ray.llm.settings import load_models
from beam_ray.store.lookup import STATUSES, find_task, select
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run, begin, resolve


@click.command()
@click.argument("tasks", nargs=-1, metavar="[TASK]…")
@click.option("--from-run", "from_run", metavar="RUN", help="Tasks of this run; with the options below, those that fit.")
@click.option("--library", "library", metavar="NAME[@V]", help="The tasks of this library, each from its newest run.")
@click.option("--failed", is_flag=True, help="Only tasks that did not pass.")
@click.option("--status", type=click.Choice(STATUSES), help="Only tasks with this status.")
@click.option("--label", "labels", multiple=True, help="Only tasks with this label.")
@click.option("--where", metavar="EXPR", help="Only tasks where this holds, as in: score < 80")
@click.option("--from", "start", metavar="NODE", help="Start at this node; what does not come after it is borrowed.")
@click.option("--using", default="published", show_default=True, metavar="published|original|FILE", help="Which definition.")
@click.option("--because", default="", metavar="TEXT", help="Why; kept with the run.")
@click.option("--allow-writes", is_flag=True, help="Call tools with write effects again.")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be done.")
@run_options
@model_options
@store_options
def rerun(
    tasks: tuple[str, ...],
    from_run: str | None,
    library: str | None,
    failed: bool,
    status: str | None,
    labels: tuple[str, ...],
    where: str | None,
    start: str | None,
    using: str,
    because: str,
    allow_writes: bool,
    only_plan: bool,
    address: str | None,
    takeover: bool,
    models: str,
    store: str,
    as_json: bool,
) -> None:
    """Do TASKs again in a new run; the original is only read."""
    from beam_ray.rerun import RerunOptions, make_rerun

    objects = existing(store)
    known = load_models(Path(models))
    wanted = {"status": "failing" if failed else status, "labels": labels, "where": where}
    chosen = _of_library(objects, library, wanted) if library else _chosen(objects, tasks, from_run, wanted)
    documents = []
    for run_id, task_ids in chosen.items():
        origin = Run(objects, run_id)
        workflow, version = _definition(objects, origin, using)
        made = make_rerun(objects, origin, task_ids, workflow, known, version=version, options=RerunOptions(start, because, allow_writes))
        if only_plan:
            if as_json:
                documents.append(plan_document(made))
            else:
                show(f"{len(task_ids)} tasks of run {run_id}" + (f", from {start}" if start else ""))
                show(plan_table(made))
                show(totals(made))
            continue
        probe_models(known, workflow)
        record = begin(objects, made.record, made.tasks)
        summary = drive(objects, record, known, address=address, takeover=takeover, quiet=as_json, store=store)
        if as_json:
            documents.append(
                {
                    **document(record, summary),
                    "origin": run_id,
                    "from": start,
                    "changed": record.changed,
                    "tasks_redone": _changes(objects, record.run_id, origin),
                }
            )
        else:
            _report(objects, record.run_id, origin, summary, store)
    if as_json:
        emit(documents[0] if len(documents) == 1 else documents)


def _of_library(objects: Objects, library: str, wanted: Mapping[str, Any]) -> dict[str, list[str]]:
    """Run to the ids of the library's tasks that are meant; a task's newest finished run with the same inputs counts."""
    from beam_ray.store.libraries import read_library
    from beam_ray.store.lookup import newest_first

    saved, number = read_library(objects, library)
    left = dict(zip(saved["task_id"].to_pylist(), saved["inputs"].to_pylist(), strict=True))
    found: dict[str, list[str]] = {}
    for run in newest_first(objects):
        if not left or not run.finished:
            continue
        outcome = run.outcome()
        there = dict(zip(outcome["task_id"].to_pylist(), outcome["inputs"].to_pylist(), strict=True))
        mine = [name for name, inputs in left.items() if there.get(name) == inputs]
        fitting = set(select(outcome, **wanted)["task_id"].to_pylist())
        found[run.run_id] = [name for name in mine if name in fitting]
        left = {name: inputs for name, inputs in left.items() if name not in mine}
    if left:
        raise Unusable(
            f"no finished run has the task {next(iter(left))!r} of library {library.partition('@')[0]}@{number}\n"
            f"  beam-ray run WORKFLOW --tasks library:{library}  runs them all"
        )
    found = {run_id: names for run_id, names in found.items() if names}
    if not found:
        raise Unusable(f"no task of library {library} fits; there is nothing to do again")
    return found


def _chosen(objects: Objects, tasks: tuple[str, ...], from_run: str | None, wanted: Mapping[str, Any]) -> dict[str, list[str]]:
    """Run to the ids of its tasks that are meant."""
    if from_run:
        run = Run(objects, resolve(objects, from_run))
        if not run.finished:
            raise Unusable(f"run {run.run_id} is still going on; only tasks that ended can be redone\n  beam-ray resume {run.run_id}  goes on with it")
        ids = dict.fromkeys(select(run.outcome(), **wanted)["task_id"].to_pylist())
        if tasks:
            ids = {name: None for name in ids if name in tasks}
        if not ids:
            raise Unusable(f"no task of run {run.run_id} fits; there is nothing to do again")
        return {run.run_id: list(ids)}
    if not tasks:
        raise click.UsageError("name tasks, or --from-run RUN, or --library NAME")
    if any(wanted.values()):
        raise click.UsageError("--failed, --status, --label and --where choose from a run; add --from-run RUN")
    found: dict[str, list[str]] = {}
    for written in tasks:
        address = find_task(objects, written)
        found.setdefault(address.run, []).append(address.task)
    return found


def _definition(objects: Objects, origin: Run, using: str) -> tuple[Workflow, int | None]:
    if using == "original":
        return origin.record.plan, origin.record.version
    if using == "published":
        try:
            workflow, version, _ = workflow_of(objects, origin.record.workflow)
        except Unusable as error:
            raise Unusable(
                f"{str(error).splitlines()[0]}\n  --using original  takes the definition of run {origin.run_id}; --using FILE takes a file"
            ) from None
        return workflow, version
    workflow, version, warnings = workflow_of(objects, using)
    for warning in warnings:
        say(str(warning))
    if workflow.name != origin.record.workflow:
        raise Unusable(f"{using} is the workflow {workflow.name!r}, and run {origin.run_id} was of {origin.record.workflow!r}")
    return workflow, version


def _changes(objects: Objects, run_id: str, origin: Run) -> list[dict[str, Any]]:
    """Each redone task with what it was before and is now."""
    from beam_ray.rerun import solved
    from beam_ray.store.lookup import status_of

    before = {(row["task_id"], row["trial"]): row for row in origin.outcome().to_pylist()}
    found = []
    for row in Run(objects, run_id).outcome().to_pylist():
        old = before[row["task_id"], row["trial"]]
        word = solved({"status": status_of(old)}, {"status": status_of(row)})
        found.append(
            {
                "task": str(Address(run_id, row["task_id"], row["trial"])),
                "before": {"status": status_of(old), "score": old["score"], "routes": old["routes"]},
                "after": {"status": status_of(row), "score": row["score"], "routes": row["routes"]},
                "word": word,
                "calls": row["calls"],
                "usd": row["usd"],
            }
        )
    return found


def _report(objects: Objects, run_id: str, origin: Run, summary: Any, store: str) -> None:
    where = store_words(store)
    record = Run(objects, run_id).record
    found = _changes(objects, run_id, origin)
    start = f" from {record.start_node}" if record.start_node else ""
    using = f"version {record.version}" if record.version else "a draft"
    show(f"run {run_id} · {record.tasks} tasks of run {origin.run_id} again{start}, with {using}")
    if record.changed:
        show(f"  changed since: {', '.join(record.changed)}")
    rows = []
    for entry in found[:50]:
        before, after = entry["before"], entry["after"]
        routes = " > ".join(after["routes"]) if before["routes"] == after["routes"] else f"{' > '.join(before['routes'])} => {' > '.join(after['routes'])}"
        rows.append(
            [
                entry["task"],
                MARKS[before["status"]],
                number(before["score"]),
                MARKS[after["status"]],
                number(after["score"]),
                entry["word"],
                routes,
            ]
        )
    show(table(["task", "before", "score", "now", "score", "", "route"], rows, right=[2, 4], width=70))
    if len(found) > 50:
        show(f"  … and {len(found) - 50} more")
    words = [entry["word"] for entry in found]
    show(
        f"  solved {words.count('solved')}, not solved {words.count('not solved')}, still passing {words.count('still passes')}, newly failing {words.count('newly failing')}"
    )
    if summary["auto_reruns"]:
        uplift = (summary["score"] or 0.0) - (summary["first_score"] or 0.0)
        show(
            f"  {summary['auto_reruns']} auto-reruns: first attempts {number(summary['first_score'])}, uplift {uplift:+.1f}, taking {money(summary['auto_rerun_usd'])}"
        )
    show(f"  {summary['steps_done']} steps executed, {summary['steps_borrowed']} borrowed, {summary['calls']} model calls, {money(summary['usd'])}")
    show(f"look at one:  beam-ray show {found[0]['task']}{where}")
