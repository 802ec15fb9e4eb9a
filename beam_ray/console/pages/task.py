"""The page of a task: its timeline, the panel of the chosen step, and where it comes from."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import beam_ray
from beam_ray.console.formatting import as_text
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import address_path, compare_path, optimise_path, task_of, task_path, what_if_path, with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.console.word_diff import word_diff
from beam_ray.errors import Unusable

FIELDS = ("task", "trial", "step", "tab", "attempt", "view")
VIEWS = ("sent", "template")
TABS = (
    ("output", "Output"),
    ("prompt", "Prompt"),
    ("input", "Input"),
    ("criteria", "Criteria"),
    ("attempts", "Attempts"),
    ("calls", "Calls"),
    ("record", "Record"),
)
LONG = 64_000
"""Characters of an output from which it is cut on the page; all of it is behind a link."""


@dataclass(frozen=True)
class Bar:
    """Where a step stands on the task's time axis, in percent of it."""

    start: float
    waited: float
    width: float


def task(site: Site, path: str, fields: Fields) -> Page | str:
    """The page."""
    if path.count("/") == 2 and not one(fields, "task"):
        return with_query("/tasks", {"run": path.rpartition("/")[2]})
    found = site.reader.task(task_of(path, fields))
    steps = found.steps
    chosen = _chosen(steps, one(fields, "step"), found)
    tab = one(fields, "tab", "output")
    if tab not in dict(TABS):
        raise Unusable(f"a step has no tab {tab[:60]!r}\n  it has: {', '.join(name for name, _ in TABS)}")
    run, outcome = found.run, found.outcome
    family = site.store.task_family(found.address)
    origin = next((row for row in family if row["task"] == found.origin), None)
    tabs = [
        {"name": name, "key": key, "title": title, "chosen": name == tab, "link": _link(found, step=chosen.node, tab=name), "count": _count(name, chosen)}
        for key, (name, title) in enumerate(TABS, 1)
        if chosen and _has_tab(name, chosen)
    ]
    values: dict[str, Any] = {
        "task": found,
        "run": run,
        "status": found.status if outcome or _goes_on(site, run) else "stopped",
        "outcome": outcome,
        "given": found.given,
        "query": _query(found),
        "steps": [_timeline_row(found, step, chosen, bar) for step, bar in zip(steps, _bars(steps), strict=True)],
        "done": sum(step.outcome in ("done", "borrowed") for step in steps),
        "nodes": len(run.workflow.order),
        "chosen": chosen,
        "tab": tab,
        "tabs": tabs,
        "panel": _panel(site, found, chosen, tab, fields) if chosen else {},
        "family": family,
        "origin": origin,
        "compare": compare_path(origin["task"], found.address) if origin else "",
        "rerun": with_query("/rerun", {"task": found.address}) if run.finished else "",
        "rerun_here": with_query("/rerun", {"task": found.address, "from": chosen.node}) if run.finished and chosen and chosen.outcome != "skipped" else "",
        "what_if": what_if_path(found.address, chosen.node) if run.finished and chosen and chosen.ran and chosen.definition.call else "",
        "optimise": _optimise(found, chosen) if chosen else None,
        "attachments": [
            (each, with_query("/download", {"task": found.address, "attachment": n})) for n, each in enumerate(found.given["attachments"] or (), 1)
        ],
    }
    words = f"beam-ray show {shlex.quote(found.address)}" + (f" --step {chosen.node}" if chosen and one(fields, "step") else "") + site.store.option
    document: dict[str, Any] = {**found.document(), "task_query": found.given["task_query"], "family": [row["task"] for row in family]}
    if chosen and one(fields, "step"):
        document["steps"] = [chosen.document()]
        if chosen.definition.call:
            document["prompt"] = [{"role": turn.role, "text": turn.text} for turn in found.prompt(chosen.node, _attempt(chosen, fields)).turns]
    return Page("task", found.id, values, document, section="tasks", command=words, live=not run.finished)


def panels(site: Site, task: beam_ray.Task, tabs: Sequence[str]) -> list[dict[str, Any]]:
    """What the template's block ``tab_body`` uses, for each of these tabs of each step that says something."""

    def says(tab: str, step: beam_ray.Step) -> bool:
        has = {"output": True, "criteria": bool(step.criteria), "attempts": len(step.attempts) > 1}
        return _has_tab(tab, step) and has.get(tab, step.ran)

    return [
        {"chosen": step, "tab": tab, "title": dict(TABS)[tab], "panel": _panel(site, task, step, tab, {})}
        for step in task.steps
        for tab in tabs
        if says(tab, step)
    ]


def _has_tab(name: str, step: beam_ray.Step) -> bool:
    """A tool has no prompt, and only agents and programs make calls of their own."""
    if name == "prompt":
        return step.definition.call is not None
    return name != "calls" or step.definition.records_calls


def _goes_on(site: Site, run: beam_ray.Run) -> bool:
    return site.store.progress(run.id).state == "running"


def _chosen(steps: tuple[beam_ray.Step, ...], node: str, task: beam_ray.Task) -> Any:
    """The step that is shown: the one asked for, else the first that did not go well, else the last with an output."""
    if node:
        return task.step(node)
    wrong = next((step for step in steps if step.outcome == "failed" or step.passed is False), None)
    return wrong or next((step for step in reversed(steps) if step.ran), steps[0] if steps else None)


def _link(task: beam_ray.Task, **query: Any) -> str:
    return task_path(task.run.id, task.id, task.trial, **query)


def _count(tab: str, step: beam_ray.Step) -> str:
    if tab == "criteria" and step.criteria:
        return f"{sum(item.met is True for item in step.criteria)}/{len(step.criteria)}"
    return str(len(step.attempts)) if tab == "attempts" and len(step.attempts) > 1 else ""


def _query(task: beam_ray.Task) -> str:
    given = task.given
    if not given["query_is_json"]:
        return given["task_query"]
    import json

    return json.dumps(json.loads(given["task_query"]), ensure_ascii=False, indent=2)


def _bars(steps: tuple[beam_ray.Step, ...]) -> list[Bar | None]:
    """One bar for each step that was executed; a run's borrowed and skipped steps took no time."""
    ran = [step for step in steps if step.outcome in ("done", "failed") and step.record["started_at"]]
    if not ran:
        return [None] * len(steps)
    begin = min(step.record["started_at"] for step in ran)
    whole = max((max(step.record["ended_at"] for step in ran) - begin).total_seconds(), 1e-6)
    bars: list[Bar | None] = []
    for step in steps:
        if step not in ran:
            bars.append(None)
            continue
        start = 100 * (step.record["started_at"] - begin).total_seconds() / whole
        width = 100 * (step.record["ended_at"] - step.record["started_at"]).total_seconds() / whole
        bars.append(Bar(round(start, 2), round(min(100 * (step.record["waited"] or 0.0) / whole, width), 2), round(max(width, 0.6), 2)))
    return bars


def _timeline_row(task: beam_ray.Task, step: beam_ray.Step, chosen: Any, bar: Bar | None) -> dict[str, Any]:
    status = step.outcome
    if step.ran and step.passed is not None:
        status = "passed" if step.passed else "below"
    if step.ran and step.passed is None:
        status = "unscored" if step.threshold is not None else "done"
    return {
        "step": step,
        "status": status,
        "title": step.title,
        "asks": step.model or step.definition.program or "",
        "kind": step.definition.kind,
        "link": _link(task, step=step.node),
        "chosen": chosen is not None and step.node == chosen.node,
        "bar": bar,
        "borrowed": address_path(step.borrowed_from) if step.borrowed_from else "",
    }


def _optimise(task: beam_ray.Task, step: beam_ray.Step) -> dict[str, str]:
    """The page that proposes a better prompt, or why there is none."""
    why = step.not_optimisable if task.run.finished else "its run is not finished"
    return {"why": why, "link": "" if why else optimise_path(task.address, step.node)}


def _attempt(step: beam_ray.Step, fields: Fields) -> int:
    written = one(fields, "attempt")
    last = len(step.attempts) or 1
    if written and not (written.isdecimal() and 1 <= int(written) <= last):
        raise Unusable(f"the step has no attempt {written[:20]!r}; it has {last}")
    return int(written) if written else last


def _panel(site: Site, task: beam_ray.Task, step: beam_ray.Step, tab: str, fields: Fields) -> dict[str, Any]:
    """What the chosen tab shows."""
    if tab == "prompt" and step.definition.call:
        number = _attempt(step, fields)
        view = one(fields, "view", "sent")
        if view not in VIEWS:
            raise Unusable(f"a prompt has no view {view[:60]!r}\n  it has: {', '.join(VIEWS)}")
        views = {"view": view, "sent_link": _link(task, step=step.node, tab=tab), "template_link": _link(task, step=step.node, tab=tab, view="template")}
        if view == "template":
            return {**views, "template": _template(task, step)}
        links = [(each.number, _link(task, step=step.node, tab=tab, attempt=each.number), each.number == number) for each in step.attempts]
        return {**views, "prompt": task.prompt(step.node, number), "attempts": links if len(links) > 1 else []}
    if tab == "input":
        upstream = [each for each in task.steps if each.node in task.run.workflow.upstream[step.node]]
        return {"upstream": [(each, _link(task, step=each.node)) for each in upstream]}
    if tab == "attempts":
        return {"attempts": _attempts(step)}
    if tab == "calls":
        return {"calls": task.calls(step.node)}
    if tab == "record":
        return {"record": {name: value for name, value in step.record.items() if value is not None}}
    fields_of = step.output if isinstance(step.output, dict) and list(step.output) != ["text"] else None
    return {"fields": fields_of, "cut": LONG, "download": with_query("/download", {"task": task.address, "step": step.node})}


def _template(task: beam_ray.Task, step: beam_ray.Step) -> list[dict[str, Any]]:
    """The turns of the template; a tag that takes in another step's output leads to that step."""
    order = task.run.workflow.order

    def link(names: tuple[str, ...]) -> str:
        node = next((name.partition(".")[0] for name in names if name.partition(".")[0] in order), "")
        return _link(task, step=node) if node else ""

    return [{"role": turn.role, "parts": [(part.text, part.names, link(part.names)) for part in turn.parts]} for turn in step.template]


def _attempts(step: beam_ray.Step) -> list[dict[str, Any]]:
    """Each attempt, with what is different from the one before."""
    found: list[dict[str, Any]] = []
    before = None
    for each in step.attempts:
        text = as_text(each.output) if each.output is not None else ""
        unmet = [item for item in each.criteria if item.met is False]
        found.append({"attempt": each, "pieces": word_diff(before, text) if before is not None else None, "text": text, "unmet": unmet})
        before = text
    return found
