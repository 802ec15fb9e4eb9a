"""Keeping a change of a library as its next version."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from beam_ray.library.changes import Change, Row, adding, removing
from beam_ray.store.libraries import library_at, newest_library, write_library
from beam_ray.store.objects import Objects
from beam_ray.store.tables import TASKS, to_table


@dataclass(frozen=True)
class Kept:
    """A library after a change; where nothing changed, the version is the old one."""

    name: str
    version: int
    change: Change

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


def add(objects: Objects, name: str, new: Sequence[Row], *, replace: bool = False) -> Kept:
    """
    Add tasks to the library, which is made if it is not there.

    Raises:
        Unusable: a task is there with other content, or someone else changed the library in this moment.
    """
    return _keep(objects, name, lambda before: adding(before, new, replace=replace))


def remove(objects: Objects, name: str, names: Sequence[str]) -> Kept:
    """
    Take tasks out of the library; its earlier versions keep them.

    Raises:
        Unusable: there is no such library or task, or someone else changed the library in this moment.
    """
    library_at(objects, name)
    return _keep(objects, name, lambda before: removing(before, names))


def _keep(objects: Objects, name: str, decide: Callable[[Sequence[Row]], Change]) -> Kept:
    library = newest_library(objects, name)
    before = library.tasks.to_pylist()
    change = decide(before)
    if change.empty:
        return Kept(name, library.version, change)
    inputs = {row["task_id"]: row["inputs"] for row in before}
    # a task whose remarks alone were changed is as old as it was
    since = {
        row["task_id"]: library.since[row["task_id"]] for row in change.tasks if inputs.get(row["task_id"]) == row["inputs"] and row["task_id"] in library.since
    }
    version = write_library(objects, name, to_table(TASKS, change.tasks), library.version, change=str(change), since=since)
    return Kept(name, version, change)
