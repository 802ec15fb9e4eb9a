"""Libraries: their list, the page of one with its coverage, tasks and versions, and what is changed about them."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import dataclasses
import json
import shlex
from typing import Any
from urllib.parse import quote

import beam_ray
from beam_ray import TaskEdit
from beam_ray.console.commands import new_key, words_of
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import backtest_path, library_path, with_query
from beam_ray.console.pages.add_to_library import done_or_shown, labels_of
from beam_ray.console.rendering import Download, Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

FIELDS = ("version", "label", "q", "after", "edit", "workflow")
COVERAGE_FIELDS = ("version", "workflow")
EXPORT_FIELDS = ("version",)
DIFF_FIELDS = ("before", "after")
SHOWN = 100
"""Tasks on a page."""
VERSIONS = 12
"""Versions on the page of a library."""


def libraries(site: Site, path: str, fields: Fields) -> Page:
    """The list."""
    found = site.store.libraries()
    values = {"libraries": [_summary(each) for each in found], "key": new_key(), "typed": {}}
    return Page("libraries", "Libraries", values, [each.summary() for each in found], section="libraries", command=f"beam-ray library list{site.store.option}")


def _summary(found: beam_ray.Library) -> dict[str, Any]:
    used = found.last_used
    return {"library": found, "last_used": used, "last_used_path": backtest_path(used.backtest_id) if used else "", "path": library_path(found.name)}


def library(site: Site, path: str, fields: Fields) -> Page:
    """One library."""
    found = _opened(site, path, fields)
    versions = site.store.library_versions(found.name, limit=VERSIONS)
    rows = _rows(found, fields)
    start = next((place + 1 for place, row in enumerate(rows) if row["id"] == one(fields, "after")), 0)
    shown = rows[start : start + SHOWN]
    kept = {name: values for name, values in fields.items() if name in ("version", "label", "q")}
    newest = found.version == versions[0].number
    here = library_path(found.name, **kept)
    values: dict[str, Any] = {
        **_summary(found),
        "versions": versions,
        "more_versions": len(found.versions) - len(versions),
        "newest": newest,
        "rows": shown,
        "matching": len(rows),
        "labels": _labels(found, fields),
        "fields": {name: one(fields, name) for name in FIELDS},
        "edit": one(fields, "edit") if newest and not site.options.read_only else "",
        "list_path": here,
        "next": library_path(found.name, **kept, after=shown[-1]["id"]) if start + SHOWN < len(rows) else "",
        "first": here if start else "",
        "coverage_path": with_query(f"{library_path(found.name)}/coverage", {"version": one(fields, "version"), "workflow": one(fields, "workflow")}),
        "places": _places(site, found),
        "key": new_key(),
    }
    command = f"beam-ray library show {found.name if newest else found}{site.store.option}"
    return Page("library", f"Library {found.name}", values, found.document(), section="libraries", command=command)


def _opened(site: Site, path: str, fields: Fields) -> beam_ray.Library:
    name, version = path.split("/")[2], one(fields, "version")
    return site.store.library(f"{name}@{version}" if version else name)


def _rows(found: beam_ray.Library, fields: Fields) -> list[dict[str, Any]]:
    """The tasks that are chosen, as JSON has them."""
    wanted, text = fields.get("label", []), one(fields, "q").casefold()
    rows = found.document()["tasks"]
    return [
        {**row, "query": row["task_query"] if isinstance(row["task_query"], str) else json.dumps(row["task_query"], ensure_ascii=False)}
        for row in rows
        if set(wanted) <= set(row["labels"] or ()) and (not text or text in f"{row['id']} {row['task_query']} {row['notes'] or ''}".casefold())
    ]


def _labels(found: beam_ray.Library, fields: Fields) -> list[dict[str, Any]]:
    """Each label with how many tasks have it, and the address that shows only these."""
    counts: dict[str, int] = {}
    for labels in found.tasks["labels"].to_pylist():
        for label in labels or ():
            counts[label] = counts.get(label, 0) + 1
    chosen, kept = fields.get("label", []), {name: values for name, values in fields.items() if name in ("version", "q")}
    shown = []
    for label, count in sorted(counts.items(), key=lambda each: (-each[1], each[0])):
        others = [each for each in chosen if each != label] if label in chosen else [*chosen, label]
        shown.append({"label": label, "count": count, "chosen": label in chosen, "link": library_path(found.name, **kept, label=others)})
    return shown


def _places(site: Site, found: beam_ray.Library) -> list[str]:
    """The nodes and routes that a task can be there to test."""
    if not found.workflow:
        return []
    try:
        definition = site.store.check(site.reader.definition(found.workflow)).workflow
    except BeamRayError:
        return []  # they are only suggested
    return [*definition.order, *dict.fromkeys(node.route for node in definition.nodes.values() if node.route)]


# -- coverage ---------------------------------------------------------------------------


def coverage(site: Site, path: str, fields: Fields) -> Page:
    """How well a library covers a workflow, and what fills its gaps."""
    found = _opened(site, path, fields)
    workflow = one(fields, "workflow") or found.workflow
    known = site.reader.workflows()
    check, fault = None, ""
    if workflow:
        try:
            check = found.check(site.reader.definition(workflow))
        except BeamRayError as error:
            fault = str(error)
    document = check.document() if check else None
    values: dict[str, Any] = {
        **_summary(found),
        "workflow": workflow,
        "workflows": list(dict.fromkeys([*([workflow] if workflow else []), *known])),
        "check": check,
        "fault": fault,
        "told": document,
        "gaps": _gaps(found, check) if check else [],
        "grid": check.grid if check else None,
        "fill_all": _fill_link(found, document["all_at_once"]) if document and document["all_at_once"] else "",
    }
    command = f"beam-ray library check {found} --workflow {shlex.quote(workflow or 'WORKFLOW')}{site.store.option}"
    title = f"Coverage of {found.name}"
    shown = {**document, "grid": check.grid.document()} if document and check else {"refused": fault or "no workflow is known"}
    return Page("coverage", title, values, shown, section="libraries", command=command)


def _gaps(found: beam_ray.Library, check: beam_ray.LibraryCheck) -> list[dict[str, Any]]:
    """Each gap with the command that fills it, and the form that does."""
    document = check.document()
    fill = {gap["command"]: gap["fill"] if gap["kind"] == "size" else gap["fill"][:1] for gap in document["gaps"] if gap["command"] and gap["fill"]}
    shown = []
    for text, advice in check.gaps:
        command, _, rest = advice.partition("\n")
        addresses = fill.get(command, [])
        others = [] if not rest else [word for word in rest.split() if "/" in word]
        shown.append(
            {
                "text": text,
                "command": command if command.startswith("beam-ray ") else "",
                "advice": "" if command.startswith("beam-ray ") else advice,
                "count": len(addresses),
                "tasks": addresses[:5],
                "others": others,
                "link": with_query("/add-to-library", {"task": addresses, "library": found.name}) if addresses else "",
            }
        )
    return shown


def _fill_link(found: beam_ray.Library, command: str) -> str:
    addresses = [word for word in shlex.split(command)[4:] if "/" in word and not word.startswith("-")]
    return with_query("/add-to-library", {"task": addresses, "library": found.name})


# -- versions, files ----------------------------------------------------------------------


def diff(site: Site, path: str, fields: Fields) -> Page:
    """What differs between two versions."""
    name = path.split("/")[2]
    newest = site.store.library(name)
    before, after = one(fields, "before") or str(max(newest.version - 1, 1)), one(fields, "after") or str(newest.version)
    if not (before.isdecimal() and after.isdecimal()):
        raise Unusable("before and after are numbers of versions")
    found = site.store.diff_library(name, int(before), int(after))
    values = {"diff": found, "versions": newest.versions, "path": library_path(name)}
    command = f"beam-ray library diff {name}@{before} {name}@{after}{site.store.option}"
    return Page("library_diff", f"Changes of {name}", values, found.document(), section="libraries", command=command)


def export(site: Site, path: str, fields: Fields) -> Download:
    """The tasks as a file."""
    name, body = _opened(site, path, fields).export_file()
    return Download(name, body)


# -- changes ----------------------------------------------------------------------------


def edit(site: Site, path: str, fields: Fields) -> str:
    """Change a task; the library's page, at the task."""
    name, task = path.split("/")[2], one(fields, "task")
    written, seen = one(fields, "expected"), one(fields, "seen")
    try:
        expected = json.loads(written) if written else None
    except (ValueError, RecursionError) as error:
        raise Unusable(f"the expected outcome of {task!r} is not JSON: {error}\n  go back, and correct it there") from None
    if expected is not None and not isinstance(expected, dict):
        raise Unusable(f'the expected outcome of {task!r} is an object of fields, such as {{"total": 12.5}}\n  go back, and correct it there')
    made = TaskEdit(
        labels=labels_of(one(fields, "labels")),
        tests=one(fields, "tests"),
        note=one(fields, "note").replace("\r\n", "\n"),
        expected=expected,
        no_expected=not written,
    )
    site.store.edit_library(name, [task], made, seen=int(seen) if seen.isdecimal() else None)
    back = one(fields, "back")
    here = back if back.startswith(library_path(name)) else library_path(name)
    return f"{here}#{quote(task)}"


def remove(site: Site, path: str, fields: Fields) -> str:
    """Remove tasks; the library's page."""
    name, tasks = path.split("/")[2], fields.get("task", [])
    if not tasks:
        raise Unusable("tick the tasks to remove")
    site.store.remove_from_library(name, tasks)
    return library_path(name)


def import_tasks(site: Site, path: str, fields: Fields) -> Page | str:
    """Add pasted tasks by the command; the library's page, that of the command, or the form with what is wrong and all that was typed."""
    try:
        return _imported(site, fields)
    except Unusable as error:
        page = libraries(site, "/libraries", {})
        text = (fields.get("tasks") or [""])[-1]
        typed = {"name": one(fields, "library"), "tasks": text, "replace": one(fields, "replace"), "fault": words_of(error)}
        return dataclasses.replace(page, values={**page.values, "typed": typed}, document={"error": words_of(error)}, status=400, address="/libraries")


def _imported(site: Site, fields: Fields) -> str:
    name, text = one(fields, "library"), (fields.get("tasks") or [""])[-1]
    site.store.require_library_name(name)
    if not text.strip():
        raise Unusable("there is no task to import: paste JSON lines, a JSON list or CSV")
    words = ["library", "import", name, "-", *(["--replace"] if one(fields, "replace") else [])]
    key = one(fields, "key")
    site.commands.start(key, words, f"Import tasks into {name}", text=text.replace("\r\n", "\n"))
    return done_or_shown(site, key)
