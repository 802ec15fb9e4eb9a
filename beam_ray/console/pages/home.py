"""The first page: what goes on, what needs somebody, what is newest."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import datetime
from collections import Counter
from typing import Any

from beam_ray import TaskQuery
from beam_ray.console.forms import Fields
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

NEWEST = 8
SPEND_DAYS = 7


def home(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    store, reader = site.store, site.reader
    runs = reader.runs()
    unfinished = reader.unfinished()
    verdicts = reader.backtests()
    everything = reader.tasks(TaskQuery(limit=1), site.patience)
    counts = dict(everything.facets["status"])
    since = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=SPEND_DAYS)).isoformat()
    recent = [run for run in runs if run.created_at >= since and run.finished]
    spend = sum(run.usd or 0.0 for run in recent)
    values: dict[str, Any] = {
        "unfinished": unfinished,
        "verdicts": verdicts[:NEWEST],
        "verdict_count": len(verdicts),
        "runs": [run for run in runs if run.finished][:NEWEST],
        "run_count": len(runs),
        "workflows": [_workflow(site, name, count) for name, count in everything.facets["workflow"]],
        "counts": counts,
        "total": everything.total,
        "spend": spend,
        "unpriced": sum(run.usd is None for run in recent),
        "spend_days": SPEND_DAYS,
        "unreadable": everything.unreadable,
        "unread": everything.unread,
        "blocked": [each for each in verdicts[:NEWEST] if each.word in ("BLOCK", "INCONCLUSIVE")],
    }
    document = {
        "running": [each.document() for each in unfinished],
        "backtests": [
            {"backtest_id": each.id, "workflow": each.workflow, "word": each.word, "finished_at": each.document()["finished_at"]} for each in verdicts[:NEWEST]
        ],
        "runs": [run.document() for run in values["runs"]],
        "workflows": [{key: value for key, value in each.items() if key != "run"} for each in values["workflows"]],
        "tasks": counts,
        "usd_of_7_days": spend,
        "unreadable": dict(everything.unreadable),
    }
    return Page("home", "Home", values, document, section="home", command=f"beam-ray tasks{store.option}", live=bool(unfinished or everything.unread))


def _workflow(site: Site, name: str, tasks: int) -> dict[str, Any]:
    """A workflow with its published version and how its newest run did."""
    runs = [run for run in site.reader.runs() if run.finished and run.record.workflow == name]
    # a rerun of two tasks says nothing of the workflow
    runs = [run for run in runs if run.record.mode == "run"] or runs
    newest = runs[0] if runs else None
    try:
        versions = site.store.versions(name)
    except Unusable:
        versions = []
    history = [run.passed / max(run.summary["rows"], 1) for run in reversed(runs[:10])]
    return {
        "name": name,
        "published": versions[0].number if versions else None,
        "tasks": tasks,
        "runs": len(runs),
        "run_id": newest.id if newest else None,
        "run": newest,
        "passed": newest.passed if newest else None,
        "rows": newest.summary["rows"] if newest else None,
        "success_rate": 100 * newest.passed / max(newest.summary["rows"], 1) if newest else None,
        "history": history,
        "modes": dict(Counter(run.record.mode for run in runs)),
    }
