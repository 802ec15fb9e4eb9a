"""Pinned views of tasks: what was pinned, and whether it is still so."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from beam_ray import TASK_FILTERS
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site

if TYPE_CHECKING:
    from beam_ray import PinnedView

SHOWN = 200
"""Tasks that are named; more of them are behind the link to all."""
MOST_RUNS = 40
"""Runs that an address of a list can name."""


def pins(site: Site, path: str, fields: Fields) -> Page:
    """The list."""
    found = site.store.pins()
    document = [{"pin": each.id, "filters": each.filters, "note": each.note, "pinned_at": each.pinned_at, "numbers": each.numbers} for each in found]
    return Page("pins", "Pinned views", {"pins": found}, document, section="tasks", command=f"beam-ray pin{site.store.option}")


def pin(site: Site, path: str, fields: Fields) -> Page:
    """One of them."""
    view = site.store.pinned_view(path.rpartition("/")[2])
    found = site.store.list_tasks(replace(view.pin.query, limit=SHOWN))
    short = len(view.pin.runs) <= MOST_RUNS
    links = {status: _live(view, status) if short else "" for status in ("", "passed", "below", "failed", "review")}
    values: dict[str, Any] = {
        "view": view,
        "pin": view.pin,
        "tasks": found.tasks,
        "links": links,
        "now": f"/tasks?{view.pin.filters}" if view.pin.filters else "/tasks",
        "newer": [(run, count, with_query("/tasks", {**_filters(view), "run": run})) for run, count in list(view.newer.items())[:10]],
        "shown": SHOWN,
    }
    command = f"beam-ray pin {view.pin.id}{site.store.option}"
    return Page("pin", f"Pinned view {view.pin.id[:8]}", values, view.document(), section="tasks", command=command)


def _filters(view: PinnedView) -> dict[str, list[str]]:
    return parse_qs(view.pin.filters)


def _live(view: PinnedView, status: str) -> str:
    """The Tasks page with the tasks of the pinned runs alone; of a status, those of the view that have it."""
    where = view.pin.query.where + (" and review" if status == "review" else f" and status == '{status}'" if status else "")
    return with_query("/tasks", _filters(view) | {"where": [where]})


def create(site: Site, path: str, fields: Fields) -> str:
    """Pin the view that the form names; its page."""
    view = with_query("/tasks", {name: fields[name] for name in TASK_FILTERS if fields.get(name)})
    return f"/e/{site.store.pin(view, note=one(fields, 'note')).id}"
