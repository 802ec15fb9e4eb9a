"""library: named, versioned sets of saved tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from beam_ray.cli.screen import emit, existing, pairs, say, show, store_options, store_words, table
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.library.changes import Remarks, Row, remarked
from beam_ray.library.coverage import EDGE_LABELS, size_class
from beam_ray.library.versions import Kept
from beam_ray.store.libraries import Library, library_at, library_names, library_versions, uses
from beam_ray.store.lookup import STATUSES
from beam_ray.store.objects import Objects, open_objects

if TYPE_CHECKING:
    from beam_ray.library.check import Check
    from beam_ray.library.selection import Ended


@click.group()
def library() -> None:
    """Keep named, versioned sets of tasks: to backtest on, and to run again."""


@library.command()
@click.argument("name")
@click.argument("tasks", nargs=-1, metavar="[TASK]…")
@click.option("--tasks", "source", metavar="SOURCE", help="A .jsonl, .csv or .parquet file, library:NAME[@V], run:ID.")
@click.option("--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Take a field of the task from a column of another name.")
@click.option("--from-run", "from_run", metavar="RUN", help="Tasks of this run; with the options below, those that fit.")
@click.option("--failed", is_flag=True, help="Only tasks that did not pass.")
@click.option("--status", type=click.Choice(STATUSES), help="Only tasks with this status.")
@click.option("--label", "labels", multiple=True, help="Only tasks with this label.")
@click.option("--where", metavar="EXPR", help="Only tasks where this holds, as in: score < 80")
@click.option("--with-label", "marks", multiple=True, metavar="L", help="Give the saved tasks this label too, such as a scenario, or 'edge'.")
@click.option("--tests", default="", metavar="NODE|ROUTE", help="The node or route that they are there to test.")
@click.option("--note", default="", metavar="TEXT", help="What a reader should know about them.")
@click.option("--expect", default="", metavar="JSON", help="The expected outcome, an object, in your words.")
@click.option("--expect-from-output", "from_output", is_flag=True, help="The expected outcome is what came out; only of tasks that passed.")
@click.option("--of", "node", default="", metavar="NODE", help="With --expect-from-output: this node's output; otherwise the last nodes' fields.")
@click.option("--replace", is_flag=True, help="Take the new content where a task is there already.")
@store_options
def add(
    name: str,
    tasks: tuple[str, ...],
    source: str | None,
    mapping: tuple[str, ...],
    from_run: str | None,
    failed: bool,
    status: str | None,
    labels: tuple[str, ...],
    where: str | None,
    marks: tuple[str, ...],
    tests: str,
    note: str,
    expect: str,
    from_output: bool,
    node: str,
    replace: bool,
    store: str,
    as_json: bool,
) -> None:
    """Save tasks in the library NAME: of a file, of a run, or each TASK as RUN/TASK or an id for its newest run."""
    from beam_ray.library.selection import expected_of, of_addresses, of_run
    from beam_ray.library.versions import add as keep

    if (source is not None) + (from_run is not None) + bool(tasks) != 1:
        raise click.UsageError("name tasks, or --from-run RUN, or --tasks FILE: one of the three")
    if not from_run and (failed or status or where or (labels and not source)):
        raise click.UsageError("--failed, --status, --label and --where choose from a run; add --from-run RUN")
    if from_output and (expect or source):
        raise click.UsageError(
            "--expect-from-output takes what came out of a run; --expect JSON says it in your words, and a file has its own column 'expected'"
        )
    if node and not from_output:
        raise click.UsageError("--of says whose output is expected; add --expect-from-output")
    remarks = Remarks(marks, tests, note, _expectation(expect) if expect else "")
    outcomes: dict[str, str] = {}
    if source:
        objects = open_objects(store)
        rows = _of_source(objects, source, pairs(mapping, "--map"), labels)
    else:
        objects = existing(store)
        chosen = of_run(objects, from_run, status="failing" if failed else status, labels=labels, where=where) if from_run else of_addresses(objects, tasks)
        if tests:
            _advise(objects, chosen, tests)
        outcomes = expected_of(objects, chosen, node) if from_output else {}
        rows = [each.saved for each in chosen]
    rows = [remarked({**row, "expected": outcomes.get(str(row["origin"]), row["expected"])}, remarks) for row in rows]
    _report(objects, keep(objects, name, rows, replace=replace), store, as_json)


def _of_source(objects: Objects, source: str, mapping: Mapping[str, str], labels: tuple[str, ...]) -> list[Row]:
    from beam_ray.tasks.sources import read_source, with_origins

    found, named = read_source(objects, source, mapping=mapping, labels=labels)
    kept: list[Row] = (with_origins(found, named.removeprefix("run:")) if named.startswith("run:") else found).to_pylist()
    return kept


def _expectation(written: str) -> str:
    from beam_ray.define.fingerprint import strict_json
    from beam_ray.store.tables import to_json

    try:
        value = strict_json(written)
    except ValueError as error:
        raise click.UsageError(f"--expect {written}: not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise click.UsageError(f'--expect {written}: what is expected is an object of fields, such as {{"total": 12.5}}')
    return to_json(value)


def _advise(objects: Objects, chosen: "Sequence[Ended]", tests: str) -> None:
    """Say it when what the tasks are there to test is nothing that their workflow had."""
    from beam_ray.library.coverage import routes_of
    from beam_ray.store.runs import Run

    plan = Run(objects, chosen[0].address.run).record.plan
    known = [*plan.order, *routes_of(plan)]
    if tests not in known:
        say("\n  ".join([f"note: the workflow of run {chosen[0].address.run} has no node or route {tests!r}", *did_you_mean(tests, known)]))


@library.command()
@click.argument("name")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK…")
@store_options
def remove(name: str, tasks: tuple[str, ...], store: str, as_json: bool) -> None:
    """Take tasks, named by id, out of the library NAME; its earlier versions keep them."""
    from beam_ray.library.versions import remove as take_out

    objects = existing(store)
    _report(objects, take_out(objects, name, tasks), store, as_json)


@library.command(name="import")
@click.argument("name")
@click.argument("file")
@click.option("--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Take a field of the task from a column of another name.")
@click.option("--replace", is_flag=True, help="Take the file's content where a task is there already.")
@store_options
def import_(name: str, file: str, mapping: tuple[str, ...], replace: bool, store: str, as_json: bool) -> None:
    """Add the tasks of FILE, an exported one or any tasks file, to the library NAME."""
    from beam_ray.library.versions import add as keep
    from beam_ray.tasks.parse import read_tasks

    objects = open_objects(store)
    rows = [remarked(row, Remarks()) for row in read_tasks(Path(file), objects, mapping=pairs(mapping, "--map")).to_pylist()]
    _report(objects, keep(objects, name, rows, replace=replace), store, as_json)


@library.command()
@click.argument("name", metavar="NAME[@V]")
@click.argument("file")
@store_options
def export(name: str, file: str, store: str, as_json: bool) -> None:
    """Write the library to FILE, .jsonl, .csv or .parquet, and its attachments beside it."""
    from beam_ray.library.export import export as write

    objects = existing(store)
    found = library_at(objects, name)
    rows = found.tasks.to_pylist()
    write(objects, rows, Path(file))
    attached = sum(len(row["attachments"] or ()) for row in rows)
    if as_json:
        emit({"library": found.name, "version": found.version, "tasks": len(rows), "file": file, "attachments": attached})
        return
    show(f"{found}: {_count(len(rows))} written to {file}" + (f", {attached} attachments beside it" if attached else ""))


@library.command(name="list")
@store_options
def list_(store: str, as_json: bool) -> None:
    """List the libraries."""
    objects = existing(store)
    found = [(library_at(objects, name), uses(objects, name)) for name in library_names(objects) if library_versions(objects, name)]
    if as_json:
        emit([_about(each, used[-1] if used else None) for each, used in found])
        return
    if not found:
        show("there is no library yet; one is made by\n  beam-ray library add NAME --from-run RUN --failed")
        return
    rows = [
        [each.name, each.version, each.tasks.num_rows, size_class(each.tasks.num_rows), _day(each.saved_at), each.change, _last(used[-1] if used else None)]
        for each, used in found
    ]
    show(table(["library", "version", "tasks", "size", "saved", "change", "last used for backtesting"], rows, right=[1, 2]))


@library.command(name="show")
@click.argument("name", metavar="NAME[@V]")
@store_options
def show_(name: str, store: str, as_json: bool) -> None:
    """Show the tasks of a library, and why each is there."""
    objects = existing(store)
    found = library_at(objects, name)
    used = max(uses(objects, found.name), default=None)
    rows = found.tasks.to_pylist()
    if as_json:
        emit({**_about(found, used), "versions": library_versions(objects, found.name), "tasks": [_task(row, found) for row in rows]})
        return
    numbers = library_versions(objects, found.name)
    show(
        f"{found} · {_count(len(rows))} · {size_class(len(rows))}"
        + (f" · saved {_day(found.saved_at)} by {found.saved_by}: {found.change}" if found.saved_at else "")
    )
    cells = [[row["task_id"], row["task_query"], ", ".join(row["labels"] or ()), row["tests"], row["expected"], row["origin"], row["notes"]] for row in rows]
    show(table(["task", "query", "labels", "tests", "expected", "saved from", "note"], cells, width=32))
    show(f"last used for backtesting: {_last(used)}")
    if len(numbers) > 1:
        show(f"versions {numbers[0]} to {numbers[-1]}; an older one:  beam-ray library show {found.name}@{numbers[-2]}{store_words(store)}")


@library.command()
@click.argument("name", metavar="NAME[@V]")
@click.option("--workflow", "workflow", required=True, metavar="FILE|NAME", help="A YAML file or a published NAME[@VERSION].")
@click.option(
    "--edge-label", "edge_labels", multiple=True, default=EDGE_LABELS, show_default=True, metavar="L", help="A label that marks an edge case; may be repeated."
)
@store_options
def check(name: str, workflow: str, edge_labels: tuple[str, ...], store: str, as_json: bool) -> None:
    """
    Measure how good a library is to backtest a workflow on.

    What a task covers is told by its newest run in the store. For each gap past tasks that
    would fill it are named, with the command that adds them.
    """
    from beam_ray.cli.engine import workflow_of
    from beam_ray.library.check import check_library
    from beam_ray.library.report import document

    objects = existing(store)
    definition, version, _ = workflow_of(objects, workflow)
    found = check_library(objects, name, definition, edge_labels=tuple(dict.fromkeys(edge_labels)))
    if as_json:
        emit(document(found, version=version, written=workflow, where=store_words(store)))
        return
    _show_check(found, version, workflow, store)


def _show_check(found: "Check", version: int | None, written: str, store: str) -> None:
    from beam_ray.library.report import advice, at_once, document, measures

    told, kept, where = document(found, version=version), found.facts.library, store_words(store)
    count = told["tasks"]
    show(
        f"{kept} for {told['workflow']}{f' version {version}' if version else f' ({written})'} · {_count(count)}, {count - len(told['never_run'])} of them run before"
    )
    show(table(["measure", "value", ""], [*measures(told), ("last backtest", _last(found.facts.used), "")], width=100))
    for task, text in told["misplaced"].items():
        show(f"  {task} {text}")
    show()
    if not found.gaps:
        show("no gap: a good set")
        return
    todo = advice(found, written=written, where=where)
    show("1 gap" if len(todo) == 1 else f"{len(todo)} gaps")
    for text, command in todo:
        show(f"  {text}\n      {command}")
    if len(todo) > 1 and found.together:
        show(f"all that past tasks can fill, at once:\n  {at_once(found, where)}")


def _report(objects: Objects, kept: Kept, store: str, as_json: bool) -> None:
    tasks = len(kept.change.tasks)
    if as_json:
        change = {word: list(getattr(kept.change, word)) for word in ("added", "replaced", "removed", "unchanged")}
        emit({"library": kept.name, "version": kept.version, "tasks": tasks, "size_class": size_class(tasks), **change})
        return
    if kept.change.empty:
        show(f"{kept}: nothing changed; it has {'this task' if len(kept.change.unchanged) == 1 else f'these {len(kept.change.unchanged)} tasks'} already")
        return
    same = f", {len(kept.change.unchanged)} there already" if kept.change.unchanged else ""
    show(f"{kept}: {kept.change}{same}; {_count(tasks)}, {size_class(tasks)}")
    if not tasks:
        return
    workflow = _published(objects, next((row["origin"] for row in reversed(kept.change.tasks) if row["origin"]), None))
    show(f"run it:      beam-ray run {workflow} --tasks library:{kept}{store_words(store)}")
    show(f"measure it:  beam-ray library check {kept.name} --workflow {workflow}{store_words(store)}")


def _published(objects: Objects, origin: str | None) -> str:
    """The name of the workflow that the task was run with, where a published version was; otherwise a word in its place."""
    from beam_ray.address import parse
    from beam_ray.store.runs import Run

    try:
        record = Run(objects, parse(origin).run).record if origin else None
    except Unusable:
        record = None
    return record.workflow if record and record.version else "WORKFLOW"


def _about(found: Library, used: Any) -> dict[str, Any]:
    last = {"backtest_id": used.backtest_id, "version": used.version, "at": used.at} if used else None
    count = found.tasks.num_rows
    return {
        "library": found.name,
        "version": found.version,
        "tasks": count,
        "size_class": size_class(count),
        "saved_at": found.saved_at or None,
        "saved_by": found.saved_by or None,
        "change": found.change,
        "last_used": last,
    }


def _task(row: Row, found: Library) -> dict[str, Any]:
    from beam_ray.define.fingerprint import strict_json

    return {
        "id": row["task_id"],
        "task_query": strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"],
        "variables": strict_json(row["variables"]),
        "expected": strict_json(row["expected"]) if row["expected"] is not None else None,
        "labels": row["labels"],
        "attachments": row["attachments"],
        "tests": row["tests"],
        "notes": row["notes"],
        "origin": row["origin"],
        "inputs": row["inputs"],
        "since": found.since.get(row["task_id"]),
    }


def _last(used: Any) -> str:
    return f"{used.backtest_id} with version {used.version}, {_day(used.at)}" if used else "never"


def _count(tasks: int) -> str:
    return "1 task" if tasks == 1 else f"{tasks:,} tasks"


def _day(moment: str) -> str:
    return moment[:10]
