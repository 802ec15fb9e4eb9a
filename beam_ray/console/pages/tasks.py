"""The Tasks page: the tasks of all runs, filtered, sorted and page by page."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
import shlex
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from beam_ray import TASK_FILTERS, task_query
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site

if TYPE_CHECKING:
    from beam_ray import TaskList, TaskQuery

FIELDS = (*TASK_FILTERS, "sort", "after", "before", "limit")

TABS = ("", "failing", "failed", "review", "running", "stopped", "passed")
TAB_NAMES = {
    "": "All",
    "failing": "Failing",
    "failed": "Errors",
    "review": "To review",
    "running": "Running",
    "stopped": "Stopped",
    "passed": "Passed",
    "below": "Below threshold",
}

COLUMNS = (
    ("task", "Task", "task"),
    ("status", "Status", ""),
    ("score", "Score", "score"),
    ("route", "Route and labels", ""),
    ("run", "Workflow and run", "run"),
    ("started", "Started", "started"),
    ("time", "Time", "seconds"),
    ("cost", "Cost", "usd"),
    ("auto", "Auto-reruns", "auto_reruns"),
)
"""Name, title and sort key of each column."""


@dataclass(frozen=True)
class Chip:
    """An active filter, and the address without it."""

    text: str
    without: str


@dataclass(frozen=True)
class Facet:
    """One value of a filter, with how many tasks have it."""

    value: str
    count: int
    chosen: bool
    link: str


def tasks(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    query = task_query(fields)
    found = site.reader.tasks(query, site.patience)
    kept = {name: values for name, values in fields.items() if name not in ("after", "before")}
    values: dict[str, Any] = {
        "found": found,
        "fields": {name: one(fields, name) for name in FIELDS},
        "columns": [_column(title, name, sort, kept, query.sort) for name, title, sort in COLUMNS],
        "tabs": _tabs(found, kept),
        "facets": {name: _facets(name, found, kept) for name in ("workflow", "version", "run", "route", "label")},
        "chips": filter_chips(kept),
        "next": with_query("/tasks", {**kept, "after": found.next}) if found.next else "",
        "previous": with_query("/tasks", {**kept, "before": found.previous}) if found.previous else "",
        "clear": "/tasks",
        "hidden": [(name, value) for name, all_values in kept.items() for value in all_values if name not in ("q",)],
        "filtered": any(name in kept for name in TASK_FILTERS),
        "bulk": _bulk(kept, found),
        "pin": [(name, value) for name in TASK_FILTERS for value in kept.get(name, ())],
    }
    document = {
        "tasks": [{name: value for name, value in row.items() if name != "output"} for row in found.tasks],
        "matching": found.matching,
        "total": found.total,
        "next": with_query("/tasks.json", {**kept, "after": found.next}) if found.next else None,
        "facets": {name: dict(counts) for name, counts in found.facets.items()},
        "unreadable": dict(found.unreadable),
    }
    going_on = dict(found.facets["status"]).get("running", 0) > 0 or found.unread > 0
    return Page("tasks", "Tasks", values, document, section="tasks", command=_command(site, query), live=going_on)


def _column(title: str, name: str, sort: str, kept: Fields, current: str) -> dict[str, Any]:
    """A column's head: where it can be sorted, the address that does it, and how it is sorted now."""
    way = "" if current.removeprefix("-") != sort or not sort else "descending" if current.startswith("-") else "ascending"
    if sort == "run":
        turned = "-run" if current == "run" else ""
    else:
        # what is worst, newest or dearest is looked for first
        first = sort if sort in ("score", "task") else f"-{sort}"
        other = first.removeprefix("-") if first.startswith("-") else f"-{first}"
        turned = other if current == first else first
    return {"name": name, "title": title, "way": way, "link": with_query("/tasks", {**kept, "sort": turned}) if sort else ""}


def _tabs(found: TaskList, kept: Fields) -> list[dict[str, Any]]:
    counts = dict(found.facets["status"])
    everything = sum(counts.get(name, 0) for name in ("passed", "below", "failed", "running", "stopped"))
    current = one(kept, "status")
    shown = [*TABS, *([current] if current not in TABS else [])]
    return [
        {
            "title": TAB_NAMES.get(name, name),
            "count": counts.get(name, 0) if name else everything,
            "link": with_query("/tasks", {**kept, "status": name}),
            "chosen": current == name,
        }
        for name in shown
        if counts.get(name, 0) or name in ("", "failing", "passed", "review") or current == name
    ]


def _facets(name: str, found: TaskList, kept: Fields) -> list[Facet]:
    chosen = kept.get(name, [])
    counted = list(found.facets[name])
    counted += [(value, 0) for value in chosen if value not in dict(counted)]
    facets = []
    for value, count in counted:
        if name == "label":
            others = [each for each in chosen if each != value]
            link = with_query("/tasks", {**kept, name: others if value in chosen else [*others, value]})
        else:
            link = with_query("/tasks", {**kept, name: "" if value in chosen else value})
        facets.append(Facet(value, count, value in chosen, link))
    return facets


def filter_chips(kept: Fields) -> list[Chip]:
    """The active filters."""
    titles = {"q": "text", "min_score": "score from", "max_score": "score to", "node": "not passed at", "criterion": "not met"}
    found = []
    for name in TASK_FILTERS:
        for value in kept.get(name, ()):
            others = [each for each in kept[name] if each != value]
            shown = TAB_NAMES.get(value, value) if name == "status" else value
            # without its run a node says nothing, nor a criterion without its node
            less = {"run": ("node", "criterion"), "node": ("criterion",)}.get(name, ())
            left = {key: value for key, value in kept.items() if key not in less}
            found.append(Chip(f"{titles.get(name, name)}: {shown}", with_query("/tasks", {**left, name: others})))
    return found


def _bulk(kept: Fields, found: TaskList) -> dict[str, Any]:
    """What can be done with all that match: a command can re-run tasks of one run, and save those of all."""
    one_run = one(kept, "run")
    able = {"run", "status", "label", "where", "sort", "limit"}
    ended = one(kept, "status") not in ("running", "stopped") and found.matching > 0
    rerun = bool(one_run) and set(kept) <= able and ended
    return {
        "link": with_query("/rerun", {name: kept.get(name) for name in ("run", "status", "label", "where")}) if rerun else "",
        "add": with_query("/add-to-library", {"all": "yes", **{name: kept.get(name) for name in TASK_FILTERS}}) if ended and "node" not in kept else "",
        "count": found.matching,
    }


def _command(site: Site, query: TaskQuery) -> str:
    """The command line that lists the same."""
    run = ["--run", query.run] if query.run else []
    sort = ["--sort", query.sort] if query.sort != "run" else []
    at = ["--node", query.node] if query.node else []
    at += ["--criterion", query.criterion] if query.criterion else []
    return shlex.join(["beam-ray", "tasks", *run, *filter_words(replace(query, run=None)), *at, *sort]) + site.store.option


def filter_words(query: TaskQuery) -> list[str]:
    """The options of the command line that choose the same tasks of all runs."""
    named = {
        "--status": query.status if query.status not in ("running", "stopped") else None,
        "--workflow": query.workflow,
        "--route": query.route,
        "--search": query.text,
        "--since": query.since,
        "--until": query.until,
    }
    words = [word for option, value in named.items() if value for word in (option, value)]
    words += [word for label in query.labels for word in ("--label", label)]
    conditions = [f"({query.where})"] if query.where else []
    conditions += [f"score >= {query.min_score:g}"] if query.min_score is not None else []
    conditions += [f"score <= {query.max_score:g}"] if query.max_score is not None else []
    conditions += [f"run_id == {json.dumps(query.run)}"] if query.run else []
    if query.version is not None:
        conditions.append(f"version == {query.version}" if query.version else "version is none")
    return [*words, "--where", " and ".join(conditions)] if conditions else words
