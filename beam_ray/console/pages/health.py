"""Health of a workflow: warnings from its runs, each with the tasks behind it and what can be done about it."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from typing import TYPE_CHECKING, Any

from beam_ray.console.forms import Fields, one
from beam_ray.console.links import address_path, flow_path, health_path, run_path, with_query
from beam_ray.console.reading import RECENT_RUNS
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError

if TYPE_CHECKING:
    from beam_ray import Sign

FIELDS = ("runs",)
LINKED = 50
"""Tasks of a warning that an action takes; a link has its length."""
SHOWN = 10

TITLES = {
    "used_up": "Auto-reruns are used up",
    "auto_reruns": "Many tasks need auto-reruns",
    "uplift": "Auto-reruns may not improve scores",
    "seconds": "Tasks take longer than before",
}
"""Titles of warnings."""
SIGNS = {"used_up": "Used-up auto-reruns", "auto_reruns": "Tasks with auto-reruns", "uplift": "Improvement by auto-reruns", "seconds": "Execution time"}
"""Titles of what is watched."""


def health(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    name, every = path.split("/")[2], one(fields, "runs") == "all"
    found = site.reader.health(name, None if every else RECENT_RUNS)
    values: dict[str, Any] = {
        "name": name,
        "every": every,
        "recent": RECENT_RUNS,
        "health": found,
        "runs": [(run, run_path(run)) for run in found.runs],
        "warnings": [_warning(site, sign) for sign in found.warnings],
        "others": [sign for sign in found.signs if sign.word != "WARNING"],
        "titles": SIGNS,
        "flow": flow_path(name),
    }
    command = f"beam-ray health {shlex.quote(name)}{'' if every else f' --last {RECENT_RUNS}'}{site.store.option}"
    return Page("health", f"Health of {name}", values, found.document(), section="flows", command=command)


def _warning(site: Site, sign: Sign) -> dict[str, Any]:
    """A warning with its actions: first those that its commands name, then those that any tasks allow."""
    tasks = list(dict.fromkeys("/".join(address.split("/")[:2]) for address in sign.tasks))
    actions = [action for command in sign.commands if (action := _action(command)) is not None]
    if tasks:
        actions.append(("Re-run", "rerun", with_query("/rerun", {"task": tasks[:LINKED], "from": sign.node})))
        if not site.options.read_only:
            actions.append(("Add to library", "book", with_query("/add-to-library", {"task": tasks[:LINKED], "tests": sign.node})))
    return {
        "sign": sign,
        "title": TITLES.get(sign.rule, sign.rule),
        "actions": list(dict.fromkeys(actions)),
        "tasks": [(address, address_path(address)) for address in sign.tasks[:SHOWN]],
        "more": max(0, len(sign.tasks) - SHOWN),
        "left_out": max(0, len(tasks) - LINKED),
        "commands": [(" ".join(command.split()[:2]), f"{command}{site.store.option}") for command in sign.commands],
    }


def _action(command: str) -> tuple[str, str, str] | None:
    """The page on which the console does what a command does: its title, its icon and its address."""
    words = shlex.split(command)
    options = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
    match words[1:3]:
        case ["criteria", workflow]:
            return "Review the criteria", "check", flow_path(workflow, node=options.get("--node"))
        case ["optimise", task]:
            return "Optimise the prompt", "spark", address_path(task, step=options.get("--step"))
        case ["show", task]:
            return "Look at a task", "eye", address_path(task, step=options.get("--step"))
        case ["diff", version]:
            return "What changed", "compare", flow_path(version.partition("@")[0])
    return None


def warnings(site: Site, path: str, fields: Fields) -> Page:
    """The warnings of all workflows that were run, for the first page."""
    found: list[dict[str, Any]] = []
    for each in site.store.flows():
        if each.newest is None:
            continue
        try:
            made = site.reader.health(each.workflow)
        except BeamRayError:
            continue  # nothing was run with its newest definition
        found += [
            {"workflow": each.workflow, "path": health_path(each.workflow), "sign": sign, "title": TITLES.get(sign.rule, sign.rule)} for sign in made.warnings
        ]
    document = [{"workflow": each["workflow"], "rule": each["sign"].rule, "node": each["sign"].node, "found": each["sign"].found} for each in found]
    return Page("warnings", "Warnings of health", {"warnings": found}, document, section="home", command=f"beam-ray health WORKFLOW{site.store.option}")
