"""
Tasks as a user gives them: a JSONL, CSV or Parquet file with one task a row.

    {"id": "inv-017", "task_query": "…", "expected": {"total": 12.5}, "labels": ["scan"]}

Columns of other names are taken by a mapping such as ``{"task_query": "body"}``. Rows are
read and checked in batches, so that memory does not grow with their number.
"""

import csv
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from beam_ray.define.fingerprint import digest, strict_json
from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.store.attachments import keep_attachment
from beam_ray.store.objects import Objects
from beam_ray.store.tables import TASKS, to_json, to_table

COLUMNS = ("id", "task_query", "query_is_json", "variables", "expected", "labels", "attachments", "origin", "tests", "notes")
SUFFIXES = (".jsonl", ".ndjson", ".csv", ".parquet")
BATCH = 2_000
MAX_PROBLEMS = 20


def read_tasks(path: Path, objects: Objects, *, mapping: Mapping[str, str] | None = None, limit: int | None = None) -> pa.Table:
    """
    The tasks in the file, as the table TASKS; attachments are kept in *objects*.

    Raises:
        BadDefinition: rows are wrong, or two have the same id; with file:line each.
        Unusable: the file cannot be read.
    """
    if path.suffix not in SUFFIXES:
        raise Unusable(f"{path}: a tasks file ends in {', '.join(SUFFIXES)}")
    if not path.is_file():
        near = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.glob("*")], 1) if path.parent.is_dir() else []
        raise Unusable(f"{path}: there is no such file" + (f"\n  did you mean {near[0]!r}?" if near else ""))
    wanted = dict(mapping or {})
    unknown = [name for name in wanted if name not in COLUMNS]
    if unknown:
        raise Unusable(f"--map {unknown[0]}=…: a task has no {unknown[0]!r}\n  a task has {', '.join(COLUMNS)}")
    reader = _Reader(path, objects, wanted)
    batches, rows = [], []
    for line, written in _rows(path):
        if limit is not None and reader.count >= limit:
            break
        row = reader.task(line, written)
        if row is not None:
            rows.append(row)
        if len(rows) == BATCH:
            batches.append(to_table(TASKS, rows))
            rows = []
        if len(reader.problems) >= MAX_PROBLEMS:
            break
    if reader.problems:
        raise BadDefinition(problems=reader.problems)
    if reader.count == 0:
        raise Unusable(f"{path}: there is no task in it")
    return pa.concat_tables([*batches, to_table(TASKS, rows)])


def inputs_digest(query: str, variables: str, attachments: Sequence[Mapping[str, Any]]) -> str:
    """Identifies what a task gives to its workflow."""
    return digest("task/1", query, variables, [[entry["name"], entry["sha256"]] for entry in attachments])


class _Reader:
    """Makes rows of the table from rows as written, and remembers what is wrong with them."""

    def __init__(self, path: Path, objects: Objects, mapping: Mapping[str, str]):
        self.path, self.objects, self.mapping = path, objects, mapping
        self.problems: list[Problem] = []
        self.lines: dict[str, int] = {}
        self.count = 0

    def task(self, line: int, written: Any) -> dict[str, Any] | None:
        before = len(self.problems)
        if isinstance(written, _Broken):
            self._problem(line, written.text)
            return None
        if not isinstance(written, Mapping):
            self._problem(line, 'a task is an object such as {"task_query": "…"}')
            return None
        self.count += 1
        row = {name: written.get(self.mapping.get(name, name)) for name in COLUMNS}
        query = row["task_query"]
        if query is None or query == "":
            column = self.mapping.get("task_query", "task_query")
            near = difflib.get_close_matches(column, [str(name) for name in written], 1)
            has = ", ".join(str(name) for name in list(written)[:12])
            self._problem(line, f"the task has no {column!r}", f"it has: {has}" if has else "it is empty", *([f"did you mean {near[0]!r}?"] if near else []))
        elif isinstance(query, str) and row["query_is_json"] in (True, "true", "True"):
            query = self._object(line, "task_query", query)
        elif not isinstance(query, (str, dict)):
            self._problem(line, f"'task_query' is a text or an object, not {query!r}")
        name = row["id"]
        name = f"task-{self.count:05d}" if name in (None, "") else str(name)
        if not 0 < len(name) <= 200 or not name.isprintable():
            self._problem(line, f"the id {name[:40]!r} must be 1 to 200 printable characters")
        if name in self.lines:
            self._problem(line, f"the id {name!r} stands here and in line {self.lines[name]}; ids must differ")
        self.lines.setdefault(name, line)
        variables = self._object(line, "variables", row["variables"]) or {}
        expected = self._object(line, "expected", row["expected"])
        labels = self._words(line, "labels", row["labels"])
        attachments = self._attachments(line, row["attachments"])
        if len(self.problems) > before:
            return None
        try:
            text = query if isinstance(query, str) else to_json(query)
            variables_text = to_json(variables)
            expected_text = None if expected is None else to_json(expected)
        except ValueError as error:
            self._problem(line, f"the task holds a value that JSON cannot: {error}")
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
            **{name: None if row[name] in (None, "") else str(row[name]) for name in ("origin", "tests", "notes")},
        }

    def _object(self, line: int, name: str, value: Any) -> Any:
        if value in (None, ""):
            return None
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                self._problem(line, f"{name!r} is not JSON: {value[:40]!r}")
                return None
        if not isinstance(value, dict):
            self._problem(line, f"{name!r} must be an object, not {value!r}")
            return None
        return value

    def _words(self, line: int, name: str, value: Any) -> list[str]:
        if value in (None, ""):
            return []
        if isinstance(value, str):
            return [word.strip() for word in value.replace(";", ",").split(",") if word.strip()]
        if isinstance(value, list) and all(isinstance(word, (str, int)) for word in value):
            return [str(word) for word in value]
        self._problem(line, f"{name!r} must be a list of words, not {value!r}")
        return []

    def _attachments(self, line: int, value: Any) -> list[dict[str, Any]]:
        kept = []
        for name in self._words(line, "attachments", value):
            path = self.path.parent / name
            try:
                kept.append(keep_attachment(path, self.objects))
            except OSError as error:
                self._problem(line, f"the attachment {name!r} cannot be read ({error.strerror})")
            except ValueError as error:
                self._problem(line, str(error))
        return kept

    def _problem(self, line: int, text: str, *notes: str) -> None:
        self.problems.append(Problem(str(self.path), line, 0, text, notes))


class _Broken:
    """A row that could not be read at all."""

    def __init__(self, text: str):
        self.text = text


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        if path.suffix == ".parquet":
            yield from _parquet(path)
        elif path.suffix == ".csv":
            yield from _csv(path)
        else:
            yield from _jsonl(path)
    except UnicodeDecodeError:
        raise Unusable(f"{path}: the file is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise Unusable(f"{path}: cannot be read ({error.strerror or error})") from None


def _jsonl(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield number, strict_json(line)
            except json.JSONDecodeError as error:
                yield number, _Broken(f"not JSON: {error.msg} at column {error.colno}")
            except (ValueError, RecursionError) as error:
                yield number, _Broken(f"not JSON: {error or 'nested too deep'}")


def _csv(path: Path) -> Iterator[tuple[int, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, strict=True)
        try:
            for row in reader:
                if None in row:
                    yield reader.line_num, _Broken(f"the row has more cells than the header has names ({len(reader.fieldnames or ())})")
                else:
                    yield reader.line_num, row
        except csv.Error as error:
            yield reader.line_num, _Broken(f"not CSV: {error}")


def _parquet(path: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        raise Unusable(f"{path}: not a Parquet file ({str(error).splitlines()[0]})") from None
