"""backtest, compare and mlflow-sync."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from beam_ray.cli.runs import probe_models
from beam_ray.cli.screen import DEFAULT_STORE, Meter, clean, emit, existing, model_options, pairs, run_options, say, show, store_options, store_words
from beam_ray.cli.workflows import document as plan_document
from beam_ray.cli.workflows import plan_table, totals
from beam_ray.errors import Stopped, Unusable
from beam_ray.llm.settings import load_models
from beam_ray.store.objects import Objects, open_objects
from beam_ray.store.runs import Run, resolve


@click.command()
@click.argument("spec", type=click.Path(dir_okay=False))
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change the spec: tasks, baseline, trials, confirm, gate, limit, stop, models.NAME, candidates.NAME.PATH.",
)
@click.option("--aa", is_flag=True, help="Compare the baseline with itself instead, and tell how much of a change is noise.")
@click.option("--budget", multiple=True, metavar="LIMIT=VALUE", help="max_usd, max_tokens, max_calls or max_minutes; for the whole backtest.")
@click.option("--label", "labels", multiple=True, help="Only tasks with this label.")
@click.option("--fresh", is_flag=True, help="Borrow nothing: every step of every side is executed.")
@click.option("--again", is_flag=True, help="Run it anew although it has its verdict.")
@click.option("--allow-writes", is_flag=True, help="Call tools with write effects.")
@click.option("--plan", "only_plan", is_flag=True, help="Only say what would be done.")
@click.option(
    "--mlflow", "mlflow_uri", envvar="MLFLOW_TRACKING_URI", metavar="URI", help="Where to show it; 'none' for nowhere. Default: a database in the store."
)
@run_options
@model_options
@store_options
@click.pass_context
def backtest(
    context: click.Context,
    spec: str,
    changes: tuple[str, ...],
    budget: tuple[str, ...],
    labels: tuple[str, ...],
    aa: bool,
    fresh: bool,
    again: bool,
    allow_writes: bool,
    only_plan: bool,
    mlflow_uri: str | None,
    address: str | None,
    takeover: bool,
    models: str,
    store: str,
    as_json: bool,
) -> None:
    """
    Compare the candidates of SPEC with its baseline over the same tasks.

    The exit code is the verdict: 0 for PASS and WARN, 4 for BLOCK, 5 for INCONCLUSIVE. The
    same command goes on where it was stopped, and gives its verdict again once it has one.
    """
    objects = open_objects(store)
    known = load_models(Path(models))
    edits = _edits(changes, budget, fresh) | ({"aa": True} if aa else {})
    if only_plan:
        plan_backtest(objects, Path(spec), known, as_json, edits, labels)
        return
    verdict = run_backtest(
        objects, Path(spec), known, edits, labels=labels, address=address, takeover=takeover, again=again, allow_writes=allow_writes, quiet=as_json, store=store
    )
    from beam_ray.backtest.conclude import report

    if as_json:
        emit(verdict)
    else:
        show(report(objects, verdict["backtest_id"]))
        _where(verdict, store)
    track(objects, verdict, mlflow_uri, store)
    context.exit(int(verdict["exit_code"]))


def run_backtest(
    objects: Objects,
    spec: Path,
    models: Mapping[str, Any],
    edits: Mapping[str, Any],
    *,
    labels: tuple[str, ...] = (),
    quiet: bool = False,
    store: str = DEFAULT_STORE,
    **how: Any,
) -> dict[str, Any]:
    """The verdict document of the backtest in *spec*, run or taken up as needed."""
    from beam_ray.backtest.conclude import conclude

    made = prepare(objects, spec, models, edits, labels, **how)
    for warning in made.resolved.warnings:
        say(str(warning))
    if made.verdict is None:
        probe_models(models, made.resolved.baseline.workflow, *(side.workflow for side in made.resolved.candidates))
        say(f"backtest {made.backtest_id}: {made.tasks.num_rows} tasks of {made.source}")
    else:
        say(f"backtest {made.backtest_id} has its verdict; nothing is run (--again runs it anew)")
    meters: dict[str, Meter] = {}

    def watch(side: str, progress: Any) -> None:
        meters.setdefault(side, Meter(side, quiet=quiet))(progress)

    made.watch, made.say = watch, say
    try:
        return conclude(made)
    except Stopped as error:
        where = store_words(store)
        error.resume = f"beam-ray backtest {spec}{where}"
        raise
    finally:
        for meter in meters.values():
            meter.done()


def prepare(objects: Objects, spec: Path, models: Mapping[str, Any], edits: Mapping[str, Any], labels: tuple[str, ...] = (), **how: Any) -> Any:
    """The backtest in *spec* with everything looked up, and nothing run."""
    from beam_ray.backtest.conclude import the_gate
    from beam_ray.backtest.sides import Backtest
    from beam_ray.backtest.spec import resolve_spec
    from beam_ray.run.plan import require_models
    from beam_ray.tasks.sources import read_source

    resolved = resolve_spec(objects, spec, edits)
    the_gate(resolved)
    for side in (resolved.baseline, *resolved.candidates):
        require_models(side.workflow, models)
    tasks, name = read_source(objects, resolved.spec.tasks, limit=resolved.spec.limit, labels=labels, folder=resolved.folder)
    return Backtest(objects, resolved, tasks, name, models, **how)


def plan_backtest(
    objects: Objects, spec: Path, models: Mapping[str, Any], as_json: bool, edits: Mapping[str, Any] | None = None, labels: tuple[str, ...] = ()
) -> None:
    """Say what each side of the backtest would do and cost."""
    made = prepare(objects, spec, models, edits or {}, labels)
    documents = []
    if made.pauses and not as_json:
        show(f"stop: early looks after {', '.join(f'{tasks:,}' for tasks in made.pauses)} of {made.tasks.num_rows:,} tasks; what follows is the most")
    for side, plan, run_id in made.plans():
        if as_json:
            documents.append({"side": side.name, **(plan_document(plan) if plan else {"run_id": run_id, "calls": 0})})
        elif plan is None:
            show(f"{side.name}: run {run_id}, as it is")
        else:
            unknown = side.name != "baseline" and plan.record.origin is None
            show(
                f"{side.name}: {plan.tasks.num_rows} tasks"
                + (" (the baseline has no run yet, so what can be borrowed is not known: this is the most)" if unknown else "")
            )
            show(plan_table(plan))
            show(totals(plan))
    if as_json:
        emit({"backtest_id": made.backtest_id, "tasks": made.tasks.num_rows, "looks": list(made.pauses), "sides": documents})


@click.command()
@click.argument("before")
@click.argument("after")
@click.option("--gate", "gate_file", metavar="FILE", help="Judge by this gate; the exit code is then the verdict.")
@store_options
@click.pass_context
def compare(context: click.Context, before: str, after: str, gate_file: str | None, store: str, as_json: bool) -> None:
    """Compare two finished runs pair by pair. Without --gate it only shows; with it the exit code is the verdict."""
    from beam_ray.compare.compare_runs import compare_runs
    from beam_ray.compare.gate import DEFAULT_GATE, load_gate
    from beam_ray.compare.report import Result, document
    from beam_ray.compare.terminal import terminal
    from beam_ray.compare.verdict import judge

    objects = existing(store)
    runs = [Run(objects, resolve(objects, name)) for name in (before, after)]
    gate = load_gate(gate_file) if gate_file else DEFAULT_GATE
    found = compare_runs(runs[0], runs[1], gate)
    result = Result(found, judge(found, gate))
    if as_json:
        emit(document([result], {"baseline_run": runs[0].run_id, "candidate_run": runs[1].run_id}))
    else:
        show(terminal([result], f"{runs[0].run_id} -> {runs[1].run_id}"))
    context.exit(result.verdict.exit_code if gate_file else 0)


@click.command()
@click.argument("name", metavar="BACKTEST|SEARCH")
@click.option("--mlflow", "mlflow_uri", envvar="MLFLOW_TRACKING_URI", metavar="URI", help="Where to show it. Default: a database in the store.")
@store_options
def mlflow_sync(name: str, mlflow_uri: str | None, store: str, as_json: bool) -> None:
    """Show BACKTEST, or a search of optimise, in MLflow, again or for the first time; nothing is shown twice."""
    from beam_ray.backtest.conclude import read_verdict, tell_mlflow
    from beam_ray.improve.search_result import read_search
    from beam_ray.improve.search_tracking import tell_search
    from beam_ray.tracking import default_uri

    objects, uri = existing(store), mlflow_uri or default_uri(store)
    if name in objects.folders("searches"):
        logged = tell_search(objects, read_search(objects, name), uri)
    else:
        logged = tell_mlflow(objects, read_verdict(objects, name), uri)
    if as_json:
        emit({"experiment_id": logged.experiment_id, "run_ids": dict(logged.run_ids), "url": logged.url})
        return
    show(f"MLflow shows it:  {logged.url}")


@click.command("report")
@click.argument("backtest_id", metavar="BACKTEST")
@click.argument("name", default="report.txt", metavar="[NAME]")
@click.option("--store", envvar="BEAM_RAY_STORE", default=DEFAULT_STORE, show_default=True, metavar="URI", help="A folder or s3://bucket/prefix.")
def report_(backtest_id: str, name: str, store: str) -> None:
    """
    Print a file of the finished BACKTEST as it was kept.

    NAME is report.txt (the default), report.md, report.html, junit.xml or verdict.json.
    """
    from beam_ray.backtest.conclude import FILES, read_verdict, report
    from beam_ray.errors import did_you_mean

    texts = [known for known in FILES if not known.endswith(".parquet")]
    if name not in texts:
        raise Unusable("\n  ".join([f"a backtest has no {name!r}", f"it has: {', '.join(texts)}", *did_you_mean(name, texts)]))
    objects = existing(store)
    click.echo(clean(report(objects, read_verdict(objects, backtest_id)["backtest_id"], name)), nl=False)


def track(objects: Objects, verdict: Mapping[str, Any], mlflow_uri: str | None, store: str) -> None:
    """Tell MLflow of a backtest; its trouble is a warning and never the verdict's."""
    from beam_ray.backtest.conclude import tell_mlflow

    telling(lambda uri: tell_mlflow(objects, verdict, uri), mlflow_uri, store)


def telling(tell: Callable[[str], Any], mlflow_uri: str | None, store: str) -> None:
    """Have MLflow told, unless nobody wants it to be; its trouble is a warning."""
    from beam_ray.tracking import TrackingUnavailable, default_uri

    if mlflow_uri == "none":
        return
    try:
        logged = tell(mlflow_uri or default_uri(store))
        how = "" if mlflow_uri else f"   (beam-ray ui{store_words(store)}  opens it)"
        say(f"MLflow:           {logged.url}{how}")
    except TrackingUnavailable as error:
        say(f"warning: {error}")


def _where(verdict: Mapping[str, Any], store: str) -> None:
    where = f"{store}/backtests/{verdict['backtest_id']}"
    show(f"the page:         {where}/report.html")
    runs = [verdict["baseline"]["run_id"], *(entry["run_id"] for entry in verdict["candidates"])]
    show(f"the Parquet:      {store}/runs/{{{','.join(dict.fromkeys(runs))}}}/steps/*.parquet")


def _value(written: str) -> Any:
    """What a word on the command line means: a number, yes or no, nothing, or itself."""
    words = {"true": True, "false": False, "null": None}
    if written in words:
        return words[written]
    for kind in (int, float):
        try:
            return kind(written)
        except ValueError:
            continue
    return written


def _edits(changes: tuple[str, ...], budget: tuple[str, ...], fresh: bool) -> dict[str, Any]:
    edits: dict[str, Any] = {}
    for key, value in pairs(changes, "--set").items():
        edits[key] = _value(value)
    if budget:
        try:
            edits["budget"] = {key: float(value) for key, value in pairs(budget, "--budget").items()}
        except ValueError as error:
            raise click.UsageError(f"--budget: {error}") from None
    if fresh:
        edits["fresh"] = True
    return edits
