"""demo: the main job from nothing to a verdict, with the embedded model."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import click

from beam_ray.cli.backtests import run_backtest, track
from beam_ray.cli.runs import drive
from beam_ray.cli.screen import duration, money, number, say, show, store_options, store_words
from beam_ray.errors import Unusable
from beam_ray.llm.settings import ModelSettings, load_models

WORKFLOW = Path("configs/workflows/orders.yaml")
TASKS = Path("configs/libraries/documents.jsonl")
SPEC = Path("configs/backtests/orders-v2.yaml")
MODELS = Path("configs/models.yaml")


@click.command()
@click.option("--limit", type=int, help="Only the first so many documents.")
@store_options
@click.pass_context
def demo(context: click.Context, limit: int | None, store: str, as_json: bool) -> None:
    """Run the demo workflow with prompt version 1, backtest version 2, and print the verdict."""
    from beam_ray.backtest.conclude import report
    from beam_ray.publish import current, publish
    from beam_ray.run.plan import load_workflow, make_plan
    from beam_ray.store.objects import open_objects
    from beam_ray.store.runs import Run, begin, find_runs
    from beam_ray.tasks.sources import read_source

    for path in (WORKFLOW, TASKS, SPEC, MODELS):
        if not path.is_file():
            raise Unusable(f"{path} is not here; run the demo from the project's folder")
    objects = open_objects(store)
    models = load_models(MODELS)
    workflow, _ = load_workflow(WORKFLOW)
    say("1  publish the workflow with its first prompt")
    version = current(objects, workflow.name)
    if version is None:
        version = publish(objects, workflow, source=WORKFLOW.read_text(encoding="utf-8"), reason="the demo's first version")
    say(f"   {workflow.name} version {version.version}")
    tasks, name = read_source(objects, str(TASKS), limit=limit)
    with served(models):
        say(f"2  run it over {tasks.num_rows} documents of {name}")
        plan = make_plan(version.plan, tasks, models, source=name, version_number=version.version)
        done = [run for run in map(lambda run_id: Run(objects, run_id), find_runs(objects)) if run.finished and run.record.key == plan.record.key]
        if done:
            say(f"   run {done[0].run_id} has done that already")
        else:
            record = begin(objects, plan.record, plan.tasks)
            summary = drive(objects, record, models, address=None, takeover=False, quiet=as_json, store=store)
            say(
                f"   run {record.run_id}: mean score {number(summary['score'])}, {summary['passed']} of {summary['rows']} passed, {summary['calls']} model calls, {money(summary['usd'])}, {duration(summary['seconds'])}"
            )
        say("3  backtest the second prompt, a draft, over the same documents")
        verdict = run_backtest(objects, SPEC, models, {"limit": limit} if limit else {}, quiet=as_json, store=store)
    show()
    show(report(objects, verdict["backtest_id"]))
    track(objects, verdict, None, store)
    where = store_words(store)
    show(f"open the page:    {store}/backtests/{verdict['backtest_id']}/report.html")
    show("open MLflow:      make ui" if not where else f"open MLflow:      beam-ray ui{where}")
    show(f"the Parquet:      {store}/runs/*/steps/*.parquet")
    show(f"one document:     beam-ray show {verdict['candidates'][0]['run_id']}/{tasks['task_id'][0].as_py()}{where}")
    context.exit(int(verdict["exit_code"]))


@contextlib.contextmanager
def served(models: dict[str, ModelSettings]) -> Iterator[None]:
    """The embedded model, started unless it answers already."""
    import socket
    from urllib.parse import urlsplit

    from beam_ray.llm.local import running

    address = urlsplit(models["local/small"].url)
    with socket.socket() as probe:
        probe.settimeout(1)
        answers = probe.connect_ex((str(address.hostname), int(address.port or 80))) == 0
    if answers:
        yield
        return
    say("0  start the embedded model")
    with running(int(address.port or 80)):
        yield
