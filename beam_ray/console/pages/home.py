"""The first page: what needs somebody, what goes on, how each workflow does, what is newest."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import datetime
from typing import Any

import beam_ray
from beam_ray import TaskQuery
from beam_ray.console.charts import sparkline
from beam_ray.console.commands import new_key
from beam_ray.console.forms import Fields
from beam_ray.console.links import backtest_path, flow_path, health_path, history_path, run_path
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site

NEWEST = 8
SPEND_DAYS = 7


def home(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    store, reader = site.store, site.reader
    runs = reader.runs()
    unfinished = reader.unfinished()
    verdicts = reader.backtests()
    unsettled = reader.unsettled()
    everything = reader.tasks(TaskQuery(limit=1), site.patience)
    counts = dict(everything.facets["status"])
    since = (datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=SPEND_DAYS)).isoformat()
    recent = [run for run in runs if run.created_at >= since and run.finished]
    spend = sum(run.usd or 0.0 for run in recent)
    to_review = store.tasks_to_review(patience=0.0)  # of the runs that were read for the list above
    tasks_of = dict(everything.facets["workflow"])
    running, stopped = ([each for each in unfinished if each.state == state] for state in ("running", "stopped"))
    values: dict[str, Any] = {
        "running": running,
        "stopped": [(each, new_key()) for each in stopped],
        "side_of": _sides(site, runs, {each.id for each in verdicts}),
        "verdicts": verdicts[:NEWEST],
        "verdict_count": len(verdicts),
        "unsettled": [(each, backtest_path(each.id)) for each in unsettled],
        "runs": [run for run in runs if run.finished][:NEWEST],
        "run_count": len(runs),
        "workflows": [_workflow(each, tasks_of.get(each.workflow, 0)) for each in store.flows()],
        "counts": counts,
        "to_review": to_review,
        "total": everything.total,
        "spend": spend,
        "unpriced": sum(run.usd is None for run in recent),
        "spend_days": SPEND_DAYS,
        "unreadable": everything.unreadable,
        "unread": everything.unread,
    }
    document = {
        "running": [each.document() for each in unfinished],
        "unsettled_backtests": [each.id for each in unsettled],
        "to_review": to_review,
        "backtests": [
            {"backtest_id": each.id, "workflow": each.workflow, "word": each.word, "finished_at": each.document()["finished_at"]} for each in verdicts[:NEWEST]
        ],
        "runs": [run.document() for run in values["runs"]],
        "workflows": [each["flow"].document() for each in values["workflows"]],
        "tasks": counts,
        "usd_of_7_days": spend,
        "unreadable": dict(everything.unreadable),
    }
    return Page("home", "Home", values, document, section="home", command=f"beam-ray tasks{store.option}", live=bool(unfinished or everything.unread))


def _sides(site: Site, runs: list[beam_ray.Run], finished: set[str]) -> dict[str, str]:
    """Unfinished runs that are sides of a backtest without a verdict: it is what is resumed."""
    sides = {run.id: run.record.backtest for run in runs if run.record.backtest and not run.finished}
    open_ones = set(site.store.unfinished_backtests(finished)) if sides else set()
    return {run: backtest for run, backtest in sides.items() if backtest in open_ones}


def _workflow(flow: beam_ray.FlowSummary, tasks: int) -> dict[str, Any]:
    return {
        "flow": flow,
        "tasks": tasks,
        "path": flow_path(flow.workflow),
        "health": health_path(flow.workflow),
        "history": history_path(flow.workflow),
        "run": run_path(flow.newest.id) if flow.newest else "",
        "spark": sparkline([share / 100 for share in flow.history]),
    }
