"""The page of a rerun: each of its tasks before and after, as far as they are done."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from collections.abc import Mapping
from typing import Any

import beam_ray
from beam_ray.console.forms import Fields
from beam_ray.console.links import compare_path, draft_test_path
from beam_ray.console.pages.compare import step_pairs
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

SHOWN = 100
MORE = 20
"""Tasks that a draft is tried on after one: enough for a first test."""
WORDS = ("solved", "not solved", "still passes", "newly failing", "what-if")


def rerun(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    found = site.store.get_rerun(path.rpartition("/")[2])
    progress = site.store.progress(found.id)
    record = found.run.record
    changes = [change_of(site, each) for each in found.changes[:SHOWN]]
    values: dict[str, Any] = {
        "rerun": found,
        "run": found.run,
        "record": record,
        "progress": progress,
        "changes": changes,
        "more": max(0, len(found.changes) - SHOWN),
        "counts": {word: sum(each["word"] == word for each in found.changes) for word in WORDS},
        "steps": steps_of(site, changes) if len(found.changes) == 1 else [],
        "different": site.store.diff(found.origin.workflow, found.run.workflow),
        "draft": draft_of(site, found.run),
    }
    values["try_more"] = try_more(site, values["draft"], found.origin)
    title = f"Rerun of {changes[0]['task_id']}" if record.tasks == 1 and changes else f"Rerun of {record.tasks:,} task{'s'[: record.tasks != 1]}"
    command = f"beam-ray show {shlex.quote(found.changes[0]['task'] if found.changes else found.id)}{site.store.option}"
    document = {**found.document(), "state": progress.state}
    return Page("reruns", title, values, document, section="runs", command=command, live=not found.run.finished)


def change_of(site: Site, change: Mapping[str, Any]) -> dict[str, Any]:
    """A rerun task, before and after, with the criteria that changed."""
    try:
        after = site.reader.named_task(change["task"])
        before = site.store.task(after.origin) if after.origin else None
    except Unusable:
        return {**change, "task_id": change["task"].rpartition("/")[2], "flipped": [], "compare": "", "origin": ""}
    found = {"flipped": flipped(before, after), "compare": compare_path(before.address, after.address), "origin": before.address} if before else {}
    return {"flipped": [], "compare": "", "origin": "", **change, "task_id": after.id, **found}


def steps_of(site: Site, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps of the only task whose output or criteria differ, with what differs."""
    if not changes or not changes[0]["origin"]:
        return []
    return [row for row in step_pairs(*(site.reader.named_task(changes[0][name]) for name in ("origin", "task"))) if row["differs"]]


def flipped(before: beam_ray.Task, after: beam_ray.Task) -> list[dict[str, Any]]:
    """The criteria that held on one side and not on the other."""
    old = {(step.node, item.id): item for step in before.steps for item in step.criteria}
    found = []
    for step in after.steps:
        for item in step.criteria:
            was = old.get((step.node, item.id))
            if was is not None and was.met is not item.met:
                found.append({"node": step.node, "text": item.text, "before": was.met, "after": item.met, "reason": item.reason})
    return found


def draft_of(site: Site, run: beam_ray.Run) -> str:
    """The stored draft that the run was made with, as ``NAME@DRAFT:N``; empty where its newest revision is another one."""
    if run.version is not None:
        return ""
    found = site.reader.draft_defined_as(run.record.workflow, run.record.definition_digest)
    return found.reference if found else ""


def try_more(site: Site, draft: str, origin: beam_ray.Run) -> dict[str, Any]:
    """How many tasks of the original run a draft is tried on next, and the form of that backtest; empty where it is not in the store."""
    if not draft:
        return {}
    # the published version has run the tasks of a candidate as its baseline, so that nothing is paid for again
    if origin.record.mode == "candidate" and origin.record.origin:
        origin = site.reader.run(origin.record.origin)
    count = min(MORE, origin.record.tasks)
    return {
        "count": count,
        "link": draft_test_path(origin.record.workflow, draft, tasks=f"run:{origin.id}", limit=count if count < origin.record.tasks else ""),
    }
