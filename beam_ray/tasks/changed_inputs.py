"""
What-if: tasks of an earlier run with some of their input changed.

    {"task_query": "…", "variables.customer": "Ace", "expected": {"total": 12.5}}

A field is the query, the messages before it, or a part of the variables, of the expected outcome or
of a query that is an object.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa

from beam_ray.define.fingerprint import Json, JsonObject, flatten, strict_json
from beam_ray.define.workflow import Workflow
from beam_ray.define.yaml_file import read_yaml
from beam_ray.errors import BadDefinition, Unusable, did_you_mean
from beam_ray.store.parquet import to_json, to_table
from beam_ray.store.tables import TASKS, TaskRow
from beam_ray.tasks.messages import KEPT_IMAGE, read_messages
from beam_ray.tasks.parse import inputs_digest
from beam_ray.tasks.rows import MAX_ROW

OBJECTS = ("variables", "expected")
"""Fields whose parts are changed one by one."""

Changes = Mapping[str, Json]
"""Dotted field to its new value; a mapping under *variables* or *expected* changes the parts that it names."""


def read_changes(path: Path) -> JsonObject:
    """
    The changes in a JSON or YAML file.

    Raises:
        BadDefinition: it is no object.
        Unusable: it cannot be read.
    """
    source = read_yaml(path)
    if not isinstance(source.data, Mapping) or not source.data:
        raise BadDefinition(problems=[source.problem((), "changes of the input are an object such as {task_query: …, variables: {customer: …}}")])
    return dict(source.data)


def changed_tasks(tasks: pa.Table, changes: Changes, workflow: Workflow) -> pa.Table:
    """
    The tasks with *changes* in their input, each with what it was in the column ``changed_inputs``.

    Args:
        workflow: What it uses may be set even where the task has no such variable.

    Raises:
        Unusable: tasks have no such field, or the value does not fit.
    """
    rows: list[TaskRow] = tasks.to_pylist()
    flat = _by_field(changes)
    known = _known_fields(rows, workflow)
    for field in flat:
        if field != "task_query" and not any(field == name or field.startswith(f"{name}.") for name in known):
            raise Unusable("\n  ".join([f"the task's input has no {field!r}", f"it has: {', '.join(known)}", *did_you_mean(field, known)]))
    return to_table(TASKS, [_changed(row, flat) for row in rows])


def _by_field(changes: Changes) -> JsonObject:
    """Dotted field to new value."""
    found: JsonObject = {}
    for field, value in changes.items():
        if field in OBJECTS and isinstance(value, Mapping):
            found |= {f"{field}.{name}": inner for name, inner in value.items()}
        else:
            found[field] = value
    return found


def _known_fields(rows: list[TaskRow], workflow: Workflow) -> list[str]:
    """The fields that the tasks have, and those that the workflow uses."""
    found = {"task_query"}
    for row in rows:
        for name, value in _documents(row).items():
            if name == "messages" and value:
                found.add(name)
            if isinstance(value, Mapping):
                found |= {f"{name}.{key}" for key in value}
    texts = [leaf for leaf in flatten(workflow.document()["nodes"]).values() if isinstance(leaf, (str, list))]
    found |= set(re.findall(r"\b(?:variables|expected)\.\w+", str(texts)))
    found |= {"messages"} & set(re.findall(r"\bmessages\b", str(texts)))
    if list(workflow.inputs) != ["task_query"]:
        found |= {f"task_query.{name}" for name in workflow.inputs}
    return sorted(found, key=lambda field: (field != "task_query", not field.startswith("task_query"), field.startswith("expected"), field))


def _documents(row: TaskRow) -> dict[str, Json]:
    query = strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"]
    expected = strict_json(row["expected"]) if row["expected"] is not None else None
    messages = strict_json(row["messages"]) if row["messages"] else []
    return {"task_query": query, "variables": strict_json(row["variables"]), "expected": expected, "messages": messages}


def _changed(row: TaskRow, changes: Changes) -> TaskRow:
    documents, told = _documents(row), {}
    changes = {field: _messages(value, row) if field == "messages" else value for field, value in changes.items()}
    for field, value in changes.items():
        before = _put(documents, field.split("."), value, field)
        if before != value:
            told[field] = {"before": before, "after": value}
    query = documents["task_query"]
    if not isinstance(query, (str, dict)) or not query or (isinstance(query, str) and not query.strip()):
        raise Unusable(f"'task_query' is a text or an object, not {query!r}")
    try:
        text = query if isinstance(query, str) else to_json(query)
        variables = to_json(documents["variables"])
        expected = None if documents["expected"] is None else to_json(documents["expected"])
        messages = to_json(documents["messages"]) if documents["messages"] else None
        changed = to_json(told) if told else None
    except ValueError as error:
        raise Unusable(f"the changed task {row['task_id']!r} holds a value that JSON cannot: {error}") from None
    if len(text) + len(variables) + len(expected or "") + len(messages or "") > MAX_ROW:
        raise Unusable(f"the changed task {row['task_id']!r} has more than {MAX_ROW:,} characters; no model reads that much")
    return {
        **row,
        "task_query": text,
        "query_is_json": not isinstance(query, str),
        "variables": variables,
        "expected": expected,
        "inputs": inputs_digest(text, variables, row["attachments"] or [], messages),
        "changed_inputs": changed,
        "messages": messages,
    }


def _messages(written: Json, row: TaskRow) -> Json:
    """The messages as written, checked; images are those that the task has."""

    def keep(url: str) -> str:
        if url not in [f"{KEPT_IMAGE}{entry['sha256']}" for entry in row["attachments"] or ()]:
            raise ValueError("shows an image that the task does not have")
        return url

    try:
        return read_messages(written or [], keep)
    except ValueError as error:
        raise Unusable(f"'messages': {error}" if str(error).startswith("turn") else f"'messages' {error}") from None


def _put(place: Json, path: list[str], value: Json, field: str) -> Json:
    """Set the value at *path*, and give back what was there."""
    name, *rest = path
    if rest:
        if place.get(name) is None:
            place[name] = {}
        if not isinstance(place[name], dict):
            raise Unusable(f"{field!r} cannot be set: {name!r} is {place[name]!r:.60}, which has no parts")
        return _put(place[name], rest, value, field)
    before = place.get(name)
    place[name] = value
    return before
