"""Editing a workflow: the draft that a flow's page shows, and what its forms change."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from dataclasses import replace
from itertools import count
from typing import TYPE_CHECKING, Any

import beam_ray
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import flow_path, versions_path, with_query
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

if TYPE_CHECKING:
    from beam_ray import Draft, DraftNode

SETTINGS = ("model", "temperature", "max_tokens", "seed", "timeout_s")


def draft_of(site: Site, workflow: str, fields: Fields) -> Draft | None:
    """
    The draft that the fields name; the revision that the form was made from, where they name one.

    Raises:
        Unusable: there is none.
    """
    name, number = one(fields, "draft"), one(fields, "number")
    if number and not number.isdecimal():
        raise Unusable(f"number: {number[:20]!r} is not a revision")
    return site.store.draft(workflow, name, int(number) if number else None) if name else None


def change(site: Site, path: str, fields: Fields) -> str | Page:
    """Make, change or end a draft; the address of the page that shows it."""
    workflow, done, node = path.split("/")[2], one(fields, "do"), one(fields, "node")
    numbers = one(fields, "numbers")
    if done == "edit":
        found = next(iter(site.store.drafts(workflow)), None) or _new(site, workflow)
        if one(fields, "then") == "generate":
            return with_query(f"{flow_path(workflow)}/criteria", {"draft": found.name, "node": node})
        return flow_path(workflow, draft=found.name, node=node, numbers=numbers) + ("#add-criteria" if one(fields, "then") == "add" else "")
    if done == "create":
        made = site.store.create_draft(workflow, one(fields, "draft")) if one(fields, "draft") else _new(site, workflow)
        return flow_path(workflow, draft=made.name, node=node, numbers=numbers)
    draft = draft_of(site, workflow, fields)
    if draft is None:
        raise Unusable("the form names no draft; reload the page and send it again")
    if done == "drop":
        site.store.drop_draft(workflow, draft.name)
        return flow_path(workflow, node=node)
    from beam_ray.console.pages import flows

    if done == "text":
        text = "\n".join(fields.get("text", [""])[-1].splitlines()) + "\n"
        try:
            saved = site.store.save_draft(draft, text, author=site.options.author)
        except BeamRayError as error:
            return flows.page(site, workflow, fields, edited=Edited(draft, fault=str(error), text=text))
        return flow_path(workflow, draft=saved.name, node=node, numbers=numbers)
    values = values_of(site, draft, node, fields)
    try:
        saved = site.store.edit_node(draft, node, values, author=site.options.author)
    except BeamRayError as error:
        return flows.page(site, workflow, fields, edited=Edited(draft, values, str(error)))
    at = {"add": "#add-criteria", "": ""}.get(done, "")
    return flow_path(workflow, draft=saved.name, node=node, numbers=numbers) + at


def check(site: Site, path: str, fields: Fields) -> str | Page:
    """What is wrong with what was typed; nothing is kept."""
    from beam_ray.console.pages import flows

    workflow, node = path.split("/")[2], one(fields, "node")
    draft = draft_of(site, workflow, fields)
    if draft is None:
        raise Unusable("the form names no draft; reload the page and send it again")
    values = values_of(site, draft, node, fields)
    return flows.page(site, workflow, fields, edited=Edited(draft, values))


def _new(site: Site, workflow: str) -> Draft:
    taken = {each.name for each in site.store.drafts(workflow)}
    return site.store.create_draft(workflow, next(name for name in ("edit" if number == 1 else f"edit-{number}" for number in count(1)) if name not in taken))


class Edited:
    """A form that was sent and not kept: what was typed, and why."""

    def __init__(self, draft: Draft, values: beam_ray.NodeValues | None = None, fault: str = "", text: str | None = None):
        self.draft, self.values, self.fault, self.text = draft, values, fault, text


def values_of(site: Site, draft: Draft, node: str, fields: Fields) -> beam_ray.NodeValues:
    """What the form of a node holds."""
    found = site.store.draft_node(draft, node)
    was = found.values if found else beam_ray.NodeValues()
    texts = [_lines(text) for text in fields.get("turn", ())]
    turns = tuple(replace(turn, text=_like(text, turn.text)) for turn, text in zip(was.turns, texts, strict=False)) if texts else was.turns
    removed = {int(each) for each in fields.get("remove", ()) if each.isdecimal()}
    return beam_ray.NodeValues(
        turns,
        one(fields, "threshold"),
        tuple(each for index, each in enumerate(_criteria(fields)) if index not in removed),
        one(fields, "auto_rerun") == "on",
        one(fields, "max"),
        one(fields, "feedback") == "on",
        one(fields, "on_exhausted", "best"),
        {name: one(fields, f"set_{name}") for name in SETTINGS},
    )


def _criteria(fields: Fields) -> list[beam_ray.WrittenCriterion]:
    columns = [fields.get(f"criterion_{name}", []) for name in ("kind", "text", "field", "weight")]
    found = [beam_ray.WrittenCriterion(kind, _lines(text).strip(), name.strip(), weight.strip()) for kind, text, name, weight in zip(*columns, strict=False)]
    kind, text, name = one(fields, "new_kind", "text"), _lines((fields.get("new_text") or [""])[-1]).strip(), one(fields, "new_field")
    if text or (kind == "equals" and name):
        found.append(beam_ray.WrittenCriterion(kind, text, name if kind == "equals" else "", one(fields, "new_weight")))
    return found


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _like(text: str, before: str) -> str:
    """The text with the same line end at its end as before: a text field shows none, and people do not type one."""
    return text if text == before or not text.strip() else text.rstrip("\n") + "\n" * (len(before) - len(before.rstrip("\n")))


def shown(site: Site, workflow: str, draft: Draft, node: DraftNode | None, edited: Edited | None) -> dict[str, Any]:
    """What the page of a draft shows beside the flow."""
    preview = node
    fault = edited.fault if edited else ""
    if edited and edited.values is not None:
        try:
            preview = site.store.check_node(draft, node.name if node else "", edited.values)
        except BeamRayError as error:
            fault = fault or str(error)
            preview = replace(node, values=edited.values) if node else None
    problems: dict[str, list[Any]] = {}
    for each in preview.problems if preview else ():
        problems.setdefault(each.field, []).append(each)
    changed = _changes(site, draft)
    return {
        "draft": draft,
        "diff_link": versions_path(workflow, a=draft.base, b=f"{draft.name}:{draft.number}") if draft.base and draft.definition else "",
        "form": preview,
        "problems": problems,
        "fault": fault,
        "stands_for": [each.stands_for for each in preview.values.criteria] if preview else [],
        "said_ids": _said_ids(preview) if preview else "",
        "changes": changed,
        "errors": sum(each.is_error for each in preview.problems) if preview else len(draft.problems),
        "warnings_of_draft": sum(not each.is_error for each in preview.problems) if preview else 0,
        "text": edited.text if edited and edited.text is not None else draft.text,
        "models": sorted({model for model in (draft.definition.models if draft.definition else ())}),
    }


def _said_ids(node: DraftNode) -> str:
    """The places on the page where problems stand, as a selector."""
    fields = ["", "threshold", "criteria", "auto_rerun", *SETTINGS]
    fields += [f"prompt-{index}" for index in range(len(node.values.turns))]
    fields += [f"criteria-{index}" for index in range(len(node.values.criteria))]
    return ",".join(f"#problem-{name}" for name in fields)


def _changes(site: Site, draft: Draft) -> list[beam_ray.Change] | None:
    """What differs from the published version; None where that cannot be said."""
    try:
        return list(site.store.draft_changes(draft))
    except BeamRayError:
        return None
