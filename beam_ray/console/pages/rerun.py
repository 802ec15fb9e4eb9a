"""Running tasks again: which definition, from which node, with which input, why, and what it costs before it starts."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import beam_ray
from beam_ray.console.commands import new_key
from beam_ray.console.formatting import ago
from beam_ray.console.forms import Fields, names_draft, one
from beam_ray.console.links import what_if_path, with_query
from beam_ray.console.plan_picture import plan_picture
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

if TYPE_CHECKING:
    from beam_ray import Plan

FIELDS = ("task", "run", "status", "label", "where", "from", "using", "because", "task_query", "variables", "allow_writes")
SHOWN = 20
"""Tasks that are named one by one."""
EDITABLE = 8_000
"""Characters of an input that can be edited: what is typed is part of the page's address."""


@dataclass(frozen=True)
class Wanted:
    """What a form asks for."""

    tasks: tuple[str, ...]
    selection: beam_ray.Selection | None
    from_node: str
    using: str
    because: str
    task_query: str | None
    variables: str | None
    allow_writes: bool

    @classmethod
    def of(cls, fields: Fields) -> Wanted:
        """
        What the fields say.

        Raises:
            Unusable: they name no task, or more than one with a changed input.
        """
        tasks, run = tuple(dict.fromkeys(fields.get("task", ()))), one(fields, "run")
        if not tasks and not run:
            raise Unusable("choose at least one task\n  on the Tasks page, tick tasks and press Re-run")
        if any("/" not in task or not task[0].isalnum() for task in tasks):
            raise Unusable("a task is named by its address, RUN/TASK")
        selection = None
        if run and not tasks:
            selection = beam_ray.Selection(run, status=one(fields, "status") or None, labels=tuple(fields.get("label", ())), where=one(fields, "where") or None)
        query, variables = (_text(fields, name) if len(tasks) == 1 else None for name in ("task_query", "variables"))
        return cls(
            tasks,
            selection,
            one(fields, "from"),
            one(fields, "using", "published"),
            one(fields, "because"),
            query,
            variables,
            one(fields, "allow_writes") == "yes",
        )

    @property
    def chosen(self) -> beam_ray.Selection | list[str]:
        """The tasks as the API takes them."""
        return self.selection or list(self.tasks)

    def changes(self, task: beam_ray.Task | None) -> dict[str, Any]:
        """
        The changed input: dotted field to its new value; nothing where it is what the task was given.

        Raises:
            Unusable: what was written is no JSON, or leaves out a variable.
        """
        if task is None:
            return {}
        given, found = task.given, dict[str, Any]()
        if self.task_query is not None and self.task_query != shown_query(task):
            found["task_query"] = _json(self.task_query, "query") if given["query_is_json"] else self.task_query
        if self.variables is not None:
            before, after = json.loads(given["variables"]), _json(self.variables, "variables")
            if gone := sorted(set(before) - set(after)):
                raise Unusable(f"variables: {gone[0]!r} is left out; a variable can be changed or added, and not removed")
            found |= {f"variables.{name}": value for name, value in after.items() if name not in before or before[name] != value}
        return found

    def plans(self, store: beam_ray.Store, task: beam_ray.Task | None) -> list[Plan]:
        """What it would do and cost."""
        changes = self.changes(task)
        start = None if changes else self.from_node or None
        return store.plan_rerun(self.chosen, from_node=start, using=self.using, inputs=changes or None, allow_writes=self.allow_writes)

    def words(self, task: beam_ray.Task | None) -> list[str]:
        """The command's words."""
        words = ["rerun", *self.tasks]
        if self.selection:
            words += ["--from-run", str(self.selection.run)]
            words += ["--status", self.selection.status] if self.selection.status else []
            words += [word for label in self.selection.labels for word in ("--label", label)]
            words += ["--where", self.selection.where] if self.selection.where else []
        changes = self.changes(task)
        if self.from_node and not changes:
            words += ["--from", self.from_node]
        words += ["--using", self.using]
        words += ["--because", self.because] if self.because else []
        words += [
            word
            for name, value in changes.items()
            for word in ("--with", f"{name}={value if name == 'task_query' and isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
        ]
        return [*words, "--allow-writes"] if self.allow_writes else words

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The same as fields of a form."""
        found = [("task", task) for task in self.tasks]
        if self.selection:
            found += [("run", str(self.selection.run)), ("status", self.selection.status or ""), ("where", self.selection.where or "")]
            found += [("label", label) for label in self.selection.labels]
        found += [("from", self.from_node), ("using", self.using), ("because", self.because)]
        found += [(name, value) for name, value in (("task_query", self.task_query), ("variables", self.variables)) if value is not None]
        found += [("allow_writes", "yes")] if self.allow_writes else []
        return [(name, value) for name, value in found if value]


def _text(fields: Fields, name: str) -> str | None:
    """A text as it was typed, with the line ends that texts here have; None where nothing was."""
    written = "\n".join((fields.get(name) or [""])[-1].splitlines())
    return written if written.strip() else None


def _json(written: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{name}: this is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Unusable(f'{name}: write a JSON object such as {{"customer": "Ace"}}')
    return value


def shown_query(task: beam_ray.Task) -> str:
    """The query as the form shows it."""
    given = task.given
    return _pretty(given["task_query"]) if given["query_is_json"] else "\n".join(given["task_query"].splitlines())


def _pretty(written: str) -> str:
    return json.dumps(json.loads(written), ensure_ascii=False, indent=1)


def sheet(site: Site, path: str, fields: Fields) -> Page:
    """The form, with the plan of what it says."""
    wanted = Wanted.of(fields)
    task = _one_task(site, wanted)
    run = task.run if task else _run_of(site, wanted)
    plans, fault, changes = [], "", dict[str, Any]()
    try:
        require_definition(run, wanted.using)
        changes = wanted.changes(task)
        plans = wanted.plans(site.store, task)
        site.commands.require_within(plans)
    except BeamRayError as error:
        fault = str(error)
    count = sum(plan.tasks.num_rows for plan in plans) if plans else len(wanted.tasks)
    words = wanted.words(task) if not fault or changes else ["rerun", *wanted.tasks]
    values: dict[str, Any] = {
        "wanted": wanted,
        "task": task,
        "run": run,
        "shown": wanted.tasks[:SHOWN],
        "more": max(0, len(wanted.tasks) - SHOWN),
        "count": count,
        "order": run.workflow.order,
        "workflow": run.workflow,
        "choices": _choices(site, run, wanted),
        "editors": _editors(run, wanted),
        "pictures": [plan_picture(plan) for plan in plans[:3]],
        "plans": plans,
        "fault": fault,
        "usd": _sum(plan.max_usd for plan in plans),
        "calls": sum(plan.calls for plan in plans),
        "seconds": plans[0].seconds if len(plans) == 1 else None,
        "changed": [] if fault else _changed(site, run, wanted.using),
        "input_changed": changes,
        "variables": _pretty(task.given["variables"]) if task and task.given["variables"] != "{}" and len(task.given["variables"]) <= EDITABLE else None,
        "key": new_key(),
        "query": shown_query(task) if task and len(task.given["task_query"]) <= EDITABLE else None,
        "command": f"beam-ray {shlex.join(words)}{site.option}",
    }
    document = {"plans": [plan.document() for plan in plans], "refused": fault or None, "command": values["command"], "tasks": count}
    return Page("rerun", "Re-run", values, document, section="tasks", command=values["command"])


def _run_of(site: Site, wanted: Wanted) -> beam_ray.Run:
    return site.reader.run(wanted.selection.run if wanted.selection and wanted.selection.run else wanted.tasks[0].partition("/")[0])


def _one_task(site: Site, wanted: Wanted) -> beam_ray.Task | None:
    if len(wanted.tasks) != 1:
        return None
    return site.reader.named_task(wanted.tasks[0])


def require_definition(run: beam_ray.Run, using: str) -> None:
    """
    Check that a form chose a definition of the store, and no file of this machine.

    Raises:
        Unusable: it did not.
    """
    if using not in ("published", "original") and not names_draft(using, run.record.workflow):
        raise Unusable(f"a rerun from the console uses the published version, the original or a draft of {run.record.workflow}, not {using[:80]!r}")


def _choices(site: Site, run: beam_ray.Run, wanted: Wanted) -> list[dict[str, Any]]:
    """The definitions to choose from."""
    name = run.record.workflow
    try:
        newest = site.store.versions(name)[0].number
    except Unusable:
        newest = None
    plain = {"checked": False, "revisions": []}
    original = f"version {run.version}" if run.version else f"a draft, {run.record.definition_digest[:8]}"
    return [
        {
            "value": "published",
            "title": f"Published, version {newest}" if newest else "Published",
            "note": "The current version of the workflow." if newest else f"{name} was never published.",
            "able": newest is not None,
            **plain,
        },
        {"value": "original", "title": f"Original, {original}", "note": "The definition that the task was run with.", "able": True, **plain},
        *_drafts(site, run, wanted),
    ]


def _drafts(site: Site, run: beam_ray.Run, wanted: Wanted) -> list[dict[str, Any]]:
    """The drafts of the workflow, each with links to its earlier revisions."""
    found = []
    for newest in site.store.drafts(run.record.workflow):
        name = f"{newest.workflow}@{newest.name}"
        chosen = newest
        if wanted.using.startswith(f"{name}:") and wanted.using != newest.reference:
            try:
                chosen = site.store.draft(newest.workflow, newest.name, int(wanted.using.rpartition(":")[2]))
            except BeamRayError:
                chosen = newest
        elif wanted.using == name:
            chosen = newest
        others = [
            (n, with_query("/rerun", [*((key, value) for key, value in wanted.fields if key != "using"), ("using", f"{name}:{n}")]))
            for n in range(1, newest.number + 1)
        ]
        found.append(
            {
                "value": chosen.reference,
                "title": f"Draft {newest.name}",
                "note": f"Revision {chosen.number}, by {chosen.saved_by}, {ago(chosen.saved_at)}"
                + ("" if chosen.definition else "; it has errors, so it cannot be run"),
                "able": chosen.definition is not None,
                "checked": wanted.using in (name, chosen.reference),
                "revisions": [(n, link, n == chosen.number) for n, link in others][-8:] if newest.number > 1 else [],
            }
        )
    return found


def _editors(run: beam_ray.Run, wanted: Wanted) -> list[tuple[str, str]]:
    """The steps whose prompt can be edited, with where."""
    if not wanted.tasks:
        return []
    nodes = run.workflow.nodes
    return [(run.workflow.title_of(name), what_if_path(wanted.tasks[0], name)) for name in run.workflow.order if nodes[name].call]


def _changed(site: Site, run: beam_ray.Run, using: str) -> list[Any]:
    """What the chosen definition changes against the original's."""
    if using == "original":
        return []
    try:
        return list(site.store.diff(run.workflow, run.record.workflow if using == "published" else using))
    except BeamRayError:
        return []


def _sum(amounts: Any) -> float | None:
    every = list(amounts)
    return None if any(each is None for each in every) else sum(every)


def start(site: Site, path: str, fields: Fields) -> str:
    """Start the command; the page that follows it."""
    wanted = Wanted.of({name: values for name, values in fields.items() if name in FIELDS})
    key = one(fields, "key")
    task = _one_task(site, wanted)
    require_definition(task.run if task else _run_of(site, wanted), wanted.using)
    plans = wanted.plans(site.store, task)
    count = sum(plan.tasks.num_rows for plan in plans)
    about = f"Re-run {'task ' + task.id if task else f'{count:,} tasks'}" + (
        f" from {wanted.from_node}" if wanted.from_node and not wanted.changes(task) else ""
    )
    site.commands.start(key, wanted.words(task), about, plans=plans, subject=task.address if task else "")
    return f"/started/{key}"
