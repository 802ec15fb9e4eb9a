"""Changing a library: which tasks the next version has. Nothing is read or written here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from beam_ray.errors import Unusable, did_you_mean

Row = dict[str, Any]
"""A task, as a row of the table TASKS."""

CONTENT = ("task_query", "query_is_json", "variables", "expected", "labels", "attachments", "tests", "notes", "recorded")
"""What makes two tasks of the same id equal; where they were saved from does not."""


@dataclass(frozen=True)
class Remarks:
    """What a person says about the tasks that are saved; what is empty leaves a task as it is."""

    labels: tuple[str, ...] = ()
    tests: str = ""
    note: str = ""
    expected: str = ""
    """A JSON object."""


@dataclass(frozen=True)
class Change:
    """The tasks of the next version, and what became of those that were named."""

    tasks: tuple[Row, ...]
    added: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether the next version would be the last one again."""
        return not (self.added or self.replaced or self.removed)

    def __str__(self) -> str:
        counts = {word: len(getattr(self, word)) for word in ("added", "replaced", "removed")}
        return ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing changed"


def remarked(row: Mapping[str, Any], remarks: Remarks) -> Row:
    """The task with the remarks: labels are added to its own, the rest takes the place of what was there."""
    return {
        **row,
        "labels": list(dict.fromkeys([*(row["labels"] or ()), *remarks.labels])),
        "tests": remarks.tests or row["tests"] or None,
        "notes": remarks.note or row["notes"] or None,
        "expected": remarks.expected or row["expected"],
    }


def adding(before: Sequence[Row], new: Iterable[Row], *, replace: bool = False) -> Change:
    """
    The library with the *new* tasks at its end; one that is there already with the same content is left alone.

    Raises:
        Unusable: a task of that id is there with other content, and *replace* does not allow it.
    """
    tasks = {row["task_id"]: row for row in before}
    given = _once(new)
    fresh = [name for name in given if name not in tasks]
    changed = {name: differences(tasks[name], row) for name, row in given.items() if name in tasks and differences(tasks[name], row)}
    if changed and not replace:
        lines = [f"{name}: other {', '.join(fields)}" for name, fields in list(changed.items())[:5]]
        many = f"{len(changed)} tasks are" if len(changed) > 1 else "a task is"
        raise Unusable("\n  ".join([f"{many} in the library already, with other content", *lines, "--replace  takes the new content; another id keeps both"]))
    tasks |= {name: row for name, row in given.items() if name in changed or name in fresh}
    return Change(tuple(tasks.values()), tuple(fresh), tuple(changed), unchanged=tuple(name for name in given if name not in changed and name not in fresh))


def removing(before: Sequence[Row], names: Iterable[str]) -> Change:
    """
    The library without the tasks of these ids.

    Raises:
        Unusable: it has no such task.
    """
    known = [row["task_id"] for row in before]
    gone = tuple(dict.fromkeys(names))
    for name in gone:
        if name not in known:
            raise Unusable("\n  ".join([f"the library has no task {name!r}", *did_you_mean(name, known)]))
    return Change(tuple(row for row in before if row["task_id"] not in gone), removed=gone)


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> tuple[str, ...]:
    """The fields of the content in which two tasks differ."""
    return tuple(name for name in CONTENT if _comparable(name, one.get(name)) != _comparable(name, other.get(name)))


def _comparable(name: str, value: Any) -> Any:
    if name == "labels":
        return set(value or ())
    if name == "attachments":
        return [(entry["name"], entry["sha256"]) for entry in value or ()]
    # a file cannot always tell an empty remark from none
    return (value or None) if name in ("tests", "notes", "recorded") else value


def _once(new: Iterable[Row]) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for row in new:
        name = row["task_id"]
        fields = differences(found[name], row) if name in found else ()
        if fields:
            where = " and ".join(str(each["origin"]) for each in (found[name], row) if each["origin"])
            raise Unusable(f"two of the tasks have the id {name!r} but other {', '.join(fields)}\n  name one of them: {where or 'ids must differ'}")
        found.setdefault(name, row)
    return found
