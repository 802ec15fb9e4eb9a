"""health: signs that a workflow needs a person."""

import datetime
from pathlib import Path

import click

from beam_ray.cli.screen import emit, existing, show, store_options, store_words, table

SHOWN = 5
"""Tasks named below a warning; --json has them all."""

TITLES = {
    "used_up": "uses all its auto-reruns",
    "auto_reruns": "tasks with auto-reruns",
    "uplift": "what auto-reruns bring",
    "seconds": "execution time per task",
}


@click.command()
@click.argument("workflow")
@click.option("--rules", "rules_file", metavar="FILE", help="When to warn; configs/health.yaml has the defaults.")
@click.option("--last", type=click.IntRange(min=1), metavar="N", help="Only the N newest runs.")
@click.option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="Only runs from this day on (UTC), as in 2026-11-23.")
@store_options
def health(workflow: str, rules_file: str | None, last: int | None, since: datetime.datetime | None, store: str, as_json: bool) -> None:
    """Say what the finished runs of WORKFLOW's current version warn of: a published NAME[@VERSION], or a file."""
    from beam_ray.compare.formatting import plural
    from beam_ray.improve.health import health as look
    from beam_ray.improve.health_rules import DEFAULT_RULES, load_rules
    from beam_ray.publish import find_workflow
    from beam_ray.run.plan import load_workflow

    rules = load_rules(Path(rules_file)) if rules_file else DEFAULT_RULES
    objects = existing(store)
    file, published = find_workflow(objects, workflow)
    # only read here, so its tools need not be where this command is given
    definition, version = (published.plan, published.version) if published else (load_workflow(file)[0], None)  # type: ignore[arg-type]
    found = look(objects, definition, version, rules=rules, since=f"{since:%Y-%m-%d}" if since else "", last=last)
    if as_json:
        emit(found.document())
        return
    which = f"version {version}" if version else "draft"
    again = f" ({found.different:,} different)" if found.different != found.tasks else ""
    show(f"{found.workflow} {which} · {plural(found.tasks, 'task')}{again} in {plural(len(found.runs), 'run')}, {found.passed:,} passed · rules {rules.name}")
    show(
        table(["sign", "step", "found", "allowed", ""], [[TITLES[sign.rule], sign.node, sign.found, sign.allowed, sign.word] for sign in found.signs], width=90)
    )
    if not any(node.auto_rerun for node in definition.nodes.values()):
        show("  no step has auto-reruns")
    if found.model_away:
        show(f"  set aside: {plural(found.model_away, 'task')} for which a model did not answer; that is no fault of the workflow")
    for sign in found.warnings:
        show()
        show(f"WARNING: {sign.node + ': ' if sign.node else ''}{TITLES[sign.rule]}: {sign.found}")
        if sign.tasks:
            more = f" and {len(sign.tasks) - SHOWN:,} more" if len(sign.tasks) > SHOWN else ""
            show(f"  tasks: {', '.join(sign.tasks[:SHOWN])}{more}")
        show(f"  {sign.advice}")
        for command in sign.commands:
            show(f"    {command}{store_words(store)}")
    if not found.warnings:
        show("no warning")
