"""check and plan: everything that can be known before any model is called."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from pathlib import Path

import click

import beam_ray
from beam_ray.cli.backtests import show_backtest_plan
from beam_ray.cli.options import Place, TaskSource, plans_in_lane, takes_tasks, uses_models
from beam_ray.cli.plans import lanes, plan_table, totals
from beam_ray.cli.screen import emit, plural, say, show, table
from beam_ray.errors import Unusable


@click.command()
@click.argument("workflow")
@uses_models
def check(workflow: str, place: Place) -> None:
    """Check WORKFLOW, a YAML file, a published NAME[@VERSION] or a draft NAME@DRAFT, and report every problem with its place."""
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
    if found.agent_tools:
        show()
        rows = [[tool.agent, tool.name, tool.reference, tool.effects, tool.on_miss] for tool in found.agent_tools]
        show(table(["agent", "tool", "from", "effects", "unrecorded, in tests"], rows))


def graph(workflow: beam_ray.Workflow) -> str:
    """The workflow's nodes in execution order."""
    rows = []
    for name in workflow.order:
        node = workflow.nodes[name]
        rows.append(
            [
                name,
                workflow.model_of(name) or node.program,
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
@click.option("--detect", metavar="POINTS", help="Of a SPEC: how many tasks and trials detect such a change with 80% power; 3% is of the success rate alone.")
@plans_in_lane
def plan(workflow: str, source: TaskSource, trials: int, origin: str | None, detect: str | None, place: Place) -> None:
    """Show what a run of WORKFLOW, or the backtest SPEC, would do, cost and take. No model is called."""
    if workflow == "-" or beam_ray.is_backtest_spec(Path(workflow)):
        show_backtest_plan(place.opened.plan_backtest(workflow, detect=detect), place)
        return
    if detect is not None:
        raise Unusable(f"--detect is for a backtest spec, and {workflow} is none")
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
    if text := lanes(made):
        show(text)
    if made.prices:
        show(f"prices: {', '.join(f'{name} from {source}' if source != 'unpriced' else f'{name} unpriced' for name, source in made.prices.items())}")
    show(f"run it:  beam-ray run {workflow} {source.words}{place.option}")
