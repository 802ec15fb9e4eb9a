"""History of a workflow: how it did from day to day, and the ledger of its reruns."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from typing import TYPE_CHECKING, Any

from beam_ray.console.forms import Fields
from beam_ray.console.links import address_path, flow_path, history_path, run_path
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.console.trend_chart import TrendMark, trend_marks
from beam_ray.errors import Unusable

if TYPE_CHECKING:
    from beam_ray import TrendPoint

SHOWN = 200
"""Rows of a table."""


def history(site: Site, path: str, fields: Fields) -> Page:
    """The page: the ledger; the trend, which reads every run, comes after it."""
    name = _named(site, path)
    ledger = site.store.ledger(name)
    values: dict[str, Any] = {
        "name": name,
        "flow": flow_path(name),
        "trend_path": f"{history_path(name)}/trend",
        "ledger": ledger,
        "tables": [_table(table) for table in ledger.tables if table.rows],
    }
    command = f"beam-ray history {shlex.quote(name)}{site.store.option}"
    return Page("history", f"History of {name}", values, ledger.document(), section="flows", command=command)


def trend(site: Site, path: str, fields: Fields) -> Page:
    """How a workflow did from day to day."""
    name = _named(site, path)
    try:
        found, fault = site.reader.trend(name), ""
    except Unusable as error:
        found, fault = None, str(error)
    points = list(found.points) if found else []
    values: dict[str, Any] = {
        "name": name,
        "flow": flow_path(name),
        "history_path": history_path(name),
        "trend": found,
        "fault": fault,
        "charts": [(title, made) for title, made in _charts(points) if made],
        "points": points[-SHOWN:],
        "tables": [_table(table) for table in found.tables[1:] if table.rows] if found else [],
    }
    document = found.document() if found else {"refused": fault}
    command = f"beam-ray trend {shlex.quote(name)}{site.store.option}"
    return Page("trend", f"Trend of {name}", values, document, section="flows", command=command)


def _named(site: Site, path: str) -> str:
    name = path.split("/")[2]
    if name not in [each.workflow for each in site.store.flows()]:
        raise Unusable(f"there is no workflow {name!r}\n  beam-ray flow  lists them")
    return name


def _charts(points: list[TrendPoint]) -> list[tuple[str, list[TrendMark]]]:
    """Title and marks of each chart, in percent."""
    return [
        ("Success rate", trend_marks(points, [point.success for point in points])),
        ("Mean score", trend_marks(points, [point.score for point in points])),
    ]


def _table(table: Any) -> dict[str, Any]:
    """A table of a report; addresses and runs in it are links."""
    return {
        "title": table.title,
        "header": table.header,
        "right": table.right,
        "rows": [[(cell, _link(cell)) for cell in row] for row in table.rows[:SHOWN]],
        "count": len(table.rows),
    }


def _link(cell: str) -> str:
    head, slash, rest = cell.partition("/")
    if len(head) == 13 and head[6] == "-" and head[:6].isdecimal():
        return address_path(cell) if slash and rest else run_path(head)
    return ""
