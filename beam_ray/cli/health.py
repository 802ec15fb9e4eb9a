"""health: warnings about a workflow from its runs."""

import datetime

import click

from beam_ray.cli.options import Place, reads_store
from beam_ray.cli.screen import emit, plural, show, table

SHOWN = 5
"""Tasks named below a warning; --json has them all."""

TITLES = {
    "used_up": "uses all its auto-reruns",
    "auto_reruns": "tasks with auto-reruns",
    "uplift": "gain from auto-reruns",
    "seconds": "execution time per task",
}


@click.command()
@click.argument("workflow")
@click.option("--rules", "rules_file", metavar="FILE", help="File of warning rules; configs/health.yaml has the defaults.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the N newest runs.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="Only runs from this day on (UTC), e.g. 2026-11-23.")
@reads_store
def health(workflow: str, rules_file: str | None, last: int | None, since: datetime.datetime | None, place: Place) -> None:
    """Show warnings from the finished runs of WORKFLOW, a published NAME[@VERSION] or a file."""
    found = place.opened.health(workflow, rules=rules_file, since=f"{since:%Y-%m-%d}" if since else "", last=last)
    if place.as_json:
        emit(found.document())
        return
    which = f"version {found.version}" if found.version else "draft"
    distinct = f" ({found.distinct_tasks:,} distinct)" if found.distinct_tasks != found.tasks else ""
    show(
        f"{found.workflow} {which} · {plural(found.tasks, 'task')}{distinct} in {plural(len(found.runs), 'run')}, {found.passed:,} passed · rules {found.rules}"
    )
    rows = [[TITLES[sign.rule], sign.node, sign.found, sign.allowed, sign.word] for sign in found.signs]
    show(table(["sign", "step", "observed", "limit", ""], rows, width=90))
    if not found.has_auto_reruns:
        show("  no step has auto-reruns")
    if found.model_unavailable:
        show(f"  {plural(found.model_unavailable, 'task')} left out because a model did not answer, which is not the workflow's fault")
    for sign in found.warnings:
        show()
        show(f"WARNING: {sign.node + ': ' if sign.node else ''}{TITLES[sign.rule]}: {sign.found}")
        if sign.tasks:
            more = f" and {len(sign.tasks) - SHOWN:,} more" if len(sign.tasks) > SHOWN else ""
            show(f"  tasks: {', '.join(sign.tasks[:SHOWN])}{more}")
        show(f"  {sign.advice}")
        for command in sign.commands:
            show(f"    {command}{place.option}")
    if not found.warnings:
        show("no warnings")
