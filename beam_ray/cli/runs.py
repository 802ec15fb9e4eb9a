"""run and resume."""

import contextlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from beam_ray.cli.screen import (
    Meter,
    duration,
    emit,
    existing,
    model_options,
    money,
    number,
    pairs,
    run_options,
    say,
    show,
    store_options,
    store_words,
)
from beam_ray.define.workflow import Workflow
from beam_ray.errors import Problem, Stopped
from beam_ray.llm.settings import ModelSettings, load_models
from beam_ray.publish import find_workflow
from beam_ray.store.objects import Objects, open_objects
from beam_ray.store.runs import Run, RunRecord, begin, resolve


@click.command()
@click.argument("workflow")
@click.option("--tasks", "source", required=True, help="A .jsonl, .csv or .parquet file, library:NAME[@V], run:ID.")
@click.option("--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Take a field of the task from a column of another name.")
@click.option("--label", "labels", multiple=True, help="Only tasks with this label.")
@click.option("--trials", default=1, show_default=True, help="Repetitions of each task.")
@click.option("--limit", type=int, help="Only the first so many tasks.")
@click.option("--budget", "budget", multiple=True, metavar="LIMIT=VALUE", help="max_usd, max_tokens, max_calls or max_minutes.")
@run_options
@model_options
@store_options
def run(
    workflow: str,
    source: str,
    mapping: tuple[str, ...],
    labels: tuple[str, ...],
    trials: int,
    limit: int | None,
    budget: tuple[str, ...],
    address: str | None,
    takeover: bool,
    models: str,
    store: str,
    as_json: bool,
) -> None:
    """Run WORKFLOW, a YAML file or a published NAME[@VERSION], over tasks. The same command goes on where it was stopped."""
    from beam_ray.run.plan import make_plan
    from beam_ray.tasks.sources import read_source

    objects = open_objects(store)
    known = load_models(Path(models))
    found, version, warnings = workflow_of(objects, workflow)
    for warning in warnings:
        say(str(warning))
    tasks, name = read_source(objects, source, mapping=pairs(mapping, "--map"), limit=limit, labels=labels)
    limits = limits_of(budget)
    made = make_plan(found, tasks, known, source=name, version_number=version, trials=trials, budget=limits)
    probe_models(known, found)
    record = begin(objects, made.record, made.tasks)
    if record.run_id != made.record.run_id:
        say(f"going on with run {record.run_id}, which was begun {record.created_at.replace('T', ' ')[:16]}")
    summary = drive(objects, record.model_copy(update={"budget": limits}), known, address=address, takeover=takeover, quiet=as_json, store=store)
    _report(record, summary, store, as_json)


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--budget", "budget", multiple=True, metavar="LIMIT=VALUE", help="A new budget, for what is left.")
@run_options
@model_options
@store_options
def resume(run_id: str, budget: tuple[str, ...], address: str | None, takeover: bool, models: str, store: str, as_json: bool) -> None:
    """Go on with RUN: only what is missing is executed. A finished run is only reported."""
    objects = existing(store)
    record = Run(objects, resolve(objects, run_id)).record
    known = load_models(Path(models))
    if budget:
        record = record.model_copy(update={"budget": limits_of(budget)})
    if not Run(objects, record.run_id).finished:
        probe_models(known, record.plan)
    summary = drive(objects, record, known, address=address, takeover=takeover, quiet=as_json, store=store)
    _report(record, summary, store, as_json)


def workflow_of(objects: Objects, written: str) -> tuple[Workflow, int | None, list[Problem]]:
    """The workflow that is named, its version if it has one, and advice about it."""
    from beam_ray.define.check import check
    from beam_ray.run.plan import load_workflow
    from beam_ray.run.tools import tool_folders

    file, version = find_workflow(objects, written)
    if file:
        workflow, warnings = load_workflow(file)
        return workflow, None, warnings
    assert version
    return version.plan, version.version, check(version.plan, folders=tool_folders(version.plan))


def probe_models(models: Mapping[str, Any], *workflows: Workflow) -> None:
    """See that every endpoint answers, before anything is written down."""
    from beam_ray.llm.model import probe

    for name in dict.fromkeys(name for workflow in workflows for name in workflow.models):
        written = models.get(name)
        if isinstance(written, ModelSettings):
            probe(written, name)


def drive(objects: Objects, record: RunRecord, models: Mapping[str, Any], *, address: str | None, takeover: bool, quiet: bool, store: str) -> Mapping[str, Any]:
    """Execute the run with progress; whatever stops it says how to go on."""
    from beam_ray.run.connection import Connection
    from beam_ray.run.execute import execute

    meter = Meter(f"run {record.run_id}", quiet=quiet)
    try:
        with contextlib.closing(Connection(address)) as connection:
            return execute(objects, record, models, connection=connection, takeover=takeover, progress=meter).summary
    except Stopped as error:
        where = store_words(store)
        error.resume = f"beam-ray resume {record.run_id}{where}"
        raise
    finally:
        meter.done()


def document(record: RunRecord, summary: Mapping[str, Any]) -> dict[str, Any]:
    """A run for machines."""
    return {
        "run_id": record.run_id,
        "workflow": record.workflow,
        "version": record.version,
        "tasks": record.tasks,
        "trials": record.trials,
        "passed": summary["passed"],
        "failed": summary["failed"],
        "below_threshold": summary["below"],
        "score": summary["score"],
        "calls": summary["calls"],
        "usd": summary["usd"],
        "summary": dict(summary),
    }


def _report(record: RunRecord, summary: Mapping[str, Any], store: str, as_json: bool) -> None:
    if as_json:
        emit(document(record, summary))
        return
    where = store_words(store)
    rows = summary["rows"]
    show(f"run {record.run_id} · {record.workflow}{f' version {record.version}' if record.version else ''} · {record.tasks} tasks of {record.source}")
    show(f"  passed {summary['passed']} of {rows}, below the threshold {summary['below']}, failed {summary['failed']}")
    show(f"  mean score {number(summary['score'])}")
    if summary["auto_reruns"]:
        uplift = (summary["score"] or 0.0) - (summary["first_score"] or 0.0)
        cost = f"{summary['auto_rerun_tokens']:,} tokens, {money(summary['auto_rerun_usd'])}"
        show(f"  {summary['auto_reruns']} auto-reruns: first attempts {number(summary['first_score'])}, uplift {uplift:+.1f}, taking {cost}")
    if summary["steps_unscored"]:
        show(f"  {summary['steps_unscored']} steps unscored, not averaged")
    tokens = summary["input_tokens"] + summary["output_tokens"]
    show(f"  {summary['calls']:,} model calls, {tokens:,} tokens, {money(summary['usd'])}, {duration(summary['seconds'])}")
    show()
    show(f"look at tasks:    beam-ray tasks --run {record.run_id}{where}")
    show(f"the Parquet:      {store}/runs/{record.run_id}/steps/*.parquet")


def limits_of(budget: tuple[str, ...]) -> dict[str, float]:
    """The limits that --budget names."""
    found = {}
    for name, value in pairs(budget, "--budget").items():
        try:
            found[name] = float(value)
        except ValueError:
            raise click.UsageError(f"--budget {name}={value}: {value!r} is not a number") from None
        # nothing is above a limit that is no number, so it would hold nothing back
        if not 0 <= found[name] < math.inf:
            raise click.UsageError(f"--budget {name}={value}: a limit is a number from 0 on")
    return found
