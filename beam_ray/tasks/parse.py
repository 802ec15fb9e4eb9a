"""
Rows that somebody wrote, as the tasks of a store: every field checked, and every fault with its place.

    {"id": "inv-017", "task_query": "…", "expected": {"total": 12.5}, "labels": ["scan"]}

Columns of other names are taken by a mapping, see ``mapping``, such as ``{"task_query": "body"}``. Rows are
read and checked in batches, so that memory does not grow with their number.
"""

import difflib
import hashlib
import mimetypes
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from beam_ray.define.fingerprint import Json, digest, strict_json
from beam_ray.define.validation import as_written
from beam_ray.errors import BadDefinition, Problem, Unusable
from beam_ray.store.attachments import keep_bytes
from beam_ray.store.objects import Objects
from beam_ray.store.parquet import to_json, to_table
from beam_ray.store.tables import TASKS, AttachmentRow, TaskRow
from beam_ray.tasks.files import Attach, find_files
from beam_ray.tasks.formats import read_rows
from beam_ray.tasks.mapping import columns_of, mapped
from beam_ray.tasks.messages import KEPT_IMAGE, TaskMessage, decoded, read_messages, text_of_message
from beam_ray.tasks.rows import MAX_ROW, Row

COLUMNS = ("id", "task_query", "query_is_json", "variables", "expected", "labels", "attachments", "origin", "tests", "notes", "recorded", "messages")
BATCH = 2_000
MAX_PROBLEMS = 20


def read_tasks(path: Path, objects: Objects, *, mapping: Mapping[str, str] | None = None, limit: int | None = None) -> pa.Table:
    """
    The tasks in the file, as the table TASKS; attachments are kept in *objects*.

    Raises:
        BadDefinition: rows are wrong, or two have the same id; with the place of each.
        Unusable: the file cannot be read.
    """
    reader = TaskReader(objects, mapping, limit)
    for file in find_files(str(path), Path.cwd()):
        reader.read(read_rows(file), file.name, file.attach)
    return reader.table()


def inputs_digest(query: str, variables: str, attachments: Sequence[AttachmentRow], messages: str | None = None) -> str:
    """Identifies what a task gives to its workflow."""
    # tasks without a conversation keep the digests that they had in 0.1
    return digest("task/1", query, variables, [[entry["name"], entry["sha256"]] for entry in attachments], *([messages] if messages else []))


class TaskReader:
    """Makes one table of the tasks of several sources, and remembers what is wrong with them."""

    def __init__(self, objects: Objects, mapping: Mapping[str, str] | None = None, limit: int | None = None):
        """
        Args:
            mapping: Field of a task to the column that it is read from, where the names differ.
            limit: Only the first N tasks.

        Raises:
            Unusable: *mapping* names a field that tasks do not have.
        """
        self.objects, self.mapping, self.limit = objects, dict(mapping or {}), limit
        unknown = [name for name in self.mapping if name not in COLUMNS]
        if unknown:
            raise Unusable(f"--map {unknown[0]}=…: a task has no {unknown[0]!r}\n  a task has {', '.join(COLUMNS)}")
        self.count = 0
        self._tables: list[pa.Table] = []
        self._rows: list[TaskRow] = []
        self._problems: list[Problem] = []
        self._places: dict[str, Row | str] = {}
        """Id of a task to its row, or to the name of its library or run."""
        self._first: str | None = None
        self._hopeless = False
        """Whether every further row would only repeat what is wrong."""

    def read(self, rows: Iterable[Row | Problem], name: str, attach: Attach) -> None:
        """Add the tasks of a file, or of values in memory; *attach* keeps the attachments that they name."""
        self._first = self._first or name
        for row in rows:
            if self._is_full:
                return
            if isinstance(row, Problem):
                self._problems.append(row)
            else:
                self._check(row, attach)
            if len(self._rows) == BATCH:
                self._flush()
            if len(self._problems) >= MAX_PROBLEMS:
                last = self._problems[-1]
                self._problems[-1] = replace(last, notes=(*last.notes, "what comes after this line was not read"))

    def add(self, tasks: pa.Table, name: str) -> None:
        """Add tasks of a library or a run, with the columns of TASKS."""
        self._flush()
        self._first = self._first or name
        for task_id in tasks["task_id"].to_pylist():
            if task_id in self._places:
                self._problems.append(Problem(name, 0, 0, f"the id {task_id!r} stands here and in {self._place(task_id, name)}; ids must differ"))
            self._places[task_id] = name
        self.count += tasks.num_rows
        self._tables.append(tasks)

    def table(self) -> pa.Table:
        """
        All tasks.

        Raises:
            BadDefinition: there is no task, or tasks are wrong; with the place of each.
        """
        if self._problems:
            raise BadDefinition(problems=self._problems[:MAX_PROBLEMS])
        if self.count == 0:
            raise BadDefinition(problems=[Problem(self._first or "tasks", 0, 0, "there is no task in it")])
        self._flush()
        return self._tables[0] if len(self._tables) == 1 else pa.concat_tables(self._tables)

    @property
    def _is_full(self) -> bool:
        return (self.limit is not None and self.count >= self.limit) or len(self._problems) >= MAX_PROBLEMS or self._hopeless

    def _flush(self) -> None:
        if self._rows:
            self._tables.append(to_table(TASKS, self._rows))
            self._rows = []

    def _check(self, row: Row, attach: Attach) -> None:
        if not isinstance(row.written, Mapping):
            self._problems.append(row.problem('a task is an object such as {"task_query": "…"}'))
            return
        self.count += 1
        check = _RowCheck(row, self.mapping, self.objects, attach)
        task = check.task(f"task-{self.count:05d}")
        name = task["task_id"]
        if name in self._places:
            check.fault(f"the id {name!r} stands here and in {self._place(name, row.file)}; ids must differ", field="id")
        elif name:
            self._places[name] = replace(row, written=None, find=row.find and _nowhere)
        self._problems += check.problems
        self._hopeless = check.hopeless
        if not check.problems:
            self._rows.append(task)

    def _place(self, task_id: str, file: str) -> str:
        """Where a task stands, in a message about *file*."""
        place = self._places[task_id]
        return place.seen_from(file) if isinstance(place, Row) else place


def _nowhere(field: str) -> tuple[int, int]:
    return 0, 0


class _RowCheck:
    """Checks the fields of one row, and makes a row of the table TASKS of them."""

    def __init__(self, row: Row, mapping: Mapping[str, str], objects: Objects, attach: Attach):
        self.row, self.mapping, self.objects, self.attach = row, mapping, objects, attach
        self.problems: list[Problem] = []
        self.hopeless = False

    def fault(self, text: str, *notes: str, field: str = "") -> None:
        """Note a problem at *field*."""
        self.problems.append(self.row.problem(text, *notes, field=columns_of(field, self.mapping)[0]))

    def task(self, unnamed: str) -> TaskRow:
        """
        The task; one that is not to be used where there are problems.

        Args:
            unnamed: Its id where it has none.
        """
        written = self.row.written
        given = {name: mapped(name, self.mapping, written) for name in COLUMNS}
        self._refuse_slips(written)
        self._refuse_missing(written)
        attachments = self._attachments(given["attachments"])
        messages = self._messages(given["messages"], attachments)
        asks_last = messages and "task_query" not in self.mapping and "task_query" not in written
        query = self._asked_last(messages) if asks_last else self._query(written, given["query_is_json"])
        variables, expected, recorded = (self._object(name, given[name]) for name in ("variables", "expected", "recorded"))
        task: TaskRow = {
            "task_id": self._id(given["id"], unnamed),
            "task_query": "",
            "query_is_json": not isinstance(query, str),
            "variables": "{}",
            "expected": None,
            "labels": self._words("labels", given["labels"]),
            "attachments": attachments,
            "inputs": "",
            "origin": _text(given["origin"]),
            "tests": _text(given["tests"]),
            "notes": _text(given["notes"]),
            "recorded": None,
            "changed_inputs": None,
            "messages": None,
        }
        if self.problems:
            return task
        try:
            task["task_query"] = query if isinstance(query, str) else to_json(query)
            task["variables"] = to_json(variables or {})
            task["expected"] = None if expected is None else to_json(expected)
            task["recorded"] = None if recorded is None else to_json(recorded)
            task["messages"] = to_json(messages) if messages else None
        except ValueError as error:
            self.fault(f"the task holds a value that JSON cannot: {error}")
        if sum(len(text or "") for text in (task["task_query"], task["variables"], task["expected"], task["recorded"], task["messages"])) > MAX_ROW:
            self.fault(f"the task has more than {MAX_ROW:,} characters; no model reads that much")
        task["inputs"] = inputs_digest(task["task_query"], task["variables"], task["attachments"], task["messages"])
        return task

    def _refuse_slips(self, written: Mapping[str, Json]) -> None:
        """Refuse a slip in the name of a field, which would otherwise be left out in silence; other fields are the user's own."""
        taken = {column for name in self.mapping for column in columns_of(name, self.mapping)}
        for name in written:
            if name not in COLUMNS and name not in taken:
                near = difflib.get_close_matches(str(name), [column for column in COLUMNS if column not in written and column not in self.mapping], 1, 0.8)
                if near and near[0] != "task_query":
                    self.hopeless = self.row.has_header
                    note = f"did you mean {near[0]!r}? --map {near[0]}={name}  takes it; another name leaves it out"
                    self.problems.append(self.row.problem(f"a task has no {name!r}", note, field=str(name)))

    def _refuse_missing(self, written: Mapping[str, Json]) -> None:
        """Refuse a column that was named for a field and that no row of the file has."""
        missing = [column for name in self.mapping if name != "task_query" for column in columns_of(name, self.mapping) if column not in written]
        if missing and self.row.has_header:
            near = difflib.get_close_matches(missing[0], [str(name) for name in written], 1)
            self._missing(missing[0], [str(name) for name in written], f"did you mean {near[0]!r}?" if near else "--map FIELD=COLUMN names one of these")

    def _query(self, written: Mapping[str, Json], is_json: Any) -> Any:
        columns = columns_of("task_query", self.mapping)
        column = next((each for each in columns if each not in written), columns[0])
        query = mapped("task_query", self.mapping, written)
        if column not in written:
            self._missing(column, [str(name) for name in written])
        elif query is None or (isinstance(query, str) and not query.strip()):
            self.fault(f"the task's {column!r} is empty", field="task_query")
        elif isinstance(query, str) and is_json in (True, "true", "True"):
            return self._object("task_query", query)
        elif not isinstance(query, (str, dict)):
            self.fault(f"'task_query' is a text or an object, not {as_written(query)}", field="task_query")
        return query

    def _missing(self, column: str, there: Sequence[str], remedy: str = "") -> None:
        near = difflib.get_close_matches(column, there, 1)
        has = ", ".join(there[:12])
        notes = (f"it has: {has[:200]}" if has else "it is empty", remedy or f"--map task_query={near[0] if near else 'NAME'}  takes it from there")
        if self.row.has_header:
            self.hopeless = True
            place = (1, 1) if self.row.find else (0, 0)
            self.problems.append(Problem(self.row.file, *place, f"the header has no {column!r}", notes))
        else:
            self.fault(f"the task has no {column!r}", *notes)

    def _id(self, written: Any, unnamed: str) -> str:
        if written is not None and (isinstance(written, bool) or not isinstance(written, (str, int))):
            self.fault(f"the id must be a text or a whole number, not {as_written(written)}", field="id")
        name = unnamed if written in (None, "") else str(written)
        if not 0 < len(name) <= 200 or not name.isprintable():
            self.fault(f"the id {name[:40]!r} must be 1 to 200 printable characters", field="id")
            return ""
        return name

    def _object(self, field: str, value: Any) -> Any:
        note = 'write an object such as {"total": 12.5}'
        if value in (None, ""):
            return None
        if isinstance(value, str):
            try:
                value = strict_json(value)
            except (ValueError, RecursionError) as error:
                said = str(error) if "JSON value" in str(error) or "twice" in str(error) else as_written(value)
                self.fault(f"{field!r} is not JSON: {said}", note, field=field)
                return None
        if not isinstance(value, dict):
            self.fault(f"{field!r} must be an object, not {as_written(value)}", note, field=field)
            return None
        return value

    def _words(self, field: str, value: Any) -> list[str]:
        if value in (None, ""):
            return []
        if isinstance(value, str):
            return [word.strip() for word in value.replace(";", ",").split(",") if word.strip()]
        if isinstance(value, list) and all(isinstance(word, (str, int)) for word in value):
            return [str(word) for word in value]
        self.fault(f"{field!r} must be a list of words, not {as_written(value)}", field=field)
        return []

    def _messages(self, value: Any, attachments: list[AttachmentRow]) -> list[TaskMessage]:
        """The turns before the query; images that they show are added to *attachments*."""

        def keep(url: str) -> str:
            try:
                if url.startswith("data:"):
                    kind, body = decoded(url)
                    name = hashlib.sha256(body).hexdigest()[:12] + (mimetypes.guess_extension(kind) or "")
                    entry = keep_bytes(name, body, self.objects)
                else:
                    entry = self.attach(url, self.objects)
            except OSError as error:
                raise ValueError(f"shows the image {url!r}, which cannot be read ({error.strerror})") from None
            except Unusable as error:
                raise ValueError(f"shows the image {url!r}, which {error}") from None
            if not entry["media_type"].startswith("image/"):
                raise ValueError(f"shows {url!r} as an image, but it is {entry['media_type']}")
            if entry["sha256"] not in [known["sha256"] for known in attachments]:
                attachments.append(entry)
            return f"{KEPT_IMAGE}{entry['sha256']}"

        if value in (None, "", []):
            return []
        try:
            return read_messages(value, keep)
        except ValueError as error:
            self.fault(f"'messages': {error}" if str(error).startswith("turn") else f"'messages' {error}", field="messages")
            return []

    def _asked_last(self, messages: list[TaskMessage]) -> str:
        """The text of the last turn, which is taken from *messages*: the query of a task that has only a conversation."""
        last = messages[-1]
        if last["role"] != "user":
            by = "the assistant" if last["role"] == "assistant" else f"a {last['role']}"
            imports = "; an answer that is expected: beam-ray library import NAME --from openai:FILE" if last["role"] == "assistant" else ""
            note = f"write the question as 'task_query'{imports}"
            self.fault(f"the task has no 'task_query', and its last message is that of {by}, not of the user", note, field="messages")
            return ""
        query = text_of_message(messages.pop(), images=False)
        if not query.strip():
            self.fault("the last message of the task, which is its query, has no text", field="messages")
        return query

    def _attachments(self, value: Any) -> list[AttachmentRow]:
        kept = []
        for name in self._words("attachments", value):
            try:
                kept.append(self.attach(name, self.objects))
            except OSError as error:
                self.fault(f"the attachment {name!r} cannot be read ({error.strerror})", field="attachments")
            except Unusable as error:
                self.fault(f"the attachment {name!r} {error}", field="attachments")
            except (ValueError, RuntimeError) as error:
                self.fault(f"the attachment {name!r} cannot be used ({error})", field="attachments")
        return kept


def _text(value: Any) -> str | None:
    return None if value in (None, "") else str(value)
