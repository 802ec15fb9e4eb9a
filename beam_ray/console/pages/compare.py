"""Two records of a task side by side, step by step, opened where they first differ."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
import shlex
from typing import Any

import beam_ray
from beam_ray.console.formatting import as_text
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import address_path, compare_path, with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.console.word_diff import Piece, word_diff
from beam_ray.errors import Unusable

FIELDS = ("a", "b", "task")


def compare(site: Site, path: str, fields: Fields) -> Page | str:
    """The page of two addresses; one ticked task is compared with what it reruns, two with each other."""
    ticked = fields.get("task", [])
    if ticked:
        return _of_ticked(site, ticked)
    before, after = one(fields, "a"), one(fields, "b")
    if not before or not after:
        raise Unusable("name two records of a task\n  the address is /compare?a=RUN/TASK&b=RUN/TASK")
    return compared(site, _address(site, before), _address(site, after))


def _address(site: Site, word: str) -> beam_ray.Address:
    found = site.store.task(word)
    return beam_ray.Address(found.run.id, found.id, found.trial)


def _of_ticked(site: Site, ticked: list[str]) -> str:
    if len(ticked) > 2:
        raise Unusable(f"two tasks can be compared, not {len(ticked)}")
    if len(ticked) == 2:
        first, second = sorted((site.store.task(word) for word in ticked), key=lambda task: task.run.created_at)
        return compare_path(first.address, second.address)
    task = site.store.task(ticked[0])
    if not task.origin or "/" not in task.origin:
        raise Unusable(f"the task {task.address} reruns no other; tick two tasks to compare them")
    return compare_path(task.origin, task.address)


def compared(site: Site, first: beam_ray.Address, second: beam_ray.Address, walk: dict[str, Any] | None = None) -> Page:
    """The page of two tasks; with *walk* as one of several pairs."""
    before, after = site.reader.task(first), site.reader.task(second)
    rows = step_pairs(before, after)
    # a skipped step has no output of its own, so the first difference is where both or one of them ran
    diverges = next((row["node"] for row in rows if row["output_differs"]), None)
    for row in rows:
        row["first"] = row["node"] == diverges
    names = walk["sides"] if walk else ("before", "after")
    values: dict[str, Any] = {
        "before": before,
        "after": after,
        "names": names,
        "rows": rows,
        "diverges": diverges,
        "same": sum(not row["differs"] for row in rows),
        "walk": walk,
        "review": next((row["review"] for row in rows if row["review"]), ""),
        "query": word_diff(before.given["task_query"], after.given["task_query"]),
        "query_differs": before.given["task_query"] != after.given["task_query"],
        "changed": site.store.diff(before.run.workflow, after.run.workflow),
        "swap": "" if walk else compare_path(after.address, before.address),
    }
    document = {
        "before": before.address,
        "after": after.address,
        "diverges_at": diverges,
        "definition_changes": [{"at": str(each), "before": each.before, "after": each.after} for each in values["changed"]],
        "steps": [
            {
                "node": row["node"],
                "differs": row["differs"],
                "before": row["old"].document() if row["old"] else None,
                "after": row["new"].document() if row["new"] else None,
                "criteria_changed": [{"id": each["id"], "before": each["before"], "after": each["after"]} for each in row["criteria"] if each["flipped"]],
            }
            for row in rows
        ],
        "pair": {"at": walk["at"], "of": walk["count"], "group": walk["group"], "marks": [each.document() for each in walk["marks"]]} if walk else None,
    }
    title = f"{before.id}: {names[0]} and {names[1]}"
    command = " && ".join(f"beam-ray show {shlex.quote(each.address)}{site.store.option}" for each in (before, after))
    return Page("compare", title, values, document, section="backtests" if walk else "tasks", command=command)


def step_pairs(before: beam_ray.Task, after: beam_ray.Task) -> list[dict[str, Any]]:
    """The steps of two records of a task, each with what differs."""
    old = {step.node: step for step in before.steps}
    new = {step.node: step for step in after.steps}
    order = [*after.run.workflow.order, *(node for node in before.run.workflow.order if node not in after.run.workflow.nodes)]
    return [_step(old.get(node), new.get(node), node, before, after) for node in order if node in old or node in new]


def _step(old: Any, new: Any, node: str, before: beam_ray.Task, after: beam_ray.Task) -> dict[str, Any]:
    left, right = _text(old), _text(new)
    criteria = _criteria(old, new)
    outcomes = [each.outcome if each else "absent" for each in (old, new)]
    ran = [each is not None and each.ran for each in (old, new)]
    output_differs = left != right or ran[0] != ran[1]
    prompt = _prompt(old, new, node, before, after) if output_differs and old and new else ()
    return {
        "node": node,
        "title": (new or old).title,
        "old": old,
        "new": new,
        "outcomes": outcomes,
        "output_differs": output_differs,
        "differs": output_differs or any(each["flipped"] for each in criteria),
        "pieces": word_diff(left, right) if output_differs else (),
        "fields": _fields(old, new) if output_differs else [],
        "text": right,
        "criteria": criteria,
        "prompt": prompt,
        "review": _review_link(after, node, [each["id"] for each in criteria if each["flipped"]]),
        "old_link": address_path(before.address, step=node) if old else "",
        "new_link": address_path(after.address, step=node) if new else "",
    }


def _review_link(task: beam_ray.Task, node: str, criteria: list[str]) -> str:
    """The page on which a person says whether these criteria are met by the step's output; the judge's word is hidden there until then."""
    if not criteria or task.run.record.trials > 1:
        return ""  # a task is reviewed by its first trial
    fields = {"workflow": task.run.record.workflow, "node": node, "run": task.run.id, "criterion": criteria, "sample": "chosen", "task": task.id}
    return with_query("/review", fields)


def _text(step: Any) -> str:
    if step is None:
        return ""
    if step.outcome == "failed":
        return f"{step.error_type}: {step.error}"
    return as_text(step.output) if step.output is not None else ""


def _fields(old: Any, new: Any) -> list[dict[str, Any]]:
    """The fields of two objects, the differing ones first; empty where one of the outputs is none."""
    left, right = (each.output if each is not None else None for each in (old, new))
    if not (isinstance(left, dict) and isinstance(right, dict)) or ["text"] in (list(left), list(right)):
        return []
    rows = []
    for name in dict.fromkeys([*left, *right]):
        texts = [_value(side[name]) if name in side else "" for side in (left, right)]
        differs = name not in left or name not in right or left[name] != right[name]
        rows.append({"name": name, "differs": differs, "pieces": word_diff(*texts) if differs else (), "before": texts[0], "after": texts[1]})
    return sorted(rows, key=lambda row: not row["differs"])


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)


def _criteria(old: Any, new: Any) -> list[dict[str, Any]]:
    sides = [{item.id: item for item in each.criteria} if each is not None else {} for each in (old, new)]
    found = []
    for name in dict.fromkeys([*sides[0], *sides[1]]):
        was, now = sides[0].get(name), sides[1].get(name)
        item = now or was
        assert item is not None
        found.append(
            {
                "id": name,
                "text": item.text,
                "before": was.met if was else None,
                "after": now.met if now else None,
                "flipped": was is not None and now is not None and was.met is not now.met,
                "reason": now.reason if now else "",
                "old_reason": was.reason if was else "",
            }
        )
    return found


def _prompt(old: Any, new: Any, node: str, before: beam_ray.Task, after: beam_ray.Task) -> tuple[Piece, ...]:
    """The prompts as they were sent, as one text; empty where they are equal or cannot be shown."""
    if old.definition.call is None or new.definition.call is None or "skipped" in (old.outcome, new.outcome):
        return ()
    texts = ["\n\n".join(f"[{turn.role}]\n{turn.text}" for turn in task.prompt(node).turns) for task in (before, after)]
    return word_diff(*texts) if texts[0] != texts[1] and all(texts) else ()
