"""rerun: tasks again, whole or from one node on."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
from dataclasses import dataclass
from typing import Any

import click

import beam_ray
from beam_ray.cli.options import Execution, Place, Selection, executes, grouped, runs_in_lane, selects
from beam_ray.cli.plans import lanes, plan_table, totals
from beam_ray.cli.screen import MARKS, emit, money, number, plural, progress, show, table


@dataclass(frozen=True)
class Which:
    """Which tasks are rerun."""

    tasks: tuple[str, ...]
    from_run: str | None
    library: str | None
    failed: bool

    def chosen(self, selection: Selection) -> beam_ray.Selection | list[str]:
        """The tasks as the API takes them."""
        status = "failing" if self.failed else selection.status
        if self.from_run or self.library:
            return beam_ray.Selection(self.from_run, self.library, self.tasks, status, selection.labels, selection.where)
        if not self.tasks:
            raise click.UsageError("give tasks, or --from-run RUN, or --library NAME")
        if status or selection.labels or selection.where:
            raise click.UsageError("--failed, --status, --label and --where select from a run; add --from-run RUN")
        return list(self.tasks)


@dataclass(frozen=True)
class How:
    """How tasks are rerun."""

    start: str | None
    using: str
    because: str
    allow_writes: bool
    assignments: tuple[str, ...]
    inputs_file: str | None

    @property
    def inputs(self) -> dict[str, object] | str | None:
        """The changes of the input as the API takes them."""
        if self.assignments and self.inputs_file:
            raise click.UsageError("give --with or --with-file: one of the two")
        if self.start and (self.assignments or self.inputs_file):
            raise click.UsageError("--from keeps steps that see the changed input; leave it out with --with and --with-file")
        return dict(map(_assignment, self.assignments)) or self.inputs_file


@click.command()
@grouped(
    Which,
    "which",
    click.argument("tasks", nargs=-1, metavar="[TASK]…"),
    click.option("--from-run", "from_run", metavar="RUN", help="Tasks of this run, or those of them that the options below select."),
    click.option("--library", metavar="NAME[@V]", help="Tasks of this library, each from its newest run."),
    click.option("--failed", is_flag=True, help="Only tasks that did not pass."),
)
@selects
@grouped(
    How,
    "how",
    click.option("--from", "start", metavar="NODE", help="Start at this node; steps that do not descend from it are borrowed."),
    click.option("--using", default="published", show_default=True, metavar="published|original|FILE|NAME@DRAFT", help="Definition to run."),
    click.option("--because", default="", metavar="TEXT", help="Reason for the rerun, stored with it."),
    click.option("--allow-writes", is_flag=True, help="Call tools with write effects again."),
    click.option(
        "--with",
        "assignments",
        multiple=True,
        metavar="FIELD=VALUE",
        help="What if: change the input, e.g. task_query='…' or variables.customer=Ace. Steps that see no change are borrowed.",
    ),
    click.option("--with-file", "inputs_file", metavar="FILE", help="What if: change the input by the fields of a JSON or YAML object."),
)
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be done and what it would cost.")
@executes
@runs_in_lane
def rerun(which: Which, selection: Selection, how: How, only_plan: bool, execution: Execution, place: Place) -> None:
    """Rerun TASKs in a new run; the original run stays unchanged."""
    store, chosen = place.opened, which.chosen(selection)
    if only_plan:
        plans = store.plan_rerun(chosen, from_node=how.start, using=how.using, inputs=how.inputs, allow_writes=how.allow_writes)
        if place.as_json:
            _emit([plan.document() for plan in plans])
            return
        for plan in plans:
            show(f"{plural(plan.tasks.num_rows, 'task')} of run {plan.origin}" + (f", from {how.start}" if how.start else ""))
            show(plan_table(plan))
            show(totals(plan))
            if text := lanes(plan):
                show(text)
        return
    with progress(quiet=place.as_json) as callback:
        shared: Any = {
            "using": how.using,
            "because": how.because,
            "allow_writes": how.allow_writes,
            "budget": execution.limits,
            "takeover": execution.takeover,
            "progress": callback,
        }
        done = store.what_if(chosen, how.inputs, **shared) if how.inputs else store.rerun(chosen, from_node=how.start, **shared)
    if place.as_json:
        _emit([each.document() for each in done])
        return
    for each in done:
        _show(each, place)


def _assignment(word: str) -> tuple[str, Any]:
    """Field and value; JSON is read as such, and all else is text."""
    field, equals, written = word.partition("=")
    if not equals or not field:
        raise click.UsageError(f"--with {word}: write it as FIELD=VALUE, such as variables.customer=Ace")
    try:
        value = json.loads(written)
    except ValueError:
        return field, written
    return field, value if field != "task_query" or isinstance(value, dict) else written


def _emit(documents: list[object]) -> None:
    emit(documents[0] if len(documents) == 1 else documents)


def _show(done: beam_ray.Rerun, place: Place) -> None:
    record, numbers = done.run.record, done.run.summary
    start = f" from {record.start_node}" if record.start_node else ""
    using = f"version {record.version}" if record.version else "a draft"
    kind = "what-if on" if record.changed_inputs else "rerun of"
    show(f"run {done.id} · {kind} {plural(record.tasks, 'task')} of run {done.origin.id}{start}, with {using}")
    for field, value in record.changed_inputs.items():
        written = json.dumps(value, ensure_ascii=False)
        show(f"  {field} = {written if len(written) <= 400 else f'{written[:399]}…'}")
    if record.changed:
        show(f"  changed since: {', '.join(record.changed)}")
    rows = []
    for entry in done.changes[:50]:
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
    show(table(["task", "before", "score", "after", "score", "", "route"], rows, right=[2, 4], width=70))
    if len(done.changes) > 50:
        show(f"  … and {len(done.changes) - 50} more")
    if not record.changed_inputs:
        _show_counts(done)
    if numbers["auto_reruns"]:
        gain = (numbers["score"] or 0.0) - (numbers["first_score"] or 0.0)
        first = f"first attempts scored {number(numbers['first_score'])}"
        show(f"  {plural(numbers['auto_reruns'], 'auto-rerun')}: {first}, gain {gain:+.1f}, cost {money(numbers['auto_rerun_usd'])}")
    steps = f"{plural(numbers['steps_done'], 'step')} executed, {numbers['steps_borrowed']} borrowed"
    show(f"  {steps}, {plural(numbers['calls'], 'model call')}, {money(numbers['usd'])}")
    show(f"show one:  beam-ray show {done.changes[0]['task']}{place.option}")


def _show_counts(done: beam_ray.Rerun) -> None:
    words = [entry["word"] for entry in done.changes]
    counts = ("solved", words.count("solved")), ("not solved", words.count("not solved")), ("still passing", words.count("still passes"))
    show("  " + ", ".join(f"{word} {count}" for word, count in (*counts, ("newly failing", words.count("newly failing")))))
