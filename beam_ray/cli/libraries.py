"""library: named, versioned sets of saved tasks."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import click

import beam_ray
from beam_ray.cli.options import MAP, MLFLOW, SOURCES, Place, Search, Selection, grouped, pairs, reads_store, searches, selects
from beam_ray.cli.screen import emit, plural, say, show, table

EDGE_LABELS = ("edge", "hard")


@click.group()
def library() -> None:
    """Manage libraries: named, versioned sets of saved tasks for backtests and reruns."""


@dataclass(frozen=True)
class Which:
    """Which tasks are saved."""

    tasks: tuple[str, ...]
    sources: tuple[str, ...]
    mapping: tuple[str, ...]
    from_run: str | None
    from_any_run: bool
    failed: bool


@dataclass(frozen=True)
class Said:
    """Details stored with saved tasks."""

    marks: tuple[str, ...]
    tests: str
    note: str
    expect: str
    from_output: bool
    node: str
    replace: bool

    @property
    def saved(self) -> beam_ray.SavedTasks:
        """The options as the API takes them."""
        expected = _expectation(self.expect) if self.expect else None
        return beam_ray.SavedTasks(self.marks, self.tests, self.note, expected, self.from_output, self.node, self.replace)


@library.command()
@click.argument("name")
@grouped(
    Which,
    "which",
    click.argument("tasks", nargs=-1, metavar="[TASK]…"),
    click.option("--tasks", "sources", multiple=True, metavar="SOURCE", help=SOURCES),
    MAP,
    click.option("--from-run", "from_run", metavar="RUN", help="Tasks of this run, or those of them that the options below select."),
    click.option("--from-any-run", is_flag=True, help="Tasks of all runs that the options below select; of one that ran several times, the newest."),
    click.option("--failed", is_flag=True, help="Only tasks that did not pass."),
)
@selects
@searches
@grouped(
    Said,
    "said",
    click.option("--with-label", "marks", multiple=True, metavar="LABEL", help="Add this label, such as a scenario, or 'edge'."),
    click.option("--tests", default="", metavar="NODE|ROUTE", help="Node or route that the tasks are there to test."),
    click.option("--note", default="", metavar="TEXT", help="Note for readers."),
    click.option("--expect", default="", metavar="JSON", help="Expected outcome, an object."),
    click.option("--expect-from-output", "from_output", is_flag=True, help="Use the outputs as expected outcomes; only of tasks that passed."),
    click.option("--of", "node", default="", metavar="NODE", help="With --expect-from-output: this node's output instead of the last nodes'."),
    click.option("--replace", is_flag=True, help="Replace tasks that are there already with other content."),
)
@reads_store
def add(name: str, which: Which, selection: Selection, search: Search, said: Said, place: Place) -> None:
    """Save tasks in the library NAME: from a file, from runs, or each TASK as RUN/TASK or an id for its newest run."""
    if bool(which.sources) + (which.from_run is not None) + which.from_any_run + bool(which.tasks) != 1:
        raise click.UsageError("give tasks, --from-run RUN, --from-any-run, or --tasks FILE: one of the four")
    if search != Search() and not which.from_any_run:
        raise click.UsageError("--workflow, --route, --search, --since and --until select from all runs; add --from-any-run")
    if not which.from_run and not which.from_any_run and (which.failed or selection.status or selection.where or (selection.labels and not which.sources)):
        raise click.UsageError("--failed, --status, --label and --where select from a run; add --from-run RUN")
    if said.from_output and (said.expect or which.sources):
        raise click.UsageError("--expect-from-output uses outputs of a run; --expect JSON gives the outcome itself, and a file has its own column 'expected'")
    if said.node and not said.from_output:
        raise click.UsageError("--of names the node whose output is expected; add --expect-from-output")
    tasks: Any = list(which.tasks)
    if which.sources:
        tasks = beam_ray.Tasks(list(which.sources), pairs(which.mapping, "--map"), selection.labels)
    elif which.from_any_run:
        status = "failing" if which.failed else selection.status
        tasks = replace(search.query(selection), status=status)
    elif which.from_run:
        tasks = beam_ray.Selection(which.from_run, status="failing" if which.failed else selection.status, labels=selection.labels, where=selection.where)
    _report(place.opened.add_to_library(name, tasks, saved=said.saved), place)


def _expectation(written: str, option: str = "--expect ") -> Mapping[str, Any]:
    try:
        value = json.loads(written)
    except ValueError as error:
        raise click.UsageError(f"{option}{written}: not JSON: {error}") from None
    if not isinstance(value, Mapping):
        raise click.UsageError(f'{option}{written}: the expected outcome is an object of fields, such as {{"total": 12.5}}')
    return value


@library.command()
@click.argument("name")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK…")
@reads_store
def remove(name: str, tasks: tuple[str, ...], place: Place) -> None:
    """Remove tasks, named by id, from the library NAME; its earlier versions keep them."""
    _report(place.opened.remove_from_library(name, tasks), place)


@dataclass(frozen=True)
class Marks:
    """Labels, purpose and note of saved tasks."""

    add: tuple[str, ...]
    remove: tuple[str, ...]
    tests: str | None
    note: str | None


@library.command()
@click.argument("name")
@click.argument("tasks", nargs=-1, required=True, metavar="TASK…")
@grouped(
    Marks,
    "marks",
    click.option("--add", multiple=True, metavar="LABEL", help="Add this label."),
    click.option("--remove", multiple=True, metavar="LABEL", help="Remove this label."),
    click.option("--tests", metavar="NODE|ROUTE", help="Node or route that the tasks are there to test; '' for none."),
    click.option("--note", metavar="TEXT", help="Note for readers; '' for none."),
)
@reads_store
def label(name: str, tasks: tuple[str, ...], marks: Marks, place: Place) -> None:
    """Change labels, purpose and notes of tasks, named by id, in the library NAME."""
    if not (marks.add or marks.remove) and marks.tests is None and marks.note is None:
        raise click.UsageError("say what to change: --add LABEL, --remove LABEL, --tests or --note")
    edit = beam_ray.TaskEdit(add_labels=marks.add, remove_labels=marks.remove, tests=marks.tests, note=marks.note)
    _report(place.opened.edit_library(name, tasks, edit), place)


@library.command()
@click.argument("name")
@click.argument("task")
@click.argument("outcome", metavar="[JSON]", required=False)
@click.option("--none", "nothing", is_flag=True, help="Remove the expected outcome.")
@reads_store
def expect(name: str, task: str, outcome: str | None, nothing: bool, place: Place) -> None:
    """Set the expected outcome of TASK, named by id, in the library NAME to an object of fields."""
    if (outcome is None) != nothing:
        raise click.UsageError("give the expected outcome as JSON, or --none: one of the two")
    edit = beam_ray.TaskEdit(expected=_expectation(outcome, "") if outcome else None, no_expected=nothing)
    _report(place.opened.edit_library(name, [task], edit), place)


@library.command()
@click.argument("name")
@reads_store
def versions(name: str, place: Place) -> None:
    """List the versions of the library NAME."""
    found = place.opened.library_versions(name)
    if place.as_json:
        emit([each.document() for each in found])
        return
    rows = [[each.number, each.tasks, each.saved_at[:16].replace("T", " "), each.saved_by, each.change] for each in found]
    show(table(["version", "tasks", "saved", "by", "change"], rows, right=[0, 1]))


@library.command()
@click.argument("before", metavar="NAME[@A]")
@click.argument("after", metavar="NAME[@B]")
@reads_store
def diff(before: str, after: str, place: Place) -> None:
    """Show what differs between two versions of a library, by task and field."""
    store = place.opened
    sides = [store.library(before), store.library(after)]
    if sides[0].name != sides[1].name:
        raise click.UsageError(f"two versions of one library are compared: {sides[0].name}@A {sides[0].name}@B")
    found = store.diff_library(sides[0].name, sides[0].version, sides[1].version)
    if place.as_json:
        emit(found.document())
        return
    show(f"{sides[0]} => {sides[1]}: {len(found.added)} added, {len(found.removed)} removed, {len(found.changed)} changed, {found.unchanged} unchanged")
    for word, names in (("added", found.added), ("removed", found.removed)):
        if names:
            show(f"  {word}: {', '.join(names[:20])}" + (f" and {len(names) - 20} more" if len(names) > 20 else ""))
    rows = [[task, each["field"], _written(each["before"]), _written(each["after"])] for task, fields in found.changed.items() for each in fields]
    if rows:
        show(table(["task", "field", "before", "after"], rows, width=48))


def _written(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@dataclass(frozen=True)
class Traces:
    """Which traces are saved."""

    source: str | None
    size: int | None
    stratify: str
    seed: int
    redact: str | None
    filter: str
    mlflow_uri: str | None

    @property
    def options(self) -> beam_ray.TraceOptions:
        """The options as the API takes them."""
        return beam_ray.TraceOptions(self.size, self.stratify, self.seed, self.redact, self.filter, self.mlflow_uri)


@library.command(name="import")
@click.argument("name")
@click.argument("files", nargs=-1, metavar="[FILE]…")
@MAP
@grouped(
    Traces,
    "traces",
    click.option("--from", "source", metavar="SOURCE", help="Traces: mlflow:EXPERIMENT, or otel, langfuse, langsmith, openai or mlflow-file and :FILE."),
    click.option("--filter", default="", metavar="FILTER", help="With --from mlflow: only these traces, e.g. \"tags.customer = 'acme'\"."),
    click.option("--sample", "size", type=click.IntRange(min=1), metavar="N", help="With --from: sample N traces; rare kinds and failures stay in."),
    click.option("--stratify", default="", metavar="TAG", help="With --from: draw the values of this tag in proportion."),
    click.option("--seed", default=0, show_default=True, help="With --from: another seed draws another sample."),
    click.option("--redact", metavar="MODULE:FUNCTION", help="With --from: change every text with this function before it is stored."),
    MLFLOW,
)
@click.option("--replace", is_flag=True, help="Replace tasks that are there already with other content.")
@reads_store
def import_(name: str, files: tuple[str, ...], mapping: tuple[str, ...], traces: Traces, replace: bool, place: Place) -> None:
    """
    Add the tasks of files, or production traces, to the library NAME.

    FILE is anything that --tasks of run takes: a file, a folder, a quoted pattern, s3://… or - for standard input.
    """
    if (not files) == (traces.source is None):
        raise click.UsageError("give FILE, or --from SOURCE: one of the two")
    if files and traces.options != beam_ray.TraceOptions(mlflow=traces.mlflow_uri):
        raise click.UsageError("--filter, --sample, --stratify, --seed and --redact are for traces; name their source with --from")
    if files:
        tasks = beam_ray.Tasks(list(files), pairs(mapping, "--map"))
        _report(place.opened.add_to_library(name, tasks, saved=beam_ray.SavedTasks(replace=replace)), place)
        return
    done = place.opened.import_traces(name, str(traces.source), options=traces.options, replace=replace)
    if done.left_out:
        say(f"note: {plural(done.left_out, 'trace')} left out: still in progress, or without spans")
    if not place.as_json:
        rows = [[kind, drawn, of] for kind, (drawn, of) in done.strata.items()]
        show(table(["kind of execution", "drawn", "of"], rows, right=[1, 2]))
        for task, earlier in done.near_duplicates.items():
            say(f"note: {task} asks nearly the same as {earlier}; both were saved")
    _report(done.change, place)


@library.command()
@click.argument("name", metavar="NAME[@V]")
@click.argument("file", required=False)
@click.option("--to", "target", metavar="mlflow:DATASET", help="Write an MLflow evaluation dataset instead of a file. It is safe to repeat.")
@MLFLOW
@reads_store
def export(name: str, file: str | None, target: str | None, mlflow_uri: str | None, place: Place) -> None:
    """Write the library to FILE (.jsonl, .csv or .parquet), and its attachments next to it; or to MLflow."""
    if (file is None) == (target is None):
        raise click.UsageError("give FILE, or --to mlflow:DATASET: one of the two")
    found = place.opened.library(name)
    if target is not None:
        _export_to_mlflow(found, target, mlflow_uri, place)
        return
    attached = found.export(str(file))
    if place.as_json:
        emit({"library": found.name, "version": found.version, "tasks": found.size, "file": file, "attachments": attached})
        return
    show(f"{found}: wrote {plural(found.size, 'task')} to {file}" + (f", and {plural(attached, 'attachment')} next to it" if attached else ""))


def _export_to_mlflow(found: beam_ray.Library, target: str, mlflow_uri: str | None, place: Place) -> None:
    kind, _, dataset = target.partition(":")
    if kind != "mlflow" or not dataset:
        raise click.UsageError(f"--to {target}: write it as mlflow:DATASET")
    done = found.export_to_mlflow(dataset, mlflow_uri)
    if place.as_json:
        emit({"library": found.name, "version": found.version, "tasks": found.size, "dataset": dataset, **asdict(done)})
        return
    counts = ", ".join(f"{count} {word}" for word in ("added", "changed", "removed", "unchanged") if (count := getattr(done, word)))
    show(f"{found}: the MLflow dataset {dataset} has {plural(found.size, 'task')} of it ({counts})")
    show(f"MLflow:  {done.url}")


@library.command(name="list")
@reads_store
def list_(place: Place) -> None:
    """List the libraries."""
    found = place.opened.libraries()
    if place.as_json:
        emit([each.summary() for each in found])
        return
    if not found:
        show("there are no libraries; create one with\n  beam-ray library add NAME --from-run RUN --failed")
        return
    rows = [[each.name, each.version, each.size, each.size_class, each.saved_at[:10], each.change, _last(each)] for each in found]
    show(table(["library", "version", "tasks", "size", "saved", "change", "last backtest"], rows, right=[1, 2]))


@library.command(name="show")
@click.argument("name", metavar="NAME[@V]")
@reads_store
def show_(name: str, place: Place) -> None:
    """Show the tasks of a library, and why each is there."""
    found = place.opened.library(name)
    if place.as_json:
        emit(found.document())
        return
    saved = f" · saved {found.saved_at[:10]} by {found.saved_by}: {found.change}" if found.saved_at else ""
    show(f"{found} · {plural(found.size, 'task')} · {found.size_class}{saved}")
    cells = [
        [row["task_id"], row["task_query"], ", ".join(row["labels"] or ()), row["tests"], row["expected"], row["origin"], row["notes"]]
        for row in found.tasks.to_pylist()
    ]
    show(table(["task", "query", "labels", "tests", "expected", "saved from", "note"], cells, width=32))
    show(f"last backtest: {_last(found)}")
    numbers = found.versions
    if len(numbers) > 1:
        show(f"versions {numbers[0]} to {numbers[-1]}; show an older one:  beam-ray library show {found.name}@{numbers[-2]}{place.option}")


@library.command()
@click.argument("name", metavar="NAME[@V]")
@click.option("--workflow", "workflow", required=True, metavar="FILE|NAME", help="YAML file or published NAME[@VERSION].")
@click.option("--edge-label", "edge_labels", multiple=True, default=EDGE_LABELS, show_default=True, metavar="LABEL", help="Label that marks an edge case.")
@reads_store
def check(name: str, workflow: str, edge_labels: tuple[str, ...], place: Place) -> None:
    """
    Measure how good a library is for backtesting a workflow.

    What a task covers is taken from its newest run in the store. For each gap, past tasks that
    fill it are listed with the command that adds them.
    """
    found = place.opened.library(name).check(workflow, edge_labels=edge_labels)
    if place.as_json:
        emit(found.document())
        return
    never_run = len(found.document()["never_run"])
    which = f" version {found.version}" if found.version else f" ({workflow})"
    size = found.library.size
    show(f"{found.library} for {found.workflow}{which} · {plural(size, 'task')}, {size - never_run} of them run before")
    show(table(["measure", "value", ""], [*found.measures, ("last backtest", _last(found.library), "")], width=100))
    for task, text in found.misplaced.items():
        show(f"  {task} {text}")
    show()
    if found.good:
        show("no gaps: a good set")
        return
    gaps = found.gaps
    show(plural(len(gaps), "gap"))
    for text, command in gaps:
        show(f"  {text}\n      {command}")
    if len(gaps) > 1 and found.fill_all:
        show(f"add past tasks for all gaps at once:\n  {found.fill_all}")


def _report(change: beam_ray.LibraryChange, place: Place) -> None:
    for note in change.notes:
        say(note)
    if place.as_json:
        emit(change.document())
        return
    found = change.library
    if change.empty:
        show(f"{found}: nothing changed; it has {'this task' if len(change.unchanged) == 1 else f'these {len(change.unchanged)} tasks'} already")
        return
    same = f", {len(change.unchanged)} there already" if change.unchanged else ""
    show(f"{found}: {change.summary}{same}; {plural(found.size, 'task')}, {found.size_class}")
    if found.size:
        workflow = change.workflow or "WORKFLOW"
        show(f"run it:    beam-ray run {workflow} --tasks library:{found}{place.option}")
        show(f"check it:  beam-ray library check {found.name} --workflow {workflow}{place.option}")


def _last(found: beam_ray.Library) -> str:
    used = found.last_used
    return f"{used.backtest_id} with version {used.version}, {used.at[:10]}" if used else "never"
