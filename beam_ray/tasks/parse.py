"""
Tasks as a user gives them: a JSONL, CSV or Parquet file with one task a row.

    {"id": "inv-017", "task_query": "…", "expected": {"total": 12.5}, "labels": ["scan"]}

Columns of other names are taken by a mapping such as ``{"task_query": "body"}``. Rows are
read and checked in batches, so that memory does not grow with their number.
"""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from beam_ray.define.fingerprint import Json, digest, strict_json
from beam_ray.define.validation import as_written
from beam_ray.define.yaml_file import display_path
from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.store.attachments import keep_attachment
from beam_ray.store.objects import Objects
from beam_ray.store.parquet import to_json, to_table
from beam_ray.store.tables import TASKS, AttachmentRow, TaskRow
from beam_ray.tasks.formats import MAX_ROW, Row, read_rows

COLUMNS = ("id", "task_query", "query_is_json", "variables", "expected", "labels", "attachments", "origin", "tests", "notes", "recorded")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
TABLES = (".csv", ".parquet")
BATCH = 2_000
MAX_PROBLEMS = 20


def read_tasks(path: Path, objects: Objects, *, mapping: Mapping[str, str] | None = None, limit: int | None = None) -> pa.Table:
    """
    The tasks in the file, as the table TASKS; attachments are kept in *objects*.

    Raises:
        BadDefinition: rows are wrong, or two have the same id; with file:line:column each.
        Unusable: the file cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise Unusable(f"{path}: a tasks file ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.glob("*")], 1) if path.parent.is_dir() else []
        raise Unusable(f"{path}: there is no such file" + (f"\n  did you mean {near[0]!r}?" if near else ""))
    return _parsed(read_rows(path), objects, _Reader(path, objects, _known_mapping(mapping)), limit)


def parse_values(rows: Iterable[Any], objects: Objects, *, mapping: Mapping[str, str] | None = None, limit: int | None = None) -> pa.Table:
    """
    The tasks in *rows*, which are mappings with a task's fields, as the table TASKS.

    Attachments are paths relative to the working folder.

    Raises:
        BadDefinition: rows are wrong, or two have the same id; each with the number of its row, from 1.
    """
    numbered = (Row(number, row) for number, row in enumerate(rows, start=1))
    return _parsed(numbered, objects, _Reader(Path("tasks"), objects, _known_mapping(mapping), in_memory=True), limit)


def _known_mapping(mapping: Mapping[str, str] | None) -> dict[str, str]:
    unknown = [name for name in mapping or {} if name not in COLUMNS]
    if unknown:
        raise Unusable(f"--map {unknown[0]}=…: a task has no {unknown[0]!r}\n  a task has {', '.join(COLUMNS)}")
    return dict(mapping or {})


def _parsed(found_rows: Iterable[Row], objects: Objects, reader: "_Reader", limit: int | None) -> pa.Table:
    batches, rows = [], []
    for found in found_rows:
        if limit is not None and reader.count >= limit:
            break
        row = reader.task(found)
        if row is not None:
            rows.append(row)
        if len(rows) == BATCH:
            batches.append(to_table(TASKS, rows))
            rows = []
        if len(reader.problems) >= MAX_PROBLEMS:
            reader.problems[-1] = replace(reader.problems[-1], notes=(*reader.problems[-1].notes, "what comes after this line was not read"))
        if len(reader.problems) >= MAX_PROBLEMS or reader.hopeless:
            break
    if reader.problems:
        raise BadDefinition(problems=reader.problems)
    if reader.count == 0:
        raise BadDefinition(problems=[reader.problem_at(1, 1, "there is no task in it")])
    return pa.concat_tables([*batches, to_table(TASKS, rows)])


def inputs_digest(query: str, variables: str, attachments: Sequence[AttachmentRow]) -> str:
    """Identifies what a task gives to its workflow."""
    return digest("task/1", query, variables, [[entry["name"], entry["sha256"]] for entry in attachments])


class _Reader:
    """Makes rows of the table from rows as written, and remembers what is wrong with them."""

    def __init__(self, path: Path, objects: Objects, mapping: Mapping[str, str], *, in_memory: bool = False):
        self.path, self.objects, self.mapping, self.in_memory = path, objects, mapping, in_memory
        self.name = "tasks" if in_memory else display_path(path)
        self.problems: list[Problem] = []
        self.hopeless = False
        """Whether every further row would only repeat what is wrong."""
        self.lines: dict[str, int] = {}
        self.count = 0
        self.row = Row(0)

    def task(self, found: Row) -> TaskRow | None:
        before = len(self.problems)
        self.row = found
        if found.broken:
            self.problems.append(self.problem_at(found.line, found.at, found.broken, found.notes))
            return None
        written = found.written
        if not isinstance(written, Mapping):
            self._problem("", 'a task is an object such as {"task_query": "…"}')
            return None
        self.count += 1
        row = {name: written.get(self.mapping.get(name, name)) for name in COLUMNS}
        self._known(written)
        query = row["task_query"]
        column = self.mapping.get("task_query", "task_query")
        if column not in written:
            near = difflib.get_close_matches(column, [str(name) for name in written], 1)
            has = ", ".join(str(name) for name in list(written)[:12])
            what = f"the {'task' if self.path.suffix not in TABLES else 'header'} has no {column!r}"
            self._missing(what, f"it has: {has[:200]}" if has else "it is empty", f"--map task_query={near[0] if near else 'NAME'}  takes it from there")
        elif query is None or (isinstance(query, str) and not query.strip()):
            self._problem("task_query", f"the task's {column!r} is empty")
        elif isinstance(query, str) and row["query_is_json"] in (True, "true", "True"):
            query = self._object("task_query", query)
        elif not isinstance(query, (str, dict)):
            self._problem("task_query", f"'task_query' is a text or an object, not {as_written(query)}")
        name = row["id"]
        if name is not None and (isinstance(name, bool) or not isinstance(name, (str, int))):
            self._problem("id", f"the id must be a text or a whole number, not {as_written(name)}")
        name = f"task-{self.count:05d}" if name in (None, "") else str(name)
        if not 0 < len(name) <= 200 or not name.isprintable():
            self._problem("id", f"the id {name[:40]!r} must be 1 to 200 printable characters")
        elif name in self.lines:
            self._problem("id", f"the id {name!r} stands here and in {'row' if self.in_memory else 'line'} {self.lines[name]}; ids must differ")
        self.lines.setdefault(name, found.line)
        variables = self._object("variables", row["variables"]) or {}
        expected = self._object("expected", row["expected"])
        recorded = self._object("recorded", row["recorded"])
        labels = self._words("labels", row["labels"])
        attachments = self._attachments(row["attachments"])
        if len(self.problems) > before:
            return None
        try:
            text = query if isinstance(query, str) else to_json(query)
            variables_text = to_json(variables)
            expected_text = None if expected is None else to_json(expected)
            recorded_text = None if recorded is None else to_json(recorded)
        except ValueError as error:
            self._problem("", f"the task holds a value that JSON cannot: {error}")
            return None
        if len(text) + len(variables_text) + len(expected_text or "") + len(recorded_text or "") > MAX_ROW:
            self._problem("", f"the task has more than {MAX_ROW:,} characters; no model reads that much")
            return None
        return {
            "task_id": name,
            "task_query": text,
            "query_is_json": not isinstance(query, str),
            "variables": variables_text,
            "expected": expected_text,
            "labels": labels,
            "attachments": attachments,
            "inputs": inputs_digest(text, variables_text, attachments),
            "origin": _text(row["origin"]),
            "tests": _text(row["tests"]),
            "notes": _text(row["notes"]),
            "recorded": recorded_text,
        }

    def problem_at(self, line: int, column: int, text: str, notes: tuple[str, ...] = ()) -> Problem:
        """A problem with its place: line and column of a file, or the number of a row in memory."""
        return Problem(f"{self.name}, row {line}", 0, 0, text, notes) if self.in_memory else Problem(self.name, line, column, text, notes)

    def _known(self, written: Mapping[str, Json]) -> None:
        """Refuse a slip in the name of a field, which would otherwise be left out in silence; other fields are the user's own."""
        taken = set(self.mapping.values())
        for name in written:
            if name not in COLUMNS and name not in taken:
                near = difflib.get_close_matches(str(name), [column for column in COLUMNS if column not in written and column not in self.mapping], 1, 0.8)
                if near and near[0] != "task_query":
                    self.hopeless = self.path.suffix in TABLES
                    self._problem(
                        str(name), f"a task has no {name!r}", f"did you mean {near[0]!r}? --map {near[0]}={name}  takes it; another name leaves it out"
                    )

    def _object(self, name: str, value: Any) -> Any:
        if value in (None, ""):
            return None
        if isinstance(value, str):
            try:
                value = strict_json(value)
            except (ValueError, RecursionError) as error:
                said = str(error) if "JSON value" in str(error) or "twice" in str(error) else as_written(value)
                self._problem(name, f"{name!r} is not JSON: {said}", 'write an object such as {"total": 12.5}')
                return None
        if not isinstance(value, dict):
            self._problem(name, f"{name!r} must be an object, not {as_written(value)}", 'write an object such as {"total": 12.5}')
            return None
        return value

    def _words(self, name: str, value: Any) -> list[str]:
        if value in (None, ""):
            return []
        if isinstance(value, str):
            return [word.strip() for word in value.replace(";", ",").split(",") if word.strip()]
        if isinstance(value, list) and all(isinstance(word, (str, int)) for word in value):
            return [str(word) for word in value]
        self._problem(name, f"{name!r} must be a list of words, not {as_written(value)}")
        return []

    def _attachments(self, value: Any) -> list[AttachmentRow]:
        kept = []
        folder = self.path.parent.resolve()
        for name in self._words("attachments", value):
            try:
                path = (folder / name).resolve()
                if not path.is_relative_to(folder):
                    # a task is data from strangers, and what it attaches is sent to a model
                    self._problem("attachments", f"the attachment {name!r} lies outside the folder of the tasks file; copy it there")
                elif path.exists() and not path.is_file():
                    self._problem("attachments", f"the attachment {name!r} is not a file")
                else:
                    kept.append(keep_attachment(path, self.objects))
            except OSError as error:
                self._problem("attachments", f"the attachment {name!r} cannot be read ({error.strerror})")
            except (ValueError, RuntimeError) as error:
                self._problem("attachments", f"the attachment {name!r} cannot be used ({error})")
        return kept

    def _missing(self, text: str, *notes: str) -> None:
        self.hopeless = self.path.suffix in TABLES
        self.problems.append(self.problem_at(1 if self.hopeless else self.row.line, 1, text, notes))

    def _problem(self, name: str, text: str, *notes: str) -> None:
        """A problem at the field *name* of the current row."""
        place = self.row.place(self.mapping.get(name, name)) if name else 1
        self.problems.append(self.problem_at(self.row.line, place, text, notes))


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)
