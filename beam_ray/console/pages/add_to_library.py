"""Saving tasks of runs in a library: which, in which library, with which labels, and what is expected of them."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import shlex
import subprocess
from dataclasses import dataclass
from typing import Any

from beam_ray import TASK_FILTERS, task_query
from beam_ray.console.commands import new_key
from beam_ray.console.forms import Fields, one
from beam_ray.console.links import library_path
from beam_ray.console.pages.tasks import filter_chips, filter_words
from beam_ray.console.rendering import Page
from beam_ray.console.site import Site
from beam_ray.errors import Unusable

FIELDS = ("task", "all", *TASK_FILTERS, "library", "labels", "tests", "note", "expect", "of", "replace")
SHOWN = 20
"""Tasks that are named one by one."""
WAIT_S = 8.0
"""Seconds for which a form waits for its command, before the page of the command is shown."""


@dataclass(frozen=True)
class Wanted:
    """What the form asks for."""

    tasks: tuple[str, ...]
    filters: Fields | None
    """The filter of the list of tasks; None where tasks are named."""

    @classmethod
    def of(cls, fields: Fields) -> Wanted:
        """
        What the fields say.

        Raises:
            Unusable: they name no task.
        """
        tasks = tuple(dict.fromkeys(fields.get("task", ())))
        if any("/" not in task or not task[0].isalnum() for task in tasks):
            raise Unusable("a task is named by its address, RUN/TASK")
        if not tasks and not one(fields, "all"):
            raise Unusable("choose at least one task\n  on the Tasks page, tick tasks and press Add to library")
        return cls(tasks, None if tasks else {name: values for name, values in fields.items() if name in TASK_FILTERS})

    def words(self, fields: Fields) -> list[str]:
        """The command's words."""
        name = one(fields, "new_library") or one(fields, "library")
        if not name or name.startswith("-"):
            raise Unusable("choose a library, or name a new one")
        words = ["library", "add", name, *self.tasks]
        if self.filters is not None:
            words += ["--from-any-run", *filter_words(task_query(self.filters))]
        for label in labels_of(one(fields, "labels")):
            words += ["--with-label", label]
        words += [word for option in ("tests", "note") if one(fields, option) for word in (f"--{option}", one(fields, option))]
        if one(fields, "expect") == "output":
            words += ["--expect-from-output", *(["--of", one(fields, "of")] if one(fields, "of") else [])]
        return [*words, "--replace"] if one(fields, "replace") else words


def sheet(site: Site, path: str, fields: Fields) -> Page:
    """The form."""
    wanted = Wanted.of(fields)
    count = len(wanted.tasks)
    if wanted.filters is not None:
        count = site.store.list_tasks(task_query({**wanted.filters, "limit": ["50"]})).matching
    libraries = site.store.libraries()
    chosen = one(fields, "library")
    values: dict[str, Any] = {
        "wanted": wanted,
        "count": count,
        "shown": wanted.tasks[:SHOWN],
        "more": max(0, len(wanted.tasks) - SHOWN),
        "chips": filter_chips(wanted.filters) if wanted.filters else [],
        "filters": [(name, value) for name, values in (wanted.filters or {}).items() for value in values],
        "libraries": libraries,
        "chosen": chosen if chosen in [each.name for each in libraries] else libraries[0].name if libraries and not chosen else "",
        "new_name": chosen if chosen not in [each.name for each in libraries] else "",
        "fields": {name: one(fields, name) for name in FIELDS},
        "order": _order(site, wanted),
        "key": new_key(),
    }
    named = {**fields, "library": [values["chosen"] or values["new_name"] or "NAME"]}
    command = f"beam-ray {shlex.join(wanted.words(named))}{site.store.option}"
    document = {"tasks": count, "command": command, "libraries": [each.summary() for each in libraries]}
    return Page("add_to_library", "Add to a library", values, document, section="libraries", command=command)


def _order(site: Site, wanted: Wanted) -> list[str]:
    """The nodes whose output can be expected."""
    run = wanted.tasks[0].partition("/")[0] if wanted.tasks else one(wanted.filters or {}, "run")
    return list(site.reader.run(run).workflow.order) if run else []


def save(site: Site, path: str, fields: Fields) -> str:
    """Save the tasks by the command; the library's page, or that of the command."""
    wanted = Wanted.of(fields)
    words, key = wanted.words(fields), one(fields, "key")
    site.commands.start(key, words, f"Add {'the tasks that match' if wanted.filters is not None else f'{len(wanted.tasks):,} tasks'} to {words[2]}")
    return done_or_shown(site, key)


def labels_of(written: str) -> tuple[str, ...]:
    """Labels as they are typed: separated by commas."""
    return tuple(dict.fromkeys(filter(None, (label.strip() for label in written.split(",")))))


def done_or_shown(site: Site, key: str) -> str:
    """
    The page of the library that a command has changed; that of the command where it takes longer.

    Raises:
        Unusable: the command was refused, with what it says.
    """
    started = site.commands.get(key)
    try:
        code = started.process.wait(WAIT_S)
    except subprocess.TimeoutExpired:
        return f"/started/{key}"
    if code == 0:
        return changed_path(started.result) or f"/started/{key}"
    raise Unusable(started.messages.strip() or f"the command ended with exit code {code}")


def changed_path(result: Any) -> str:
    """The page of the library that a command says it has changed; empty for other commands."""
    if not isinstance(result, dict) or "library" not in result or "unchanged" not in result:
        return ""
    return library_path(str(result["library"]))
