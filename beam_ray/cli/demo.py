"""demo: the main job from nothing to a verdict, with the embedded model."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from pathlib import Path

import click

import beam_ray
from beam_ray.cli.backtests import log_to_mlflow
from beam_ray.cli.options import Place, reads_store
from beam_ray.cli.screen import duration, emit, money, number, plural, progress, say, show
from beam_ray.errors import Unusable

WORKFLOW = Path("configs/workflows/orders.yaml")
TASKS = Path("configs/libraries/documents.jsonl")
SPEC = Path("configs/backtests/orders-v2.yaml")
MODELS = Path("configs/models.yaml")


@click.command()
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N documents.")
@reads_store
@click.pass_context
def demo(context: click.Context, limit: int | None, place: Place) -> None:
    """Run the demo workflow with prompt version 1, backtest version 2, and print the verdict."""
    for path in (WORKFLOW, TASKS, SPEC, MODELS):
        if not path.is_file():
            raise Unusable(f"{path} not found; run the demo in the project's folder")
    store = beam_ray.open(place.store, models=MODELS)
    say("1  start the embedded model")
    with beam_ray.embedded_model(store), progress(quiet=place.as_json) as callback:
        say("2  publish the workflow with its first prompt")
        version = _published(store)
        say(f"   {version.workflow} version {version.number}")
        plan = store.plan(version.workflow, beam_ray.Tasks(TASKS, limit=limit))
        say(f"3  run it over {plural(plan.tasks.num_rows, 'document')} from {TASKS}")
        done = next((run for run in store.runs() if run.finished and run.record.key == plan.key), None)
        if done:
            say(f"   run {done.id} has done that already")
        else:
            done = store.run(version.workflow, beam_ray.Tasks(TASKS, limit=limit), progress=callback)
            passed = f"{done.passed} of {done.summary['rows']} passed"
            say(
                f"   run {done.id}: mean score {number(done.score)}, {passed}, {plural(done.calls, 'model call')}, {money(done.usd)}, {duration(done.summary['seconds'])}"
            )
        say("4  backtest the second prompt, a draft, over the same documents")
        options = beam_ray.BacktestOptions({"limit": {"first": limit}} if limit else {})
        verdict = store.backtest(SPEC, options=options, progress=callback)
    if place.as_json:
        emit(verdict.document())
    else:
        show()
        show(verdict.report())
    log_to_mlflow(verdict.id, None, place)
    if not place.as_json:
        show(f"report page:      {place.store}/backtests/{verdict.id}/report.html")
        show("open MLflow:      make ui" if not place.option else f"open MLflow:      beam-ray ui{place.option}")
        show(f"Parquet files:    {place.store}/runs/*/steps/*.parquet")
        show(f"one document:     beam-ray show {verdict.best.run.id}/{plan.tasks['task_id'][0].as_py()}{place.option}")
    context.exit(verdict.exit_code)


def _published(store: beam_ray.Store) -> beam_ray.Version:
    """The current version of the demo's workflow; its first one where there is none."""
    name = beam_ray.load(WORKFLOW).name
    try:
        return store.versions(name)[0]
    except Unusable:
        return store.publish(WORKFLOW, without_evidence="the demo's first version")
