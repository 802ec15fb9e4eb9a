"""check and plan: everything that can be known before anything is spent."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from pathlib import Path

import click

import beam_ray
from beam_ray.cli.options import Place, TaskSource, reads_store, takes_tasks, uses_models
from beam_ray.cli.screen import at_most, emit, plural, say, show, table


@click.command()
@click.argument("workflow")
@reads_store
def check(workflow: str, place: Place) -> None:
    """Check WORKFLOW, a YAML file or a published NAME[@VERSION], and report every problem with its place."""
    found = place.opened.check(workflow)
    if place.as_json:
        emit(found.document())
        return
    for warning in found.warnings:
        say(str(warning))
    definition = found.workflow
    criteria = sum(len(node.evaluate.criteria) for node in definition.nodes.values() if node.evaluate)
    models = f"model{'s'[: len(definition.models) != 1]} {', '.join(definition.models)}" if definition.models else "no model"
    show(f"{workflow}: OK ({plural(len(definition.nodes), 'node')}, {plural(criteria, 'criterion', 'criteria')}, {models})")
    show(graph(definition))


def graph(workflow: beam_ray.Workflow) -> str:
    """The workflow's nodes in execution order."""
    rows = []
    for name in workflow.order:
        node = workflow.nodes[name]
        rows.append(
            [
                name,
                workflow.model_of(name) or node.tool,
                ", ".join(node.after),
                node.route or node.when or "",
                len(node.evaluate.criteria) if node.evaluate else "-",
                f"{node.evaluate.threshold:g}" if node.evaluate else "-",
            ]
        )
    return table(["node", "model or tool", "after", "route", "criteria", "threshold"], rows, right=[4, 5])


@click.command()
@click.argument("workflow", metavar="WORKFLOW|SPEC")
@takes_tasks
@click.option("--trials", default=1, show_default=True, type=click.IntRange(min=1), help="Repetitions of each task.")
@click.option("--from-run", "origin", metavar="RUN", help="Borrow unchanged steps from this run.")
@uses_models
def plan(workflow: str, source: TaskSource, trials: int, origin: str | None, place: Place) -> None:
    """Show what a run of WORKFLOW, or the backtest SPEC, would do and cost. No model is called."""
    if beam_ray.is_backtest_spec(Path(workflow)):
        from beam_ray.cli.backtests import show_backtest_plan

        show_backtest_plan(place.opened.plan_backtest(workflow), place)
        return
    made = place.opened.plan(workflow, source.tasks, trials=trials, borrow_from=origin)
    if place.as_json:
        emit(made.document())
        return
    for warning in made.warnings:
        say(str(warning))
    show(f"{made.workflow.name} · {plural(made.tasks.num_rows, 'task')} from {made.source}" + (f" × {trials} trials" if trials > 1 else ""))
    show(plan_table(made))
    show()
    show(totals(made))
    if made.prices:
        show(f"prices: {', '.join(f'{name} from {source}' if source != 'unpriced' else f'{name} unpriced' for name, source in made.prices.items())}")
    show(f"run it:  beam-ray run {workflow} --tasks {source.source}{place.option}")


def plan_table(made: beam_ray.Plan) -> str:
    """What is run, borrowed and scored again at each node, and why."""
    rows = []
    for node in made.nodes:
        most = "≤ " if node.conditional and node.run else ""
        rows.append(
            [
                node.node,
                node.model or "tool",
                f"{most}{node.run}",
                node.borrow,
                node.rescore,
                f"{most}{node.calls + node.judge_calls}" if node.model or node.judge_calls else "",
                at_most(node.max_usd) if node.model else "",
                ", ".join(node.why),
            ]
        )
    return table(["node", "model or tool", "run", "borrow", "rescore", "model calls", "cost", "because of"], rows, right=[2, 3, 4, 5, 6])


def totals(made: beam_ray.Plan) -> str:
    """The plan in one line."""
    bound = "at most " if made.conditional else ""
    again = f" and at most {plural(made.max_auto_reruns, 'auto-rerun')}" if made.max_auto_reruns else ""
    without = " without auto-reruns" if again else ""
    return f"{bound}{plural(made.calls, 'model call')}{again}, {at_most(made.max_usd)}{without} (planned; no model was called yet)"
