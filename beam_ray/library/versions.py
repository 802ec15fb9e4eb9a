"""Write a change of a library as its next version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beam_ray.library.changes import Change, with_tasks_added, with_tasks_removed
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
