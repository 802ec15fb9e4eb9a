"""Runs: their list, and the page of one with its progress while it goes on."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from typing import Any

import beam_ray
from beam_ray.console.commands import budget_words, new_key
from beam_ray.console.forms import Fields, one, raised
from beam_ray.console.links import run_path, with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

LISTED = 200
"""Runs on the list."""


def runs(site: Site, path: str, fields: Fields) -> Page:
    """The list."""
    every = site.reader.runs()
    listed = every[:LISTED]
    progress = {run.id: site.store.progress(run.id) for run in listed if not run.finished}
    document = [{**run.document(), "created_at": run.created_at, "state": progress[run.id].state if run.id in progress else "finished"} for run in listed]
    values = {"runs": listed, "progress": progress, "total": len(every)}
    return Page("runs", "Runs", values, document, section="runs", command=f"beam-ray tasks{site.store.option}", live=bool(progress))


def run(site: Site, path: str, fields: Fields) -> Page:
    """One run."""
    found = site.reader.run(path.rpartition("/")[2])
    progress = site.store.progress(found.id)
    record = found.record
    numbers = found.summary
    values: dict[str, Any] = {
        "run": found,
        "record": record,
        "progress": progress,
        "numbers": numbers,
        "nodes": found.nodes,
        "statuses": _statuses(found),
        "reruns": [each for each in site.reader.runs() if each.record.origin == found.id],
        "backtests": [each for each in site.reader.backtests() if any(found.id == side.id for side in each.runs)],
        "side_of": record.backtest if not found.finished and record.backtest in site.store.unfinished_backtests() else "",
        "key": new_key(),
        "resuming": next((each for each in site.commands.all() if each.code is None and found.id in each.runs), None),
        "rate": progress.calls / progress.seconds if progress.seconds else 0.0,
    }
    document = {**found.document(), "progress": progress.document(), "created_at": found.created_at, "origin": record.origin, "because": record.because}
    command = f"beam-ray tasks --run {found.id}{site.store.option}"
    return Page("run", f"Run {found.id}", values, document, section="runs", command=command, live=progress.state != "finished")


def _statuses(run: beam_ray.Run) -> list[tuple[str, int, str]]:
    """Each status with how many tasks have it, and the list of them."""
    numbers = run.summary
    counted = [("passed", numbers["passed"]), ("below", numbers["below"]), ("failed", numbers["failed"])]
    waiting = run.record.rows - numbers["rows"]
    if waiting > 0:
        counted.append(("waiting", waiting))
    return [(name, count, with_query("/tasks", {"run": run.id, "status": name if name != "waiting" else ""})) for name, count in counted]


def stop(site: Site, path: str, fields: Fields) -> str:
    """Ask a run's driver to stop; the run's page."""
    run_id = path.split("/")[2]
    try:
        site.store.stop(run_id)
    except Unusable as error:
        if "finished" not in str(error):
            raise
    return run_path(run_id)


def resume(site: Site, path: str, fields: Fields) -> str:
    """Resume a run by its command; the command's page."""
    found = site.reader.run(path.split("/")[2])
    if found.finished:
        raise Unusable(f"run {found.id} is finished; there is nothing to resume")
    budget = raised(f"run {found.id}", site.store.progress(found.id).used_up, found.record.budget, fields)
    limits = site.commands.within(budget, _spent(site, found))
    if budget != found.record.budget and not limits:
        limits = budget_words(budget)
    site.commands.start(one(fields, "key"), ["resume", found.id, *limits], f"Resume run {found.id}").runs[found.id] = None
    return run_path(found.id)


def _spent(site: Site, found: beam_ray.Run) -> float | None:
    """US dollars that an unfinished run has spent; None where one of its models has no price."""
    priced = {each.name for each in site.store.list_models() if each.price_source}
    return site.store.progress(found.id).usd or 0.0 if priced.issuperset(found.workflow.models) else None
