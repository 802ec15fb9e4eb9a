"""Workflows: their list, and the page of one with its graph and the panel of a node."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import beam_ray
from beam_ray.console.charts import sparkline
from beam_ray.console.formatting import percent
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import flow_path, health_path, history_path, with_query
from beam_ray.console.pages.flow_draft import Edited, draft_of, shown
from beam_ray.console.reading import require_no_file
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

if TYPE_CHECKING:
    from beam_ray import Flow, FlowNode

FIELDS = ("version", "draft", "numbers", "node")
BENDS = 10
"""Newest versions that are compared with the one before."""
CHOICES = 10
"""Runs and backtests that the selector offers, of each."""


def flows(site: Site, path: str, fields: Fields) -> Page:
    """The list."""
    found = site.store.flows()
    rows = [
        {"flow": each, "link": flow_path(each.workflow), "health": health_path(each.workflow), "spark": sparkline([share / 100 for share in each.history])}
        for each in found
    ]
    command = f"beam-ray flow{site.store.option}"
    return Page("flows", "Flows", {"rows": rows}, [each.document() for each in found], section="flows", command=command)


def flow(site: Site, path: str, fields: Fields) -> Page:
    """One workflow."""
    return page(site, path.split("/")[2], fields)


def page(site: Site, name: str, fields: Fields, edited: Edited | None = None) -> Page:
    """One workflow: a version, or a draft, with what was typed and not kept."""
    require_no_file(name)
    versions, drafts = _versions(site, name), site.store.drafts(name)
    wanted, numbers, first = one(fields, "version"), one(fields, "numbers"), one(fields, "node")
    if wanted and not wanted.isdecimal():
        raise Unusable(f"version: {wanted[:60]!r} is not a number")
    draft = edited.draft if edited else draft_of(site, name, {key: values for key, values in fields.items() if key == "draft"})
    named = f"{name}@{wanted}" if wanted else name
    if draft and draft.definition:
        named = draft.reference
    how = numbers_of(numbers)
    found = site.store.flow(named, criteria_of=[first] if first else "weakest", **how)
    node = found.node(first) if first else found.weakest
    kept = {"version": wanted, "draft": draft.name if draft else "", "numbers": numbers, "node": first}

    def link(**query: Any) -> str:
        return flow_path(name, **{**kept, **query})

    values: dict[str, Any] = {
        "flow": found,
        "name": name,
        "versions": [(each, link(version=str(each), draft=""), each == found.version and not draft) for each in versions],
        "bends": _bends(site, name, node, versions),
        "drafts": [(each, link(version="", draft=each.name), bool(draft) and each.name == getattr(draft, "name", "")) for each in drafts],
        "cards": cards(found, lambda each: link(node=each)),
        "choices": _choices(site, name, found, numbers),
        "kept": [(key, value) for key, value in kept.items() if value and key != "numbers"],
        "numbers": numbers,
        "node": node,
        "agreement": _agreement(site, name, node),
        "tasks": _tasks_link(found),
        "unmet": _unmet_links(found, node),
        "warnings": [warning for warning in found.warnings if f"{node.name!r}" in warning.text],
        "first_number": 1 + sum(len(each.criteria) for each in found.nodes[: found.nodes.index(node)]),
        "draft": None,
        "health": health_path(name),
        "history": history_path(name),
        "published_link": link(version="", draft=""),
    }
    if draft:
        values |= shown(site, name, draft, site.store.draft_node(draft, node.name), edited)
    words = f"beam-ray flow {shlex.quote(named)}{_options(how)}{site.store.option}"
    return Page("flow", name, values, found.document(), section="flows", command=words, address=link() if edited else "")


def numbers_of(written: str) -> dict[str, Any]:
    """
    The selector's value as arguments of ``Store.flow``.

    Raises:
        Unusable: it is none of its values.
    """
    kind, _, rest = written.partition(":")
    if not written:
        return {}
    if written == "all":
        return {"all_runs": True}
    if kind == "run" and rest:
        return {"run": rest}
    if kind == "backtest" and rest:
        backtest, _, candidate = rest.partition(":")
        return {"backtest": backtest, "candidate": candidate or None}
    raise Unusable(f"numbers: {written[:60]!r} is none of all, run:RUN and backtest:BACKTEST:CANDIDATE")


def _options(how: dict[str, Any]) -> str:
    """The same as options of the command."""
    named = {name: value for name, value in how.items() if value}
    return "".join(" --all-runs" if name == "all_runs" else f" --{name} {shlex.quote(value)}" for name, value in named.items())


def cards(found: Flow, link: Any) -> list[dict[str, Any]]:
    """Each node with the edges that leave it."""
    titles = {each.name: each.title for each in found.nodes}
    return [
        {
            "node": each,
            "link": link(each.name),
            "next": [(edge, titles[edge.target]) for edge in found.edges if edge.source == each.name],
        }
        for each in found.nodes
    ]


def _versions(site: Site, name: str) -> list[int]:
    try:
        return [each.number for each in reversed(site.store.versions(name))]
    except Unusable:
        return []


def _choices(site: Site, name: str, found: Flow, chosen: str) -> list[tuple[str, list[tuple[str, str, bool]]]]:
    """The selector's groups: title, and value, text and whether it is chosen."""
    runs = [run for run in site.reader.runs() if run.record.workflow == name and run.finished and run.record.mode in ("run", "baseline", "candidate")]
    newest = f"Newest run ({found.numbers.runs[0]})" if not chosen and found.numbers.runs else "Newest run of this definition"
    groups = [("", [("", newest, not chosen), ("all", "All runs of this definition", chosen == "all")])]
    named = [(f"run:{run.id}", f"{run.id} · {_definition(run)} · {run.passed} of {run.summary['rows']} passed") for run in runs[:CHOICES]]
    groups.append(("One run", [(value, text, value == chosen) for value, text in named]))
    verdicts = [each for each in site.reader.backtests() if each.workflow == name][:CHOICES]
    compared = [
        (f"backtest:{each.id}:{side.name}", f"{each.document()['name']}: baseline and {side.name} ({side.word})")
        for each in verdicts
        for side in each.candidates
    ]
    groups.append(("Baseline and candidate of a backtest", [(value, text, value == chosen) for value, text in compared]))
    if chosen and not any(picked for _, options in groups for _, _, picked in options):
        groups[0][1].append((chosen, chosen.partition(":")[2], True))
    return [(title, options) for title, options in groups if options]


def _definition(run: beam_ray.Run) -> str:
    return f"v{run.version}" if run.version else f"draft {run.record.definition_digest[:8]}"


def _agreement(site: Site, name: str, node: FlowNode) -> dict[str, Any]:
    """For each criterion that people reviewed, the newest report of its judge."""
    if not node.judges:
        return {}
    try:
        reports = site.store.review_agreement(name, node.name)
    except BeamRayError:
        return {}
    texts = {each.text: each.id for each in node.criteria}
    return {texts[report.text]: report for report in reversed(reports) if report.text in texts}


def _bends(site: Site, name: str, node: FlowNode, versions: list[int]) -> dict[int, tuple[str, str]]:
    """The versions with which the node's accuracy moved beyond both 95% intervals, each with its direction and that in words."""
    numbers = site.store.node_by_version(name, node.name, versions[:BENDS]) if len(versions) > 1 else {}
    known = [(each, found, found.low, found.high) for each in sorted(numbers) if (found := numbers[each])]
    bends: dict[int, tuple[str, str]] = {}
    for (_, before, low, high), (number, after, new_low, new_high) in pairwise(known):
        if low is None or high is None or new_low is None or new_high is None:
            continue
        if new_low > high or new_high < low:
            words = f"{node.title}: {percent(before.score)} before, {percent(after.score)} with v{number}; the 95% intervals do not overlap"
            bends[number] = ("better" if new_low > high else "worse", words)
    return bends


def _unmet_links(found: Flow, node: FlowNode) -> dict[str, str]:
    """The tasks whose step at the node did not pass, and by the id of a criterion those that do not meet it; of one run only."""
    if found.numbers.kind not in ("run", "backtest"):
        return {}
    fields = {"run": found.numbers.runs[-1], "node": node.name}
    return {"": with_query("/tasks", fields), **{each.id: with_query("/tasks", {**fields, "criterion": each.id}) for each in node.criteria}}


def _tasks_link(found: Flow) -> str:
    """The tasks that the numbers are of."""
    numbers = found.numbers
    if numbers.kind in ("run", "backtest"):
        return with_query("/tasks", {"run": numbers.runs[-1]})
    return with_query("/tasks", {"workflow": found.workflow.name, "version": numbers.version}) if numbers.kind == "version" else ""
