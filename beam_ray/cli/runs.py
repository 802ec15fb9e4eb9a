"""run, resume and stop."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import click

import beam_ray
from beam_ray.cli.options import Execution, Place, TaskSource, executes, reads_store, runs_in_lane, takes_tasks
from beam_ray.cli.screen import duration, emit, money, number, plural, progress, show


@click.command()
@click.argument("workflow")
@takes_tasks
@click.option("--trials", default=1, show_default=True, type=click.IntRange(min=1), help="Repetitions of each task.")
@executes
@runs_in_lane
def run(workflow: str, source: TaskSource, trials: int, execution: Execution, place: Place) -> None:
    """Run WORKFLOW, a YAML file, a published NAME[@VERSION] or a draft NAME@DRAFT, over tasks. Run the same command again to resume."""
    with progress(quiet=place.as_json) as callback:
        done = place.opened.run(workflow, source.tasks, trials=trials, budget=execution.limits, takeover=execution.takeover, progress=callback)
    show_run(done, place)


@click.command()
@click.argument("run_id", metavar="RUN")
@executes
@runs_in_lane
def resume(run_id: str, execution: Execution, place: Place) -> None:
    """Resume RUN: only what is missing is executed. For a finished run, its result is shown."""
    with progress(quiet=place.as_json) as callback:
        done = place.opened.resume(run_id, budget=execution.limits, takeover=execution.takeover, progress=callback)
    show_run(done, place)


@click.command()
@click.argument("run_id", metavar="RUN")
@reads_store
def stop(run_id: str, place: Place) -> None:
    """Stop RUN: its driver ends within seconds with exit code 3, keeps all results, and RUN can be resumed."""
    found = place.opened.stop(run_id)
    if place.as_json:
        emit(found.document())
        return
    show(f"run {found.run_id} was asked to stop: {found.driver}, {found.steps_done:,} of {found.steps:,} steps done")
    show(f"resume with:  beam-ray resume {found.run_id}{place.option}")


def show_run(done: beam_ray.Run, place: Place) -> None:
    """The run's result."""
    if place.as_json:
        emit(done.document())
        return
    numbers, record = done.summary, done.record
    version = f" version {done.version}" if done.version else ""
    show(f"run {done.id} · {record.workflow}{version} · {plural(record.tasks, 'task')} from {done.source}")
    show(f"  passed {done.passed:,} of {numbers['rows']:,}, below threshold {done.below:,}, failed {done.failed:,}")
    show(f"  mean score {number(done.score)}")
    if numbers["auto_reruns"]:
        gain = (numbers["score"] or 0.0) - (numbers["first_score"] or 0.0)
        cost = f"{numbers['auto_rerun_tokens']:,} tokens, {money(numbers['auto_rerun_usd'])}"
        show(f"  {plural(numbers['auto_reruns'], 'auto-rerun')}: first attempts scored {number(numbers['first_score'])}, gain {gain:+.1f}, cost {cost}")
    if numbers["steps_unscored"]:
        show(f"  {plural(numbers['steps_unscored'], 'step')} unscored, not averaged")
    tokens = numbers["input_tokens"] + numbers["output_tokens"]
    show(f"  {plural(done.calls, 'model call')}, {tokens:,} tokens, {money(done.usd)}, {duration(numbers['seconds'])}")
    if numbers.get("cached_tokens") or numbers.get("reasoning_tokens"):
        cached = f"{numbers['cached_tokens'] or 0:,} input tokens ({(numbers['cached_tokens'] or 0) / max(numbers['input_tokens'], 1):.0%}) from the cache"
        show(f"  {cached}, {numbers['reasoning_tokens'] or 0:,} reasoning tokens")
    if numbers.get("estimated_calls"):
        show(f"  {plural(numbers['estimated_calls'], 'call')} without reported usage: their tokens and price are estimates")
    show()
    show(f"list tasks:      beam-ray tasks --run {done.id}{place.option}")
    show(f"Parquet files:   {place.store}/runs/{done.id}/steps/*.parquet")
