"""Export a library to a file in an open format, which ``--tasks`` reads back as the same tasks."""

import csv
import hashlib
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.define.fingerprint import strict_json
from beam_ray.errors import Damaged, Unusable
from beam_ray.library.changes import differences
from beam_ray.store.objects import NotThere, Objects
from beam_ray.store.parquet import to_json
from beam_ray.store.tables import AttachmentRow, TaskRow
from beam_ray.tasks.messages import KEPT_IMAGE
from beam_ray.tasks.parse import read_tasks

FILE = pa.schema(
    [
        ("id", pa.string()),
        ("task_query", pa.string()),
        ("query_is_json", pa.bool_()),
        ("variables", pa.string()),
        ("expected", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("attachments", pa.list_(pa.string())),
        ("origin", pa.string()),
        ("tests", pa.string()),
        ("notes", pa.string()),
        ("recorded", pa.string()),
        ("messages", pa.string()),
    ]
)
"""The columns of an exported Parquet file, and the header of a CSV file."""


class FileRow(TypedDict):
    """A task as a row of an exported file, see FILE."""

    id: str
    task_query: str
    query_is_json: bool
    variables: str
    expected: str | None
    labels: list[str]
    attachments: list[str]
    """Paths relative to the file."""
    origin: str | None
    tests: str | None
    notes: str | None
    recorded: str | None
    messages: str | None
    """Images in it are paths relative to the file."""


def export(objects: Objects, rows: Sequence[TaskRow], path: Path) -> None:
    """
    Write the tasks to a .jsonl, .csv or .parquet file, and their attachments into a folder beside it.

    The file is read back and compared before this returns. If the tasks differ, the file is removed again.

    Raises:
        Unusable: The file exists already, or the format cannot represent the tasks.
    """
    writer = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}.get(path.suffix)
    beside = path.with_name(f"{path.stem}-attachments")
    if writer is None:
        raise Unusable(f"{path}: the name of an exported file must end in .jsonl, .csv or .parquet")
    taken = next((each for each in (path, beside) if each.exists()), None)
    if taken:
        raise Unusable(f"{taken} exists already; choose another name, or delete it first")
    if not rows:
        raise Unusable("the library is empty, so there is nothing to export")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for row in rows:
            for entry in row["attachments"] or ():
                _write_attachment(objects, beside, entry)
        path.write_bytes(writer([_file_row(row, beside.name) for row in rows]))
        _require_same(rows, read_tasks(path, objects).to_pylist(), path)
    except BaseException as error:
        path.unlink(missing_ok=True)
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, OSError):
            raise Unusable(f"{path} cannot be written ({error.strerror or error})") from None
        if isinstance(error, Unusable):
            first = str(error).splitlines()[0].removeprefix(f"{path}:").strip()
            raise Unusable(
                f"a {path.suffix} file cannot represent these tasks: {first}" + ("\n  export them to a .jsonl file" if path.suffix != ".jsonl" else "")
            ) from None
        raise


def _write_attachment(objects: Objects, folder: Path, entry: AttachmentRow) -> None:
    where = f"attachments/{entry['sha256']}"
    try:
        body = objects.read(where)
    except NotThere:
        raise Damaged(f"{where} is missing, but a task of the library refers to it") from None
    if hashlib.sha256(body).hexdigest() != entry["sha256"]:
        raise Damaged(f"{where} is damaged: its content does not match its sha256")
    path = folder / _place(entry)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body)


def _place(entry: AttachmentRow) -> str:
    name = str(entry["name"])
    if Path(name).name != name:
        raise Unusable(f"the attachment name {name!r} must not contain a path")
    # two tasks may have different files of the same name
    return f"{entry['sha256'][:12]}/{name}"


def _file_row(row: TaskRow, folder: str) -> FileRow:
    attachments = [f"{folder}/{_place(entry)}" for entry in row["attachments"] or ()]
    return {
        "id": row["task_id"],
        "task_query": row["task_query"],
        "query_is_json": row["query_is_json"],
        "variables": row["variables"],
        "expected": row["expected"],
        "labels": list(row["labels"] or ()),
        "attachments": attachments,
        "origin": row["origin"],
        "tests": row["tests"],
        "notes": row["notes"],
        "recorded": row["recorded"],
        "messages": _messages(row, folder),
    }


def _messages(row: TaskRow, folder: str) -> str | None:
    """The task's messages, with the paths of their images in the file's folder."""
    written = row["messages"]
    for entry in (row["attachments"] or ()) if written else ():
        written = str(written).replace(to_json(f"{KEPT_IMAGE}{entry['sha256']}"), to_json(f"{folder}/{_place(entry)}"))
    return written


def _jsonl(rows: Sequence[FileRow]) -> bytes:
    lines = []
    for row in rows:
        query = strict_json(row["task_query"]) if row["query_is_json"] else row["task_query"]
        expected = None if row["expected"] is None else strict_json(row["expected"])
        recorded = strict_json(row["recorded"]) if row["recorded"] else None
        messages = strict_json(row["messages"]) if row["messages"] else None
        objects = {"variables": strict_json(row["variables"]), "expected": expected, "recorded": recorded, "messages": messages}
        written = {**row, "task_query": query, **objects}
        absent = (
            {name for name, value in written.items() if value is None or value == []}
            | {"query_is_json"}
            | ({"variables"} if row["variables"] == "{}" else set())
        )
        lines.append(to_json({name: value for name, value in written.items() if name not in absent}))
    return "".join(line + "\n" for line in lines).encode()


def _csv(rows: Sequence[FileRow]) -> bytes:
    # a column that no task has is left out, so that its values are read back as absent instead of empty
    cells: Sequence[Mapping[str, object]] = rows
    names = [name for name in FILE.names if any(row[name] not in (None, [], False) for row in cells)]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(names)
    for row in cells:
        writer.writerow([_cell(row[name]) for name in names])
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return json.dumps(value) if isinstance(value, bool) else value or ""


def _parquet(rows: Sequence[FileRow]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), schema=FILE), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue()


def _require_same(rows: Sequence[TaskRow], read: Sequence[TaskRow], path: Path) -> None:
    for row, found in zip(rows, read, strict=True):
        fields = ("task_id",) * (row["task_id"] != found["task_id"]) + differences(row, found) + ("labels",) * (list(row["labels"] or ()) != found["labels"])
        if fields:
            words = "its task_query is an object" if "query_is_json" in fields else f"its {' and '.join(dict.fromkeys(fields))} would be read back differently"
            raise Unusable(f"{path}: task {row['task_id']!r}: {words}")
