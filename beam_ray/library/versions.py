"""Write a change of a library as its next version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beam_ray.errors import Unusable
from beam_ray.library.changes import Change, Edit, differences, with_tasks_added, with_tasks_edited, with_tasks_removed
from beam_ray.store.libraries import library_at, newest_library, write_library
from beam_ray.store.objects import Objects
from beam_ray.store.parquet import to_table
from beam_ray.store.tables import TASKS, TaskRow


@dataclass(frozen=True)
class LibraryUpdate:
    """A library after a change; where nothing changed, the version stays the same."""

    name: str
    version: int
    change: Change

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def add(objects: Objects, name: str, new: Sequence[TaskRow], *, replace: bool = False) -> LibraryUpdate:
    """
    Add tasks to the library, which is created if it does not exist.

    Raises:
        Unusable: A task exists with different content, or the library was changed concurrently.
    """
    return _write_next(objects, name, lambda before: with_tasks_added(before, new, replace=replace))


def remove(objects: Objects, name: str, names: Sequence[str]) -> LibraryUpdate:
    """
    Remove tasks from the library; earlier versions keep them.

    Raises:
        Unusable: There is no such library or task, or the library was changed concurrently.
    """
    library_at(objects, name)
    return _write_next(objects, name, lambda before: with_tasks_removed(before, names))


def edit(objects: Objects, name: str, names: Sequence[str], made: Edit, *, seen: int | None = None) -> LibraryUpdate:
    """
    Change annotations of tasks of the library.

    Args:
        seen: The version that whoever edits has seen; None for the newest.

    Raises:
        Unusable: There is no such library or task, a task was changed after version *seen*, or the library was changed concurrently.
    """
    library_at(objects, name)

    def decide(before: Sequence[TaskRow]) -> Change:
        if seen is not None:
            _require_unchanged(library_at(objects, f"{name}@{seen}").tasks.to_pylist(), before, names, f"{name}@{seen}")
        return with_tasks_edited(before, names, made)

    return _write_next(objects, name, decide)


def _require_unchanged(seen: Sequence[TaskRow], now: Sequence[TaskRow], names: Sequence[str], version: str) -> None:
    before, after = ({row["task_id"]: row for row in rows} for rows in (seen, now))
    for name in names:
        fields = differences(before[name], after[name]) if name in before and name in after else ()
        if fields:
            raise Unusable(f"task {name!r} was changed after {version}: {', '.join(fields)}\n  look at the newest version, and edit it again")


def _write_next(objects: Objects, name: str, decide: Callable[[Sequence[TaskRow]], Change]) -> LibraryUpdate:
    library = newest_library(objects, name)
    before = library.tasks.to_pylist()
    change = decide(before)
    if change.empty:
        return LibraryUpdate(name, library.version, change)
    inputs = {row["task_id"]: row["inputs"] for row in before}
    # new annotations do not change the age of a task
    since = {
        row["task_id"]: library.since[row["task_id"]] for row in change.tasks if inputs.get(row["task_id"]) == row["inputs"] and row["task_id"] in library.since
    }
    version = write_library(objects, name, to_table(TASKS, change.tasks), library.version, change=str(change), since=since)
    return LibraryUpdate(name, version, change)
