"""Compute the next version of a library. Pure: nothing is read or written here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_ray.errors import Unusable, did_you_mean
from beam_ray.store.tables import TaskRow

CONTENT = ("task_query", "query_is_json", "variables", "expected", "labels", "attachments", "tests", "notes", "recorded", "messages")
"""The fields in which two tasks of the same id are compared. Their origin is not one of them."""


@dataclass(frozen=True)
class Annotations:
    """Annotations for saved tasks; an empty field leaves a task as it is."""

    labels: tuple[str, ...] = ()
    tests: str = ""
    note: str = ""
    expected: str = ""
    """The expected outcome, as a JSON object."""


@dataclass(frozen=True)
class Change:
    """The tasks of the next version, and the ids of those that changed."""

    tasks: tuple[TaskRow, ...]
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the next version would equal the present one."""
        return not (self.added or self.replaced or self.removed)

    def __str__(self) -> str:
        counts = {word: len(getattr(self, word)) for word in ("added", "replaced", "removed")}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing changed"


def annotated(row: TaskRow, annotations: Annotations) -> TaskRow:
    """The task with *annotations*: labels are added to its own, other fields are replaced."""
    return {
        **row,
        "labels": list(dict.fromkeys([*(row["labels"] or ()), *annotations.labels])),
        "tests": annotations.tests or row["tests"] or None,
        "notes": annotations.note or row["notes"] or None,
        "expected": annotations.expected or row["expected"],
    }


@dataclass(frozen=True)
class Edit:
    """New annotations for saved tasks; a field that is None leaves a task as it is."""

    labels: tuple[str, ...] | None = None
    """All labels."""
    add_labels: tuple[str, ...] = ()
    remove_labels: tuple[str, ...] = ()
    tests: str | None = None
    """Empty for none."""
    note: str | None = None
    """Empty for none."""
    expected: str | None = None
    """The expected outcome, as a JSON object; empty for none."""


def edited(row: TaskRow, edit: Edit) -> TaskRow:
    """The task with the annotations of *edit*."""
    labels = list(edit.labels if edit.labels is not None else row["labels"] or ())
    kept = [label for label in labels if label not in edit.remove_labels]
    return {
        **row,
        "labels": list(dict.fromkeys([*kept, *edit.add_labels])),
        "tests": row["tests"] if edit.tests is None else edit.tests or None,
        "notes": row["notes"] if edit.note is None else edit.note or None,
        "expected": row["expected"] if edit.expected is None else edit.expected or None,
    }


def with_tasks_edited(before: Sequence[TaskRow], names: Iterable[str], edit: Edit) -> Change:
    """
    The library with *edit* made to the tasks with these ids.

    Raises:
        Unusable: The library has no such task.
    """
    chosen = _known(before, names)
    tasks = tuple(edited(row, edit) if row["task_id"] in chosen else row for row in before)
    changed = {new["task_id"]: None for old, new in zip(before, tasks, strict=True) if differences(old, new)}
    return Change(tasks if changed else tuple(before), replaced=tuple(changed), unchanged=tuple(name for name in chosen if name not in changed))


def with_tasks_added(before: Sequence[TaskRow], new: Iterable[TaskRow], *, replace: bool = False) -> Change:
    """
    The library with *new* tasks appended; tasks that it already has with the same content stay unchanged.

    Raises:
        Unusable: A task with the same id has different content, and *replace* is not set.
    """
    tasks = {row["task_id"]: row for row in before}
    given = _once(new)
    fresh = {name: None for name in given if name not in tasks}
    changed = {name: differences(tasks[name], row) for name, row in given.items() if name in tasks and differences(tasks[name], row)}
    if changed and not replace:
        lines = [f"{name}: different {', '.join(fields)}" for name, fields in list(changed.items())[:5]]
        many = f"{len(changed)} tasks are" if len(changed) > 1 else "a task is"
        raise Unusable(
            "\n  ".join([f"{many} already in the library with different content", *lines, "--replace uses the new content; a different id keeps both"])
        )
    tasks |= {name: row for name, row in given.items() if name in changed or name in fresh}
    return Change(tuple(tasks.values()), tuple(fresh), tuple(changed), unchanged=tuple(name for name in given if name not in changed and name not in fresh))


def with_tasks_removed(before: Sequence[TaskRow], names: Iterable[str]) -> Change:
    """
    The library without the tasks with these ids.

    Raises:
        Unusable: The library has no such task.
    """
    gone = _known(before, names)
    return Change(tuple(row for row in before if row["task_id"] not in gone), removed=tuple(gone))


def _known(before: Sequence[TaskRow], names: Iterable[str]) -> dict[str, None]:
    known = {row["task_id"]: None for row in before}
    wanted = dict.fromkeys(names)
    for name in wanted:
        if name not in known:
            raise Unusable("\n  ".join([f"the library has no task {name!r}", *did_you_mean(name, known)]))
    return wanted


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> tuple[str, ...]:
    """The fields in which the content of two tasks differs."""
    return tuple(name for name in CONTENT if _comparable(name, one.get(name)) != _comparable(name, other.get(name)))


def _comparable(name: str, value: Any) -> Any:
    if name == "labels":
        return set(value or ())
    if name == "attachments":
        return [(entry["name"], entry["sha256"]) for entry in value or ()]
    # not every file format can distinguish an empty text from none
    return (value or None) if name in ("tests", "notes", "recorded", "messages") else value


def _once(new: Iterable[TaskRow]) -> dict[str, TaskRow]:
    found: dict[str, TaskRow] = {}
    for row in new:
        name = row["task_id"]
        fields = differences(found[name], row) if name in found else ()
        if fields:
            where = " and ".join(str(each["origin"]) for each in (found[name], row) if each["origin"])
            raise Unusable(f"two tasks have the id {name!r} but different {', '.join(fields)}\n  give only one of them: {where or 'ids must be unique'}")
        found.setdefault(name, row)
    return found
