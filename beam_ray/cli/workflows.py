"""check and plan: everything that can be known before anything is spent."""

from pathlib import Path
from typing import Any

import click

from beam_ray.cli.screen import at_most, emit, model_options, pairs, say, show, store_options, store_words, table
from beam_ray.define.check import check as check_workflow
from beam_ray.define.workflow import Workflow
from beam_ray.llm.settings import load_models
from beam_ray.publish import find_workflow
from beam_ray.run.tools import tool_folders
from beam_ray.store.objects import open_objects


@click.command()
@click.argument("workflow")
@store_options
def check(workflow: str, store: str, as_json: bool) -> None:
    """Read WORKFLOW, a YAML file or a published NAME[@VERSION], and report everything that is wrong with it."""
    from beam_ray.run.plan import load_workflow

    if workflow.endswith((".yaml", ".yml")):
        file, _ = find_workflow(_no_store(), workflow)
        assert file
        found, warnings = load_workflow(file)
    else:
        _, version = find_workflow(open_objects(store), workflow)
        assert version
        found = version.plan
        warnings = check_workflow(found, folders=tool_folders(found))
    if as_json:
        emit({"workflow": found.name, "digest": found.digest, "nodes": list(found.order), "warnings": [str(warning) for warning in warnings]})
        return
    for warning in warnings:
        say(str(warning))
    criteria = sum(len(node.evaluate.criteria) for node in found.nodes.values() if node.evaluate)
    show(
        f"{workflow}: sound. {found.name}: {len(found.nodes)} node{'s'[: len(found.nodes) != 1]}, {criteria} criteria, asks {', '.join(found.models) or 'no model'}"
    )
    show(graph(found))


def graph(workflow: Workflow) -> str:
    """The workflow's nodes in order, each with what it comes after and its route."""
    rows = []
    for name in workflow.order:
        node = workflow.nodes[name]
        kind = workflow.model_of(name) if node.llm else node.tool
        rows.append(
            [
                name,
                kind,
                ", ".join(node.after),
                node.route or node.when or "",
                len(node.evaluate.criteria) if node.evaluate else "-",
                f"{node.evaluate.threshold:g}" if node.evaluate else "-",
            ]
        )
    return table(["node", "asks", "after", "route", "criteria", "threshold"], rows, right=[4, 5])


def _no_store() -> Any:
    # a file needs no store to be found, and none should be made for looking at it
    return None


@click.command()
@click.argument("workflow")
@click.option("--tasks", "source", help="A .jsonl, .csv or .parquet file, library:NAME[@V], run:ID. A backtest spec names its own.")
@click.option("--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="Take a field of the task from a column of another name.")
@click.option("--trials", default=1, show_default=True, help="Repetitions of each task.")
@click.option("--limit", type=int, help="Only the first so many tasks.")
@click.option("--from-run", "origin", metavar="RUN", help="Borrow from this run what has not changed.")
@model_options
@store_options
def plan(
    workflow: str, source: str | None, mapping: tuple[str, ...], trials: int, limit: int | None, origin: str | None, models: str, store: str, as_json: bool
) -> None:
    """Say what running WORKFLOW, or the backtest spec of that name, would do and cost. Spends nothing."""
    from beam_ray.define.yaml_file import read_yaml
    from beam_ray.rerun import count_borrowed
    from beam_ray.run.plan import Lineage, Plan, make_plan
    from beam_ray.store.runs import resolve
    from beam_ray.tasks.sources import read_source

    objects = open_objects(store)
    known = load_models(Path(models))
    path = Path(workflow)
    if path.is_file() and "backtest" in (read_yaml(path).data or {}):
        from beam_ray.cli.backtests import plan_backtest

        plan_backtest(objects, path, known, as_json)
        return
    from beam_ray.cli.runs import workflow_of

    found, version, warnings = workflow_of(objects, workflow)
    if not source:
        raise click.UsageError("--tasks SOURCE names the tasks")
    tasks, name = read_source(objects, source, mapping=pairs(mapping, "--map"), limit=limit)
    from_run = resolve(objects, origin) if origin else None
    lineage = Lineage(origin=from_run, borrow=True) if from_run else None
    made: Plan = make_plan(found, tasks, known, source=name, version_number=version, trials=trials, lineage=lineage)
    made = count_borrowed(objects, made, known)
    if as_json:
        emit(document(made))
        return
    for warning in warnings:
        say(str(warning))
    show(f"{found.name} · {tasks.num_rows} tasks of {name}" + (f" × {trials} trials" if trials > 1 else ""))
    show(plan_table(made))
    show()
    show(totals(made))
    show(f"run it:  beam-ray run {workflow} --tasks {source}{store_words(store)}")


def plan_table(made: Any) -> str:
    """Per node: what is run, borrowed and re-scored, and because of what."""
    rows = []
    for node in made.nodes:
        most = "≤ " if node.conditional and node.run else ""
        why = ", ".join(node.why) if node.run or node.rescore else ""
        rows.append(
            [
                node.node,
                node.model or "tool",
                f"{most}{node.run}",
                node.borrow,
                node.rescore,
                f"{most}{node.calls + node.judge_calls}" if node.model or node.judge_calls else "",
                at_most(node.usd) if node.model else "",
                why,
            ]
        )
    return table(["node", "asks", "run", "borrow", "re-score", "model calls", "cost", "because of"], rows, right=[2, 3, 4, 5, 6])


def totals(made: Any) -> str:
    """The plan in one line."""
    bound = "at most " if any(node.conditional for node in made.nodes) else ""
    again = f" and at most {made.auto_reruns:,} auto-reruns" if made.auto_reruns else ""
    without = " without them" if again else ""
    return f"{bound}{made.calls:,} model calls{again}, {at_most(made.usd)}{without}; nothing was spent"


def document(made: Any) -> dict[str, Any]:
    """The plan for machines."""
    return {
        "workflow": made.workflow.name,
        "tasks": made.tasks.num_rows,
        "trials": made.record.trials,
        "calls": made.calls,
        "max_auto_reruns": made.auto_reruns,
        "max_usd": made.usd,
        "nodes": [
            {
                "node": node.node,
                "model": node.model,
                "run": node.run,
                "borrow": node.borrow,
                "rescore": node.rescore,
                "calls": node.calls,
                "judge_calls": node.judge_calls,
                "conditional": node.conditional,
                "because_of": list(node.why),
                "input_tokens": node.input_tokens,
                "max_output_tokens": node.output_tokens,
                "max_usd": node.usd,
            }
            for node in made.nodes
        ],
    }
