"""What a field of tasks holds, such as ``variables.customer``: to group tasks by it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from beam_ray.define.fingerprint import Json
from beam_ray.errors import Unusable, did_you_mean

SOURCES = ("variables", "task_query", "expected")
"""Columns that may hold JSON."""
LABELS = "labels"


def field_fault(field: str) -> str:
    """Why *field* names nothing that tasks could be grouped by, or an empty string."""
    if field == LABELS or re.fullmatch(rf"({'|'.join(SOURCES)})(\.\w+)+|task_query", field):
        return ""
    near = did_you_mean(field.partition(".")[0], (*SOURCES, LABELS))
    return "\n".join([f"{field!r} is no field of tasks; write variables.NAME, task_query.NAME, expected.NAME or labels", *near])


def field_values(tasks: pa.Table, field: str) -> Mapping[str, str]:
    """
    Task id to what the task has in *field*, as text; tasks without it are not there.

    Raises:
        Unusable: no task has it.
    """
    column, *path = field.split(".")
    found = {}
    for task, written, is_json in zip(tasks["task_id"].to_pylist(), tasks[column].to_pylist(), tasks["query_is_json"].to_pylist(), strict=True):
        value = _read(written, is_json) if column == "task_query" else json.loads(written) if written else None
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
        if value is not None:
            found[task] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    if not found:
        names = _names(tasks, column) if path else ()
        there = (f"there are: {', '.join(f'{column}.{name}' for name in names[:20])}",) if names else ()
        raise Unusable("\n  ".join([f"no task has {field}", *there, *did_you_mean(path[0] if path else field, names)]))
    return found


def label_values(tasks: pa.Table) -> Mapping[str, tuple[str, ...]]:
    """Task id to the task's labels."""
    return {task: tuple(labels or ()) for task, labels in zip(tasks["task_id"].to_pylist(), tasks[LABELS].to_pylist(), strict=True)}


def _read(query: str, is_json: bool | None) -> Json:
    return json.loads(query) if is_json else query


def _names(tasks: pa.Table, column: str) -> tuple[str, ...]:
    found: dict[str, Any] = {}
    for written, is_json in zip(tasks[column].to_pylist()[:1_000], tasks["query_is_json"].to_pylist()[:1_000], strict=True):
        if written and (column != "task_query" or is_json):
            value = json.loads(written)
            found |= value if isinstance(value, dict) else {}
    return tuple(sorted(found))
