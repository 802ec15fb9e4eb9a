"""The page of a command that was started here: its progress, then what it changed."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from typing import Any

from beam_ray.console.forms import Fields
from beam_ray.console.links import rerun_path
from beam_ray.console.pages.add_to_library import changed_path
from beam_ray.console.pages.reruns import SHOWN, WORDS, change_of
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable


def command(site: Site, path: str, fields: Fields) -> Page | str:
    """The page; that of its rerun once that is done."""
    found = site.commands.get(path.rpartition("/")[2])
    run_ids = found.find_runs(site.store)
    code = found.code
    if code == 0 and found.command == "rerun" and len(run_ids) == 1:
        return rerun_path(run_ids[0])
    progress = [site.store.progress(run_id) for run_id in run_ids]
    result = found.result if code is not None else None
    redone = [each for document in found.documents for each in document.get("tasks_redone", ())]
    changes = [change_of(site, each) for each in redone[:SHOWN]]
    # the exit code of a backtest is its verdict
    verdict = next((each for each in found.documents if "backtest_id" in each and "word" in each), None) or _verdict_of_job(site, found.documents)
    values: dict[str, Any] = {
        "started": found,
        "progress": progress,
        "code": code,
        "verdict": verdict,
        "library": changed_path(result),
        "state": "running" if code is None else "finished" if code == 0 or verdict else "stopped" if code in (3, 130, 143) else "failed",
        "changes": changes,
        "more": max(0, len(redone) - SHOWN),
        "counts": {word: sum(each["word"] == word for each in redone) for word in WORDS},
        "messages": found.messages,
        "command": f"{found.line}{site.option}",
        "plan_steps": sum(node.run + node.borrow + node.rescore for plan in found.plans for node in plan.nodes),
    }
    document = {"command": values["command"], "exit_code": code, "runs": [each.document() for each in progress], "result": result}
    return Page("started", found.about, values, document, section="runs", command=values["command"], live=code is None)


def _verdict_of_job(site: Site, documents: list[dict[str, Any]]) -> dict[str, Any] | None:
    """What a page says of the backtest that a Ray job ended; None where it ended without a verdict."""
    name = next((each["backtest_id"] for each in documents if each.get("backtest_id") and "submission" in each), None)
    try:
        verdict = site.store.verdict(name) if name else None
    except Unusable:
        return None
    return {"backtest_id": verdict.id, "word": verdict.word, "name": verdict.document()["name"]} if verdict else None
