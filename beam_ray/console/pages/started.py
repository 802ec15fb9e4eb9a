"""The page of a command that was started here: its progress, then what it changed."""

from typing import Any

import beam_ray
from beam_ray.console.forms import Fields
from beam_ray.console.links import compare_path
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

SHOWN = 100


def command(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    found = site.commands.get(path.rpartition("/")[2])
    run_ids = found.find_runs(site.store)
    code = found.code
    progress = [site.store.progress(run_id) for run_id in run_ids]
    result = found.result if code is not None else None
    documents = [each for each in (result if isinstance(result, list) else [result]) if isinstance(each, dict)]
    redone = [each for document in documents for each in document.get("tasks_redone", ())]
    changes = [_change(site, each) for each in redone[:SHOWN]]
    # the exit code of a backtest is its verdict
    verdict = next((each for each in documents if "backtest_id" in each and "word" in each), None)
    values: dict[str, Any] = {
        "started": found,
        "progress": progress,
        "code": code,
        "verdict": verdict,
        "state": "running" if code is None else "finished" if code == 0 or verdict else "stopped" if code in (3, 130, 143) else "failed",
        "changes": changes,
        "more": max(0, len(redone) - SHOWN),
        "counts": {word: sum(each["word"] == word for each in redone) for word in ("solved", "not solved", "still passes", "newly failing", "what-if")},
        "messages": found.messages,
        "command": f"{found.line}{site.option}",
        "plan_steps": sum(node.run + node.borrow + node.rescore for plan in found.plans for node in plan.nodes),
    }
    document = {"command": values["command"], "exit_code": code, "runs": [each.document() for each in progress], "result": result}
    return Page("started", found.about, values, document, section="runs", command=values["command"], live=code is None)


def _change(site: Site, change: dict[str, Any]) -> dict[str, Any]:
    """A rerun task, before and after, with the criteria that changed."""
    try:
        after = site.store.task(change["task"])
        before = site.store.task(after.origin) if after.origin else None
    except Unusable:
        return {**change, "flipped": [], "compare": ""}
    return {**change, "flipped": flipped(before, after) if before else [], "compare": compare_path(before.address, after.address) if before else ""}


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
