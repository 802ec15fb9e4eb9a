"""Running tasks again: which definition, from which node, with which input, why, and what it costs before it starts."""

import shlex
from dataclasses import dataclass
from typing import Any

import beam_ray
from beam_ray import Plan, Selection
from beam_ray.console.commands import new_key
from beam_ray.console.forms import Fields, one
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import BeamRayError, Unusable

FIELDS = ("task", "run", "status", "label", "where", "from", "using", "because", "task_query", "allow_writes")
SHOWN = 20
"""Tasks that are named one by one."""


@dataclass(frozen=True)
class Wanted:
    """What a form asks for."""

    tasks: tuple[str, ...]
    selection: Selection | None
    from_node: str
    using: str
    because: str
    task_query: str | None
    allow_writes: bool

    @classmethod
    def of(cls, fields: Fields) -> "Wanted":
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
            selection = Selection(run, status=one(fields, "status") or None, labels=tuple(fields.get("label", ())), where=one(fields, "where") or None)
        written = "\n".join((fields.get("task_query") or [""])[-1].splitlines())
        return cls(
            tasks,
            selection,
            one(fields, "from"),
            one(fields, "using", "published"),
            one(fields, "because"),
            written if written.strip() and len(tasks) == 1 else None,
            one(fields, "allow_writes") == "yes",
        )

    @property
    def chosen(self) -> "Selection | list[str]":
        """The tasks as the API takes them."""
        return self.selection or list(self.tasks)

    def changes(self, task: beam_ray.Task | None) -> dict[str, str]:
        """The changed input; nothing where it is what the task was given."""
        if self.task_query is None or task is None or task.given["query_is_json"] or self.task_query == "\n".join(task.given["task_query"].splitlines()):
            return {}
        return {"task_query": self.task_query}

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
        words += [word for name, value in changes.items() for word in ("--with", f"{name}={value}")]
        return [*words, "--allow-writes"] if self.allow_writes else words

    @property
    def fields(self) -> list[tuple[str, str]]:
        """The same as fields of a form."""
        found = [("task", task) for task in self.tasks]
        if self.selection:
            found += [("run", str(self.selection.run)), ("status", self.selection.status or ""), ("where", self.selection.where or "")]
            found += [("label", label) for label in self.selection.labels]
        found += [("from", self.from_node), ("using", self.using), ("because", self.because)]
        found += [("task_query", self.task_query)] if self.task_query is not None else []
        found += [("allow_writes", "yes")] if self.allow_writes else []
        return [(name, value) for name, value in found if value]


def sheet(site: Site, path: str, fields: Fields) -> Page:
    """The form, with the plan of what it says."""
    wanted = Wanted.of(fields)
    task = _one_task(site, wanted)
    run = task.run if task else site.reader.run(wanted.selection.run if wanted.selection and wanted.selection.run else wanted.tasks[0].partition("/")[0])
    plans, fault = [], ""
    try:
        plans = wanted.plans(site.store, task)
        site.commands.require_within(plans)
    except BeamRayError as error:
        fault = str(error)
    count = sum(plan.tasks.num_rows for plan in plans) if plans else len(wanted.tasks)
    words = wanted.words(task)
    values: dict[str, Any] = {
        "wanted": wanted,
        "task": task,
        "run": run,
        "shown": wanted.tasks[:SHOWN],
        "more": max(0, len(wanted.tasks) - SHOWN),
        "count": count,
        "order": run.workflow.order,
        "workflow": run.workflow,
        "choices": _choices(site, run),
        "plans": plans,
        "fault": fault,
        "usd": _sum(plan.max_usd for plan in plans),
        "calls": sum(plan.calls for plan in plans),
        "seconds": plans[0].seconds if len(plans) == 1 else None,
        "changed": [] if fault else _changed(site, run, wanted.using),
        "input_changed": bool(wanted.changes(task)),
        "key": new_key(),
        "query": task.given["task_query"] if task and not task.given["query_is_json"] else None,
        "command": f"beam-ray {shlex.join(words)}{site.option}",
    }
    document = {"plans": [plan.document() for plan in plans], "refused": fault or None, "command": values["command"], "tasks": count}
    return Page("rerun", "Re-run", values, document, section="tasks", command=values["command"])


def _one_task(site: Site, wanted: Wanted) -> beam_ray.Task | None:
    if len(wanted.tasks) != 1:
        return None
    found = site.store.task(wanted.tasks[0])
    return site.reader.task(beam_ray.Address(found.run.id, found.id, found.trial))


def _choices(site: Site, run: beam_ray.Run) -> list[dict[str, Any]]:
    """The definitions to choose from."""
    name = run.record.workflow
    try:
        newest = site.store.versions(name)[0].number
    except Unusable:
        newest = None
    original = f"version {run.version}" if run.version else f"a draft, {run.record.definition_digest[:8]}"
    return [
        {
            "value": "published",
            "title": f"Published, version {newest}" if newest else "Published",
            "note": "The current version of the workflow." if newest else f"{name} was never published.",
            "able": newest is not None,
        },
        {"value": "original", "title": f"Original, {original}", "note": "The definition that the task was run with.", "able": True},
    ]


def _changed(site: Site, run: beam_ray.Run, using: str) -> list[Any]:
    """What the chosen definition changes against the original's."""
    if using != "published":
        return []
    try:
        return list(site.store.diff(run.workflow, run.record.workflow))
    except BeamRayError:
        return []


def _sum(amounts: Any) -> float | None:
    every = list(amounts)
    return None if any(each is None for each in every) else sum(every)


def start(site: Site, path: str, fields: Fields) -> str:
    """Start the command; the page that follows it."""
    wanted = Wanted.of({name: values for name, values in fields.items() if name in FIELDS})
    if wanted.using not in ("published", "original"):
        raise Unusable("a rerun from the console uses the published version or the original\n  beam-ray rerun --using FILE  uses a file")
    key = one(fields, "key")
    task = _one_task(site, wanted)
    plans = wanted.plans(site.store, task)
    count = sum(plan.tasks.num_rows for plan in plans)
    about = f"Re-run {'task ' + task.id if task else f'{count:,} tasks'}" + (
        f" from {wanted.from_node}" if wanted.from_node and not wanted.changes(task) else ""
    )
    site.commands.start(key, wanted.words(task), about, plans=plans, subject=task.address if task else "")
    return f"/started/{key}"
