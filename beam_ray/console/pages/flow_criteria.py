"""Criteria that a model proposes for a node of a draft: what asking costs, how the proposals do on stored outputs, and taking some of them."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from typing import TYPE_CHECKING, Any

import beam_ray
from beam_ray import DraftEdit
from beam_ray.console.commands import Started, new_key
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import flow_path, with_query
from beam_ray.console.pages.flow_draft import draft_of
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

if TYPE_CHECKING:
    from beam_ray import Draft

FIELDS = ("draft", "node", "model", "add")


def sheet(site: Site, path: str, fields: Fields) -> Page:
    """The page."""
    workflow, node, draft = _named(site, path, fields)
    model, add = one(fields, "model"), one(fields, "add") == "yes"
    asked = next((each for each in site.commands.all() if each.words[:4] == ("criteria", f"{workflow}@{draft.name}", "--node", node)), None)
    code = asked.code if asked else None  # once: it may end while the plan is made
    result = asked.result if asked and code is not None else None
    plan, fault = _plan(site, draft, node, model, add, again=result is not None)
    link = flow_path(workflow, draft=draft.name, node=node)
    values: dict[str, Any] = {
        "workflow": workflow,
        "draft": draft,
        "node": node,
        "title": draft.definition.title_of(node) if draft.definition else node,
        "back": link,
        "here_plain": f"{flow_path(workflow)}/criteria",
        "plan": plan,
        "fault": fault,
        "model": model,
        "add": add,
        "models": sorted(draft.definition.models) if draft.definition else [],
        "asked": asked,
        "code": code,
        "running": asked is not None and code is None,
        "failed": code not in (None, 0, 5),
        "result": result,
        "key": new_key(),
        "again": result is not None,
    }
    command = f"beam-ray {shlex.join(_words(workflow, draft, node, model, add, again=result is not None))}{site.option}"
    document = {"draft": draft.reference, "node": node, "plan": plan.document() if plan else None, "refused": fault or None, "proposal": result}
    return Page("flow_criteria", f"Criteria of {node}", values, document, section="flows", command=command, live=bool(values["running"]))


def start(site: Site, path: str, fields: Fields) -> str:
    """Start the command that asks for criteria, or take some of those that it proposed; the address of the page that shows it."""
    workflow, node, draft = _named(site, path, fields)
    if one(fields, "do") == "take":
        saved = _take(site, draft, node, site.commands.get(one(fields, "of")), fields)
        return flow_path(workflow, draft=saved.name, node=node)
    model, add, again = one(fields, "model"), one(fields, "add") == "yes", one(fields, "again") == "yes"
    plan, fault = _plan(site, draft, node, model, add, again=again)
    if plan is None:
        raise Unusable(fault)
    site.commands.start(one(fields, "key"), _words(workflow, draft, node, model, add, again=again), f"Propose criteria for {node} of {draft.name}")
    return with_query(f"{flow_path(workflow)}/criteria", {"draft": draft.name, "node": node, "model": model, "add": "yes" if add else ""})


def _named(site: Site, path: str, fields: Fields) -> tuple[str, str, Draft]:
    workflow, node = path.split("/")[2], one(fields, "node")
    draft = draft_of(site, workflow, {key: values for key, values in fields.items() if key == "draft"})
    if draft is None or draft.definition is None:
        raise Unusable("criteria are proposed for a node of a draft that has no problems\n  the address is /flows/WORKFLOW/criteria?draft=DRAFT&node=NODE")
    if node not in draft.definition.nodes:
        raise Unusable(f"{draft.reference} has no node {node[:80]!r}\n  it has: {', '.join(draft.definition.order)}")
    return workflow, node, draft


def _words(workflow: str, draft: Draft, node: str, model: str, add: bool, *, again: bool) -> list[str]:
    more = [*(["--add"] if add else []), *(["--model", model] if model else []), *(["--again"] if again else [])]
    return ["criteria", f"{workflow}@{draft.name}", "--node", node, "--generate", *more]


def _plan(site: Site, draft: Draft, node: str, model: str, add: bool, *, again: bool) -> tuple[beam_ray.CriteriaProposalPlan | None, str]:
    """What asking costs, or why nobody is asked."""
    try:
        plan = site.store.plan_criteria_proposal(
            f"{draft.workflow}@{draft.name}", node, draft=beam_ray.CriteriaDraft(add=add, model=model or None, again=again)
        )
        site.commands.require_usd(plan.max_usd)
        return plan, ""
    except BeamRayError as error:
        return None, str(error)


def _take(site: Site, draft: Draft, node: str, asked: Started, fields: Fields) -> Draft:
    """The draft with the chosen proposals, beside its criteria or instead of them."""
    proposed = (asked.result or {}).get("criteria", [])
    chosen = [proposed[int(each)]["written"] for each in fields.get("take", ()) if each.isdecimal() and int(each) < len(proposed)]
    if not chosen:
        raise Unusable("choose at least one of the proposed criteria")
    place = f"nodes.{node}.evaluate.criteria"
    evaluate = draft.definition.nodes[node].evaluate if draft.definition else None
    found = site.store.draft_node(draft, node)
    if one(fields, "how") == "beside" and evaluate and found:
        first = len(found.values.criteria)
        edits = [DraftEdit(f"{place}[{first + index}]", each) for index, each in enumerate(chosen)]
    else:
        edits = [DraftEdit(place, chosen)]
    return site.store.edit_draft(draft, edits, author=site.options.author)
