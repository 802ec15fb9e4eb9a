"""Changes of libraries: saving, removing and editing tasks, the list of versions, and what differs between two."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

from beam_ray.api.display import Display, Displayed
from beam_ray.api.libraries import Library, library
from beam_ray.api.location import Location
from beam_ray.api.reruns import Selection
from beam_ray.api.task_list import TaskQuery, newest_addresses
from beam_ray.define.fingerprint import Json, JsonObject, strict_json
from beam_ray.errors import Unusable, did_you_mean
from beam_ray.library.changes import Annotations, Edit, annotated, differences
from beam_ray.library.coverage import routes_of
from beam_ray.library.selection import EndedTask, ended_tasks, ended_tasks_at, ended_tasks_of_run, expected_outcomes
from beam_ray.library.versions import LibraryUpdate
from beam_ray.library.versions import add as add_tasks
from beam_ray.library.versions import edit as edit_tasks
from beam_ray.library.versions import remove as remove_tasks
from beam_ray.store.libraries import library_at, library_versions
from beam_ray.store.parquet import to_json
from beam_ray.store.runs import Run as StoredRun
from beam_ray.store.tables import TaskRow
from beam_ray.tasks.sources import read, with_origins


@dataclass(frozen=True)
class SavedTasks:
    """Details that are stored with tasks saved in a library."""

    labels: tuple[str, ...] = ()
    """Labels added to the tasks' own, such as a scenario, or ``edge``."""
    tests: str = ""
    """The node or route that they are there to test."""
    note: str = ""
    """Free text for readers."""
    expected: Mapping[str, Json] | None = None
    """The expected outcome, by field."""
    expect_output: bool = False
    """Use the output as the expected outcome; only for tasks that passed."""
    expect_output_of: str = ""
    """With *expect_output*: this node's output; otherwise the fields of the last nodes."""
    replace: bool = False
    """Replace a task that is there already with other content."""


@dataclass(frozen=True)
class TaskEdit:
    """What is changed about saved tasks; what is None stays as it is."""

    labels: tuple[str, ...] | None = None
    """All labels."""
    add_labels: tuple[str, ...] = ()
    remove_labels: tuple[str, ...] = ()
    tests: str | None = None
    """The node or route that the tasks are there to test; empty for none."""
    note: str | None = None
    """Empty for none."""
    expected: Mapping[str, Json] | None = None
    """The expected outcome, by field."""
    no_expected: bool = False
    """Remove the expected outcome."""


class LibraryChangeDocument(TypedDict):
    """A change to a library as ``--json`` prints it."""

    library: str
    version: int
    tasks: int
    size_class: str
    added: list[str]
    replaced: list[str]
    removed: list[str]
    unchanged: list[str]


class LibraryVersionDocument(TypedDict):
    """A version of a library as ``--json`` prints it."""

    version: int
    tasks: int
    saved_at: str | None
    saved_by: str | None
    change: str


@dataclass(frozen=True, repr=False)
class LibraryChange(Displayed):
    """A library after tasks were added or removed; where nothing changed, the version is the old one."""

    library: Library
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: tuple[str, ...]
    summary: str
    """The change in words."""
    notes: tuple[str, ...] = ()
    """What the caller should know, such as a name that no node or route has."""

    @property
    def empty(self) -> bool:
        """Whether nothing changed."""
        return not (self.added or self.replaced or self.removed)

    @property
    def workflow(self) -> str:
        """The published workflow that the newest of these tasks ran with; empty where none is known."""
        record = self.library.origin_record
        return record.workflow if record and record.version else ""

    def display(self) -> Display:
        return Display(str(self.library), (("change", self.summary), ("tasks", self.library.size)))

    def document(self) -> LibraryChangeDocument:
        """The change as a JSON document."""
        return {
            "library": self.library.name,
            "version": self.library.version,
            "tasks": self.library.size,
            "size_class": self.library.size_class,
            "added": list(self.added),
            "replaced": list(self.replaced),
            "removed": list(self.removed),
            "unchanged": list(self.unchanged),
        }


@dataclass(frozen=True)
class LibraryVersion:
    """One version in the history of a library."""

    number: int
    tasks: int
    saved_at: str
    """ISO 8601, UTC; empty when unknown."""
    saved_by: str
    change: str
    """What this version changed, in words."""

    def document(self) -> LibraryVersionDocument:
        """The version as a JSON document."""
        return {
            "version": self.number,
            "tasks": self.tasks,
            "saved_at": self.saved_at or None,
            "saved_by": self.saved_by or None,
            "change": self.change,
        }


class FieldChange(TypedDict):
    """A field of a saved task in two versions."""

    field: str
    before: Json
    after: Json


class LibraryDiffDocument(TypedDict):
    """What differs between two versions of a library, as ``--json`` prints it."""

    library: str
    before: int
    after: int
    added: list[str]
    removed: list[str]
    changed: dict[str, list[FieldChange]]
    unchanged: int


@dataclass(frozen=True, repr=False)
class LibraryDiff(Displayed):
    """What differs between two versions of a library."""

    library: str
    before: int
    after: int
    added: tuple[str, ...]
    """Ids of tasks that only the later version has."""
    removed: tuple[str, ...]
    changed: Mapping[str, tuple[FieldChange, ...]] = field(compare=False)
    """Id of a task in both to the fields that differ."""
    unchanged: int = 0

    @property
    def empty(self) -> bool:
        """Whether both have the same tasks."""
        return not (self.added or self.removed or self.changed)

    def display(self) -> Display:
        rows = [(task, each["field"], each["before"], each["after"]) for task, fields in self.changed.items() for each in fields]
        facts = (("added", len(self.added)), ("removed", len(self.removed)), ("changed", len(self.changed)), ("unchanged", self.unchanged))
        return Display(f"{self.library}@{self.before} → @{self.after}", facts, ("task", "field", "before", "after"), rows)

    def document(self) -> LibraryDiffDocument:
        """The difference as a JSON document."""
        return {
            "library": self.library,
            "before": self.before,
            "after": self.after,
            "added": list(self.added),
            "removed": list(self.removed),
            "changed": {task: list(fields) for task, fields in self.changed.items()},
            "unchanged": self.unchanged,
        }


def add_to_library(store: Location, name: str, tasks: Any, *, saved: SavedTasks | None = None) -> LibraryChange:
    """See ``Store.add_to_library``."""
    saved = saved or SavedTasks()
    annotations = Annotations(saved.labels, saved.tests, saved.note, to_json(saved.expected) if saved.expected is not None else "")
    outcomes: dict[str, str] = {}
    rows: list[TaskRow]
    notes: tuple[str, ...] = ()
    chosen = _ended(store, tasks)
    if chosen is None:
        if saved.expect_output:
            raise Unusable("expected outcomes are taken from the outputs of runs; a file has its own column 'expected'")
        found, named = read(store.objects, tasks)
        rows = (with_origins(found, named.removeprefix("run:")) if named.startswith("run:") else found).to_pylist()
    else:
        notes = _advice(store, chosen, saved.tests)
        outcomes = expected_outcomes(store.objects, chosen, saved.expect_output_of) if saved.expect_output else {}
        rows = [each.saved for each in chosen]
    rows = [annotated({**row, "expected": outcomes.get(str(row["origin"]), row["expected"])}, annotations) for row in rows]
    return change_of(store, add_tasks(store.objects, name, rows, replace=saved.replace), notes)


def remove_from_library(store: Location, name: str, tasks: Sequence[str]) -> LibraryChange:
    """See ``Store.remove_from_library``."""
    return change_of(store, remove_tasks(store.existing(), name, tasks), ())


def _ended(store: Location, tasks: Any) -> list[EndedTask] | None:
    """Tasks of past runs, where *tasks* names such; None where it is a source of tasks."""
    if isinstance(tasks, TaskQuery):
        addresses = newest_addresses(store, tasks)
        if not addresses:
            raise Unusable("no finished task matches, so there is nothing to save")
        return ended_tasks(store.objects, addresses)
    if isinstance(tasks, Selection):
        if not tasks.run:
            raise Unusable("tasks of a library are in a library already; select from a run")
        return ended_tasks_of_run(store.existing(), tasks.run, status=tasks.status, labels=tasks.labels, where=tasks.where)
    if hasattr(tasks, "address"):
        return ended_tasks_at(store.existing(), [tasks.address])
    if isinstance(tasks, list | tuple) and tasks and all(isinstance(each, str) or hasattr(each, "address") for each in tasks):
        return ended_tasks_at(store.existing(), [each if isinstance(each, str) else each.address for each in tasks])
    return None


def _advice(store: Location, chosen: Sequence[EndedTask], tests: str) -> tuple[str, ...]:
    if not tests:
        return ()
    plan = StoredRun(store.objects, chosen[0].address.run).record.plan
    known = [*plan.order, *routes_of(plan)]
    if tests in known:
        return ()
    return ("\n  ".join([f"note: the workflow of run {chosen[0].address.run} has no node or route {tests!r}", *did_you_mean(tests, known)]),)


def edit_library(store: Location, name: str, tasks: Sequence[str], edit: TaskEdit, *, seen: int | None = None) -> LibraryChange:
    """See ``Store.edit_library``."""
    expected = "" if edit.no_expected else to_json(edit.expected) if edit.expected is not None else None
    made = Edit(edit.labels, edit.add_labels, edit.remove_labels, edit.tests, edit.note, expected)
    return change_of(store, edit_tasks(store.existing(), name, tasks, made, seen=seen), ())


def change_of(store: Location, update: LibraryUpdate, notes: tuple[str, ...]) -> LibraryChange:
    """What an update changed, with the library after it."""
    change = update.change
    found = library(store, f"{update.name}@{update.version}")
    return LibraryChange(found, change.added, change.replaced, change.removed, change.unchanged, str(change), notes)


def list_library_versions(store: Location, name: str, *, limit: int | None = None) -> list[LibraryVersion]:
    """See ``Store.library_versions``."""
    objects = store.existing()
    newest = library_at(objects, name)
    found = [newest]
    for number in reversed(library_versions(objects, newest.name)[:-1]):
        if limit is not None and len(found) >= limit:
            break
        found.append(library_at(objects, f"{newest.name}@{number}"))
    return [LibraryVersion(each.version, each.tasks.num_rows, each.saved_at, each.saved_by, each.change) for each in found]


def diff_libraries(store: Location, name: str, before: int, after: int) -> LibraryDiff:
    """See ``Store.diff_library``."""
    objects = store.existing()
    old, new = ({row["task_id"]: row for row in library_at(objects, f"{name}@{number}").tasks.to_pylist()} for number in (before, after))
    both = [task for task in new if task in old]
    fields = {task: _fields(old[task], new[task]) for task in both}
    changed = {task: found for task, found in fields.items() if found}
    return LibraryDiff(
        name,
        before,
        after,
        tuple(task for task in new if task not in old),
        tuple(task for task in old if task not in new),
        changed,
        len(both) - len(changed),
    )


_NAMES = {"query_is_json": "task_query"}
_AS_JSON = ("variables", "expected", "recorded", "messages")


def _fields(before: TaskRow, after: TaskRow) -> tuple[FieldChange, ...]:
    names = dict.fromkeys(_NAMES.get(name, name) for name in differences(before, after))
    return tuple({"field": name, "before": _value(before, name), "after": _value(after, name)} for name in names)


def _value(row: TaskRow, name: str) -> Json:
    value = dict(row)[name]
    if name == "attachments":
        attached: list[JsonObject] = [{"name": entry["name"], "sha256": entry["sha256"]} for entry in row["attachments"] or ()]
        return attached
    if value is None or (name not in _AS_JSON and not (name == "task_query" and row["query_is_json"])):
        return value
    read: Json = strict_json(str(value))
    return read
