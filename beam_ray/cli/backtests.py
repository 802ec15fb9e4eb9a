"""backtest, compare, report and mlflow-sync."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass
from typing import Any

import click

import beam_ray
from beam_ray.cli.options import MLFLOW, Execution, Place, executes, grouped, pairs, reads_store, runs_in_lane
from beam_ray.cli.plans import able, detection_notes, detection_table, lanes, plan_table, repeats_note, time_range, totals
from beam_ray.cli.screen import at_most, clean, emit, plural, progress, say, show
from beam_ray.errors import TrackingUnavailable

GATE = click.option(
    "--gate",
    metavar="NAME|FILE",
    help="no-harm (the default), improve, cheaper, none, or a gate file.",
)


@dataclass(frozen=True)
class SpecOptions:
    """Changes to a spec."""

    changes: tuple[str, ...]
    labels: tuple[str, ...]
    gate: str | None
    aa: bool
    fresh: bool
    again: bool
    allow_writes: bool
    notify: tuple[str, ...]

    def options(self, execution: Execution) -> beam_ray.BacktestOptions:
        """The options as the API takes them."""
        changes: dict[str, object] = {key: _value(value) for key, value in pairs(self.changes, "--set").items()}
        if execution.limits is not None:
            changes["budget"] = execution.limits
        if self.gate is not None:
            changes["gate"] = self.gate
        if self.fresh:
            changes["fresh"] = True
        if self.aa:
            changes["aa"] = True
        return beam_ray.BacktestOptions(changes, self.labels, self.again, self.allow_writes, execution.takeover, self.notify)


_changes_spec = grouped(
    SpecOptions,
    "spec_options",
    click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="KEY=VALUE",
        help="Change the spec: tasks, baseline, trials, confirm, gate, limit, stop, cluster, slices, models.NAME, candidates.NAME.PATH.",
    ),
    GATE,
    click.option("--aa", is_flag=True, help="A/A test: compare the baseline with itself to measure the noise floor."),
    click.option("--label", "labels", multiple=True, metavar="LABEL", help="Only tasks with this label."),
    click.option("--fresh", is_flag=True, help="Borrow nothing: execute every step of every side."),
    click.option("--again", is_flag=True, help="Run the backtest again although it has a verdict."),
    click.option("--allow-writes", is_flag=True, help="Call tools with write effects."),
    click.option(
        "--notify",
        multiple=True,
        envvar="BEAM_RAY_NOTIFY",
        metavar="URL",
        help="Send the verdict to a webhook as JSON; slack:URL sends a Slack message. '${env:NAME}' reads a variable.",
    ),
)


def _refuse_detect(context: click.Context, option: click.Parameter, points: str | None) -> None:
    if points is not None:
        raise click.UsageError(f"--detect goes with plan, which runs nothing: beam-ray plan {context.params.get('spec', 'SPEC')} --detect {points}")


@click.command()
@click.argument("spec", type=click.Path(dir_okay=False), is_eager=True)
@click.option("--detect", metavar="POINTS", hidden=True, expose_value=False, callback=_refuse_detect)
@_changes_spec
@click.option("--plan", "only_plan", is_flag=True, help="Only show what would be done and what it would cost.")
@click.option("--exit-zero", is_flag=True, help="Exit with code 0 for every verdict, for schedulers that retry failures.")
@MLFLOW
@executes
@runs_in_lane
@click.pass_context
def backtest(
    context: click.Context, spec: str, spec_options: SpecOptions, only_plan: bool, exit_zero: bool, mlflow_uri: str | None, execution: Execution, place: Place
) -> None:
    """
    Compare the candidates of SPEC with its baseline over the same tasks.

    SPEC is a file, - for standard input, or the id of a backtest that was begun in this store. The exit code is the verdict: 0 for PASS and WARN (and for the gate none), 4 for BLOCK, 5 for INCONCLUSIVE. Run the
    same command again to resume; once there is a verdict, it is printed again.
    """
    options = spec_options.options(execution)
    if only_plan:
        show_backtest_plan(place.opened.plan_backtest(spec, options=options), place)
        return
    with progress(quiet=place.as_json) as callback:
        verdict = place.opened.backtest(spec, options=options, progress=callback)
    if place.as_json:
        emit(verdict.document())
    else:
        show(verdict.report())
        show(f"report page:      {place.store}/backtests/{verdict.id}/report.html")
        show(f"Parquet files:    {place.store}/runs/{{{','.join(dict.fromkeys(run.id for run in verdict.runs))}}}/steps/*.parquet")
    log_to_mlflow(verdict.id, mlflow_uri, place)
    context.exit(0 if exit_zero else verdict.exit_code)


def show_backtest_plan(plan: beam_ray.BacktestPlan, place: Place) -> None:
    """What each side of the backtest would do and cost."""
    if place.as_json:
        emit(plan.document())
        return
    for warning in plan.warnings:
        say(str(warning))
    if plan.interim_analyses:
        after = ", ".join(f"{tasks:,}" for tasks in plan.interim_analyses)
        show(f"stop: early, interim analyses after {after} of {plan.tasks:,} tasks; the numbers below are for all tasks")
    for side in plan.sides:
        if side.plan is None:
            show(f"{side.name}: finished run {side.run_id}")
            continue
        bound = " (upper bound: the baseline has no run yet, so it is not known what can be borrowed)" if side.is_upper_bound else ""
        bound = " (upper bound: the dearest candidate; only the best one is run again)" if side.of_rerun and not side.name.startswith("baseline") else bound
        show(f"{side.name}: {plural(side.plan.tasks.num_rows, 'task')}{bound}")
        show(plan_table(side.plan))
        show(totals(side.plan))
        if text := lanes(side.plan):
            show(text)
    if len(plan.sides) > 2:
        show(f"in all: {plural(plan.calls, 'model call')}, {at_most(plan.max_usd)}{f', {time_range(plan.seconds)}' if plan.seconds else ''}")
    if plan.repeats:
        show(repeats_note(plan.repeats))
    if plan.detection:
        show()
        for note in detection_notes(plan.detection):
            show(note)
        show(detection_table(plan.detection))
        show(able(plan.detection, plan.tasks))


@click.command()
@click.argument("before")
@click.argument("after")
@GATE
@click.option("--cluster", metavar="FIELD", help="Count clusters of tasks instead of tasks, such as variables.customer.")
@click.option("--slice", "slices", multiple=True, metavar="FIELD", help="Also compare by this field, such as variables.country, or labels.")
@reads_store
@click.pass_context
def compare(context: click.Context, before: str, after: str, gate: str | None, cluster: str | None, slices: tuple[str, ...], place: Place) -> None:
    """Compare two finished runs pair by pair. With --gate the exit code is the verdict."""
    found = place.opened.compare(before, after, gate=gate, cluster=cluster, slices=slices)
    if place.as_json:
        emit(found.document())
    else:
        show(found.report())
    context.exit(found.exit_code if gate else 0)


@click.command()
@click.argument("name", metavar="BACKTEST|SEARCH")
@MLFLOW
@reads_store
def mlflow_sync(name: str, mlflow_uri: str | None, place: Place) -> None:
    """Log a finished backtest or search to MLflow. It is safe to repeat."""
    logged = place.opened.log_to_mlflow(name, mlflow_uri)
    if place.as_json:
        emit(logged.document())
        return
    show(f"MLflow:  {logged.url}")


@click.command("report")
@click.argument("backtest_id", metavar="BACKTEST")
@click.argument("name", default="report.txt", metavar="[NAME]")
@reads_store
def report_(backtest_id: str, name: str, place: Place) -> None:
    """
    Print a report of the finished BACKTEST.

    NAME is report.txt (the default), report.md, report.html, junit.xml, manifest.json or verdict.json.
    """
    click.echo(clean(place.opened.report(backtest_id, "verdict.json" if place.as_json else name)), nl=False)


def log_to_mlflow(name: str, mlflow_uri: str | None, place: Place) -> None:
    """Log a backtest or search to MLflow unless that is switched off; a failure is a warning and never the verdict's."""
    if mlflow_uri == "none":
        return
    try:
        logged = place.opened.log_to_mlflow(name, mlflow_uri)
    except TrackingUnavailable as error:
        say(f"warning: {error}")
        return
    how = "" if mlflow_uri else f"   (beam-ray ui{place.option}  opens it)"
    say(f"MLflow:           {logged.url}{how}")


def _value(written: str) -> Any:
    """A word on the command line as a YAML scalar: a number, true or false, null, or text."""
    words = {"true": True, "false": False, "null": None}
    if written in words:
        return words[written]
    for kind in (int, float):
        try:
            return kind(written)
        except ValueError:
            continue
    return written
