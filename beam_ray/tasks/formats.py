"""
Rows of a JSONL, CSV or Parquet file as they stand there, each with its place.

Read a row at a time and with limits, so that neither a file without line ends nor a few
bytes that stand for gigabytes fills the memory. Of a Parquet file the line is the number
of the row and the column that of the table.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_ray.define.fingerprint import strict_json
from beam_ray.define.yaml_file import display_path
from beam_ray.errors import BadDefinition, Problem, Unusable

MAX_ROW = 8_000_000
"""Bytes of a line, or characters of a task."""

MAX_RATIO = 50
"""Characters that one byte of a Parquet file may stand for, beyond FREE of them."""

FREE = 32_000_000
PARQUET_BATCH = 64
"""Rows of a Parquet file that are unpacked at a time."""


@dataclass(frozen=True)
class Row:
    """One row as written, or why it cannot be read."""

    line: int
    written: Any = None
    broken: str = ""
    notes: tuple[str, ...] = ()
    at: int = 1
    """The column of what is broken."""
    place: Callable[[str], int] = lambda name: 1
    """The column at which the field of that name stands."""


def read_rows(path: Path) -> Iterator[Row]:
    """
    The rows of the file; what cannot be read at all ends it.

    Raises:
        BadDefinition: its header cannot be used.
        Unusable: the file cannot be opened.
    """
    kind = {".parquet": _parquet, ".csv": _csv}.get(path.suffix, _jsonl)
    try:
        yield from kind(path)
    except OSError as error:
        raise Unusable(f"{path}: cannot be read ({error.strerror or error})") from None


class _Lines:
    """The lines of a text file, one by one; those of the current row are kept for finding places in them."""

    def __init__(self, file: io.BufferedReader):
        self.file, self.number = file, 0
        self.taken: list[str] = []
        self.fault: Row | None = None

    def __iter__(self) -> Iterator[str]:
        while self.fault is None and (raw := self.file.readline(MAX_ROW + 1)):
            self.number += 1
            if len(raw) > MAX_ROW:
                self.fault = Row(self.number, broken=f"the line has more than {MAX_ROW:,} bytes; no model reads that much")
                return
            try:
                line = raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                self.fault = Row(self.number, broken="the file is not UTF-8; save it as UTF-8", at=error.start + 1)
                return
            if "\x00" in line:
                self.fault = Row(self.number, broken="the file is not a text file: it holds a zero byte", at=line.index("\x00") + 1)
                return
            self.taken.append(line)
            yield line


def _jsonl(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        lines = _Lines(file)
        for line in lines:
            lines.taken.clear()
            if not line.strip():
                continue
            try:
                yield Row(lines.number, strict_json(line), place=_key(line))
            except json.JSONDecodeError as error:
                notes = ('one task a line: {"task_query": "…"}, with no comma after it',)
                yield Row(lines.number, broken=f"not JSON: {error.msg.removesuffix(' at')}", notes=notes, at=min(error.pos, len(line.rstrip())) + 1)
                if line.strip() in ("{", "[") or (lines.number == 1 and line.startswith("[")):
                    return  # one document over many lines; each of them would be broken
            except RecursionError:
                yield Row(lines.number, broken="not JSON that can be read: it is nested too deep")
            except ValueError as error:
                said = "a number has too many digits" if "digits" in str(error) else str(error)
                yield Row(lines.number, broken=f"not JSON: {said}", at=_mentioned(line, said))
        if lines.fault:
            yield lines.fault


def _key(line: str) -> Callable[[str], int]:
    def place(name: str) -> int:
        found = re.search(rf"{re.escape(json.dumps(name))}\s*:", line)
        return found.start() + 1 if found else len(line) - len(line.lstrip()) + 1

    return place


def _mentioned(line: str, said: str) -> int:
    """Where the word that an error names stands last."""
    word = re.search(r"the key ('.*'|\".*\") appears twice|^(\S+) is ", said)
    if not word:
        return 1
    return max(line.rfind(word[2] or f'"{word[1][1:-1]}"'), 0) + 1


def _csv(path: Path) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
    with path.open("rb") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True)
        header: list[str] | None = None
        try:
            for cells in reader:
                taken, first = lines.taken[:], lines.number - len(lines.taken) + 1
                lines.taken.clear()
                if not cells:
                    continue
                if header is None:
                    header = cells
                    _use_header(path, first, header, [_cell(taken, index) for index in range(len(header))])
                elif len(cells) != len(header):
                    what = f"the row has {len(cells)} cells, and the header {len(header)} names"
                    yield Row(first, broken=what, notes=("put a text with a comma or a line break in it in double quotes",), at=_cell(taken, len(cells) - 1))
                else:
                    yield Row(first, dict(zip(header, cells, strict=True)), place=_named(header, taken))
        except csv.Error as error:
            first = lines.number - len(lines.taken) + 1
            at = max(lines.taken[0].rfind('"'), 0) + 1 if lines.taken else 1
            fault = lines.fault or Row(first, broken=f"not CSV: {error}", notes=('a " inside a text is written ""',), at=at)
            yield fault
            return
        if lines.fault:
            yield lines.fault


def _named(header: list[str], taken: list[str]) -> Callable[[str], int]:
    return lambda name: _cell(taken, header.index(name)) if name in header else 1


def _cell(taken: list[str], index: int) -> int:
    """The column, in the first of its lines, at which a cell begins."""
    quoted, commas = False, 0
    for position, character in enumerate(taken[0] if taken else "", 1):
        if commas == index:
            return position
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            commas += 1
    return 1


def _use_header(path: Path, line: int, names: list[str], places: list[int]) -> None:
    problems = []
    for index, (name, place) in enumerate(zip(names, places, strict=True)):
        if not name.strip():
            problems.append(Problem(display_path(path), line, place, f"column {index + 1} has no name"))
        elif name in names[:index]:
            problems.append(Problem(display_path(path), line, place, f"the column {name!r} appears twice"))
    if len(names) == 1 and re.search("[;\t|]", names[0]):
        sign = "a tab" if "\t" in names[0] else repr(next(character for character in ";|" if character in names[0]))
        problems.append(Problem(display_path(path), line, 1, f"the cells are separated by {sign}; save the file with commas"))
    if problems:
        raise BadDefinition(problems=problems)


def _parquet(path: Path) -> Iterator[Row]:
    number, size, expanded = 0, path.stat().st_size, 0
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
        names = list(schema.names)
        _use_header(path, 1, names, list(range(1, len(names) + 1)))
        # left as they are kept, a repeated text is one text, and its length is known before it is written out
        texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
        with pq.ParquetFile(path, read_dictionary=texts, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH, use_threads=False):
                expanded += sum(_length(column) for column in batch.columns)
                if expanded > FREE and expanded > MAX_RATIO * size:
                    what = f"its {size:,} bytes stand for more than {MAX_RATIO} times as much text; write it as .jsonl to see what it holds"
                    yield Row(number + 1, broken=what)
                    return
                for written in batch.to_pylist():
                    number += 1
                    yield Row(number, written, place=lambda name: names.index(name) + 1 if name in names else 1)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        said = (str(error).splitlines() or [""])[0].removeprefix("Unexpected error: ")[:200]
        yield Row(number + 1, broken=f"not a Parquet file, or a damaged one ({said})", notes=("write the file again",))


def _length(column: pa.Array) -> int:
    if isinstance(column, pa.DictionaryArray):
        lengths = pc.binary_length(column.dictionary)
        return int(pc.sum(pc.take(lengths, column.indices)).as_py() or 0)
    return int(column.nbytes)
