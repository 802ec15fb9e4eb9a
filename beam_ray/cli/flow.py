"""flow: a workflow's nodes and branches with how each did."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import dataclass

import click

import beam_ray
from beam_ray.cli.options import Place, grouped, reads_store
from beam_ray.cli.screen import emit, number, plural, show, table


@dataclass(frozen=True)
class NumbersOf:
    """Which runs the numbers are of."""

    run: str | None
    all_runs: bool
    backtest: str | None
    candidate: str | None


@click.command()
@click.argument("workflow", required=False)
@grouped(
    NumbersOf,
    "numbers",
    click.option("--run", metavar="RUN", help="Numbers of this run. Default: the newest finished run of the definition."),
    click.option("--all-runs", is_flag=True, help="Numbers of all finished runs of the definition."),
    click.option("--backtest", metavar="BACKTEST", help="Numbers of a backtest: its candidate, with the change against the baseline."),
    click.option("--candidate", metavar="NAME", help="Candidate of the backtest. Default: the best one."),
)
@reads_store
def flow(workflow: str | None, numbers: NumbersOf, place: Place) -> None:
    """Show the nodes and branches of WORKFLOW, a published NAME[@VERSION] or a file, with how each did; without WORKFLOW list all."""
    if sum((bool(numbers.run), numbers.all_runs, bool(numbers.backtest))) > 1:
        raise click.UsageError("give one of --run, --all-runs and --backtest")
    if numbers.candidate and not numbers.backtest:
        raise click.UsageError("--candidate belongs to --backtest")
    if workflow is None:
        _show_list(place)
        return
    found = place.opened.flow(workflow, run=numbers.run, all_runs=numbers.all_runs, backtest=numbers.backtest, candidate=numbers.candidate)
    if place.as_json:
        emit(found.document())
        return
    show(f"{found.workflow.name} {f'version {found.version}' if found.version else 'draft'} · {_source(found.numbers)}")
    show(
        table(
            ["node", "model or tool", "accuracy", "95% interval", "passed", "of", "auto-reruns", "change"],
            [_row(each) for each in found.nodes],
            right=[2, 4, 5, 6],
        )
    )
    rows = [
        [each.source, each.target, each.route or each.when, f"{number(each.percent)} %" if each.percent is not None else "-", each.taken, each.reached]
        for each in found.edges
    ]
    if rows:
        show()
        show(table(["from", "to", "route", "share", "tasks", "of"], rows, right=[3, 4, 5]))
    if not found.numbers.same_definition:
        show("the numbers are of another definition; nodes that were defined otherwise are marked *")


def _source(numbers: beam_ray.FlowNumbers) -> str:
    if numbers.kind == "none":
        return "no finished run"
    if numbers.kind == "backtest":
        return f"backtest {numbers.backtest}, candidate {numbers.candidate}, {plural(numbers.tasks, 'task')}"
    distinct = f" ({numbers.distinct_tasks:,} distinct)" if numbers.distinct_tasks != numbers.tasks else ""
    runs = f"run {numbers.runs[0]}" if numbers.kind == "run" else plural(len(numbers.runs), "run")
    return f"{runs}, {plural(numbers.tasks, 'task')}{distinct}"


def _row(node: beam_ray.FlowNode) -> list[object]:
    name, found = node.name, node.numbers
    if found is None:
        return [name, node.asks, "-", "", "", "", "", ""]
    interval = f"{found.low:.1f} … {found.high:.1f}" if found.low is not None and found.high is not None else ""
    changed = f"{found.change:+.1f}" if found.change is not None else ""
    if found.change_low is not None and found.change_high is not None:
        changed += f" ({found.change_low:+.1f} … {found.change_high:+.1f})"
    scored = found.scored or ""
    return [
        name if node.as_run else f"{name} *",
        node.asks,
        f"{found.score:.2f} %" if found.score is not None else "-",
        interval,
        found.passed if found.scored else "",
        scored,
        found.auto_reruns or "",
        changed,
    ]


def _show_list(place: Place) -> None:
    found = place.opened.flows()
    if place.as_json:
        emit([each.document() for each in found])
        return
    if not found:
        show("no workflow was published or run yet")
        return
    rows = [
        [
            each.workflow,
            f"version {each.published}" if each.published else "never",
            ", ".join(each.drafts),
            each.newest.id if each.newest else "",
            f"{each.success_rate:.1f} %" if each.success_rate is not None else "-",
            f"{each.passed} of {each.tasks}" if each.tasks else "",
            each.runs or "",
        ]
        for each in found
    ]
    show(table(["workflow", "published", "drafts", "newest run", "success rate", "passed", "runs"], rows, right=[4, 5, 6]))
