"""
Rows of JSON lines, JSON, CSV and TSV, each with its line and column.

Read a piece at a time and with limits, so that neither a file without line ends nor one that
is a single value fills the memory.
"""

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

from beam_ray.define.fingerprint import strict_json, strict_json_at
from beam_ray.errors import Problem
from beam_ray.tasks.rows import MAX_ROW, Row

PIECE = 65_536
"""Bytes of a JSON document that are read at a time."""

_SPACE = re.compile(r"[ \t\r\n]*")


class _Lines:
    """The lines of a text file, one by one; those of the current row are kept for finding places in them."""

    def __init__(self, stream: BinaryIO, name: str):
        self.stream, self.name, self.number = stream, name, 0
        self.taken: list[str] = []
        self.fault: Problem | None = None

    def __iter__(self) -> Iterator[str]:
        while self.fault is None and (raw := self.stream.readline(MAX_ROW + 1)):
            self.number += 1
            if len(raw) > MAX_ROW:
                self._stop(1, f"the line has more than {MAX_ROW:,} bytes; no model reads that much")
                return
            try:
                line = raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                self._stop(error.start + 1, "the file is not UTF-8; save it as UTF-8")
                return
            if "\x00" in line:
                self._stop(line.index("\x00") + 1, "the file is not a text file: it holds a zero byte")
                return
            self.taken.append(line)
            yield line

    def _stop(self, column: int, text: str) -> None:
        self.fault = Problem(self.name, self.number, column, text)


# -- JSON lines ---------------------------------------------------------------------------


def read_json_lines(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """One task a line; lines without text are skipped."""
    lines = _Lines(stream, name)
    for line in lines:
        lines.taken.clear()
        if not line.strip():
            continue
        try:
            yield Row(name, lines.number, strict_json(line), _finder(line, lines.number))
        except json.JSONDecodeError as error:
            column = min(error.pos, len(line.rstrip())) + 1
            note = 'one task a line: {"task_query": "…"}, with no comma after it'
            if line.strip() in ("{", "[") or (lines.number == 1 and line.startswith("[")):
                # one document over many lines; each of them would be broken
                yield Problem(name, lines.number, column, _not_json(error), (note, "a list of tasks, or tasks over many lines, is read from a .json file"))
                return
            yield Problem(name, lines.number, column, _not_json(error), (note,))
        except (RecursionError, ValueError) as error:
            yield Problem(name, lines.number, _mentioned(line, str(error)), _not_json(error))
    if lines.fault:
        yield lines.fault


def _not_json(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "not JSON that can be read: it is nested too deep"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg.removesuffix(' at')}"
    return "not JSON: a number has too many digits" if "digits" in str(error) else f"not JSON: {error}"


def _finder(text: str, line: int, column: int = 1) -> Callable[[str], tuple[int, int]]:
    """Where the key of a field stands in the JSON *text*, which begins at that line and column; the beginning where it has none."""

    def find(field: str) -> tuple[int, int]:
        found = re.search(rf"{re.escape(json.dumps(field))}\s*:", text)
        before = text[: found.start() if found else len(text) - len(text.lstrip())]
        start = column if "\n" not in before else 1
        return line + before.count("\n"), start + len(before) - (before.rfind("\n") + 1)

    return find


def _mentioned(line: str, error: str) -> int:
    """Where the word that an error names stands last."""
    word = re.search(r"the key ('.*'|\".*\") appears twice|^(\S+) is ", error)
    if not word or "digits" in error:
        return 1
    return max(line.rfind(word[2] or f'"{word[1][1:-1]}"'), 0) + 1


# -- JSON ---------------------------------------------------------------------------------


class _Document:
    """The part of a JSON text that is being read, and the place in it."""

    def __init__(self, stream: BinaryIO):
        self.stream = stream
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.at, self.ended = "", 0, False
        self.line = self.column = 1

    @property
    def next(self) -> str:
        """The next character that is no white space; empty at the end."""
        while True:
            self.move(_SPACE.match(self.text, self.at).end())  # type: ignore[union-attr]
            if self.at < len(self.text) or self.ended:
                return self.text[self.at : self.at + 1]
            self.more()

    def move(self, to: int) -> None:
        """Go on to this index of the text."""
        passed = self.text[self.at : to]
        lines = passed.count("\n")
        self.line += lines
        self.column = len(passed) - passed.rfind("\n") if lines else self.column + len(passed)
        self.at = to

    def more(self) -> None:
        """Read on; at least as much as there is, so that a long value is not tried again for each small piece of it."""
        self.text, self.at = self.text[self.at :], 0
        raw = self.stream.read(max(PIECE, len(self.text)))
        self.ended = not raw
        self.text += self.decoder.decode(raw, final=self.ended)


def read_json(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """The tasks of a list, or tasks one after the other."""
    document = _Document(stream)
    try:
        listed = document.next == "["
        if listed:
            document.move(document.at + 1)
        while document.next and not (listed and document.next == "]"):
            row = _value(document, name)
            yield row
            if isinstance(row, Problem):
                return
            if listed and document.next == ",":
                document.move(document.at + 1)
                if document.next != "]":
                    continue
                yield Problem(name, document.line, document.column, "not JSON: there is a comma after the last task")
                return
            if listed and document.next != "]":
                ended = "the list ends in the middle" if not document.next else "there is no comma between two tasks"
                yield Problem(name, document.line, document.column, f"not JSON: {ended}")
                return
        if listed:
            if not document.next:
                yield Problem(name, document.line, document.column, "not JSON: the list ends in the middle")
                return
            document.move(document.at + 1)
            if document.next:
                yield Problem(name, document.line, document.column, "not JSON: there is more after the list of tasks")
    except UnicodeDecodeError:
        yield Problem(name, document.line + document.text.count("\n", document.at), 0, "the file is not UTF-8; save it as UTF-8")


def _value(document: _Document, name: str) -> Row | Problem:
    """The task that begins here."""
    while True:
        text, at = document.text, document.at
        try:
            written, end = strict_json_at(text, at)
            if end < len(text) or document.ended:
                break
        except json.JSONDecodeError as error:
            long = len(text) - at > MAX_ROW
            if document.ended or (long and error.pos < len(text) - PIECE):
                document.move(min(error.pos, at + len(text[at:].rstrip())))
                return Problem(name, document.line, document.column, _not_json(error))
            if long:
                return Problem(name, document.line, document.column, f"the task has more than {MAX_ROW:,} characters; no model reads that much")
        except (RecursionError, ValueError) as error:
            return Problem(name, document.line, document.column, _not_json(error))
        document.more()
    row = Row(name, document.line, written, _finder(text[at:end], document.line, document.column))
    document.move(end)
    return row


# -- CSV and TSV --------------------------------------------------------------------------


def read_csv(stream: BinaryIO, name: str, delimiter: str = ",") -> Iterator[Row | Problem]:
    """One task a row, below a header with the names of the fields."""
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
    lines = _Lines(stream, name)
    header: list[str] | None = None
    try:
        for cells in csv.reader(lines, delimiter=delimiter, strict=True):
            taken, first = lines.taken[:], lines.number - len(lines.taken) + 1
            lines.taken.clear()
            if not cells:
                continue
            if header is None:
                header = cells
                problems = [Problem(name, first, _cell(taken, delimiter, index), text) for index, text in faults_of_header(header)]
                problems += _wrong_delimiter(name, first, header, delimiter)
                yield from problems
                if problems:
                    return
            elif len(cells) != len(header):
                what = f"the row has {len(cells)} cells, and the header {len(header)} names"
                sign = "tab" if delimiter == "\t" else "comma"
                yield Problem(
                    name,
                    first,
                    _cell(taken, delimiter, len(cells) - 1),
                    what,
                    (f"put a text with a {sign} or a line break in it in double quotes",),
                )
            else:
                yield Row(name, first, dict(zip(header, cells, strict=True)), _cell_finder(header, taken, first, delimiter), has_header=True)
    except csv.Error as error:
        first = lines.number - len(lines.taken) + 1
        column = max(lines.taken[0].rfind('"'), 0) + 1 if lines.taken else 1
        yield lines.fault or Problem(name, first, column, f"not {'TSV' if delimiter == chr(9) else 'CSV'}: {error}", ('a " inside a text is written ""',))
        return
    if lines.fault:
        yield lines.fault


def read_tsv(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """As ``read_csv``, with cells separated by tabs."""
    return read_csv(stream, name, "\t")


def faults_of_header(names: list[str]) -> Iterator[tuple[int, str]]:
    """Index of a column, and what is wrong with its name."""
    for index, name in enumerate(names):
        if not name.strip():
            yield index, f"column {index + 1} has no name"
        elif name in names[:index]:
            yield index, f"the column {name!r} appears twice"


def _wrong_delimiter(name: str, line: int, header: list[str], delimiter: str) -> list[Problem]:
    found = re.search("[,;\t|]", header[0]) if len(header) == 1 else None
    if not found:
        return []
    if found[0] == "\t":
        return [Problem(name, line, 1, "the cells are separated by a tab; name the file .tsv, or save it with commas")]
    return [Problem(name, line, 1, f"the cells are separated by {found[0]!r}; save the file with {'tabs' if delimiter == chr(9) else 'commas'}")]


def _cell_finder(header: list[str], taken: list[str], line: int, delimiter: str) -> Callable[[str], tuple[int, int]]:
    return lambda field: (line, _cell(taken, delimiter, header.index(field)) if field in header else 1)


def _cell(taken: list[str], delimiter: str, index: int) -> int:
    """The column, in the first of its lines, at which a cell begins."""
    quoted, passed = False, 0
    for position, character in enumerate(taken[0] if taken else "", 1):
        if passed == index:
            return position
        if character == '"':
            quoted = not quoted
        elif character == delimiter and not quoted:
            passed += 1
    return 1
