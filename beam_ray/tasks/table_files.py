"""
Rows of Parquet files and Excel workbooks, each with its number.

A few bytes of either may stand for gigabytes, so both are measured before they are unpacked.
"""

import datetime
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import Problem, Unusable
from beam_ray.tasks.rows import FREE, Row
from beam_ray.tasks.text_files import faults_of_header

MAX_RATIO = 50
"""Characters that one byte of the file may stand for, beyond FREE of them."""

MAX_WORKBOOK = 400_000_000
"""Bytes of a workbook's parts; all of its texts are held in memory."""

PARQUET_BATCH = 64
"""Rows of a Parquet file that are unpacked at a time."""


def read_parquet(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """One task a row."""
    number, expanded = 0, 0
    try:
        size = stream.seek(0, 2)
        with pq.ParquetFile(stream) as file:
            schema = file.schema_arrow
        faults = [Problem(name, 0, 0, text) for _, text in faults_of_header(list(schema.names))]
        yield from faults
        if faults:
            return
        # left as they are kept, a repeated text is one text, and its length is known before it is written out
        texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
        with pq.ParquetFile(stream, read_dictionary=texts, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH, use_threads=False):
                expanded += sum(_length(column) for column in batch.columns)
                if expanded > FREE and expanded > MAX_RATIO * size:
                    what = f"its {size:,} bytes stand for more than {MAX_RATIO} times as much text; write it as .jsonl to see what it holds"
                    yield Problem(name, number + 1, 0, what, unit="row")
                    return
                for written in batch.to_pylist():
                    number += 1
                    yield Row(name, number, without_nulls(written), has_header=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        said = (str(error).splitlines() or [""])[0].removeprefix("Unexpected error: ")[:200]
        yield Problem(name, number and number + 1, 0, f"not a Parquet file, or a damaged one ({said})", ("write the file again",), unit="row")


def without_nulls(row: JsonObject) -> JsonObject:
    """
    The row without the null fields of its structs: all rows of a table share one struct, so a field that a row does not have is null there.
    """
    return {name: _without_nulls(value) if isinstance(value, (dict, list)) else value for name, value in row.items()}


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _length(column: pa.Array) -> int:
    if isinstance(column, pa.DictionaryArray):
        lengths = pc.binary_length(column.dictionary)
        return int(pc.sum(pc.take(lengths, column.indices)).as_py() or 0)
    return int(column.nbytes)


def read_excel(stream: BinaryIO, name: str) -> Iterator[Row | Problem]:
    """
    One task a row of a sheet, below a header; cells are read as text, as those of a CSV file are.

    *name* may end in ``#SHEET``; without it the workbook must have one sheet that is not empty.
    """
    openpyxl = _openpyxl(name)
    book_name, _, sheet = name.partition("#")
    try:
        size = stream.seek(0, 2)
        with zipfile.ZipFile(stream) as parts:
            expanded = sum(part.file_size for part in parts.infolist())
        if expanded > MAX_WORKBOOK or (expanded > FREE and expanded > MAX_RATIO * size):
            yield Problem(book_name, 0, 0, f"its {size:,} bytes hold {expanded:,} bytes; save it as .csv")
            return
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True, keep_links=False)
        for found in book.worksheets:
            found.reset_dimensions()  # what the file says of its size may be wrong
        titles = [found.title for found in book.worksheets if found.title == sheet or (not sheet and _first_cells(found))]
        if len(titles) != 1:
            known = ", ".join(found.title for found in book.worksheets)
            what = f"there is no sheet {sheet!r}; it has {known}" if sheet else "it has no sheet with cells"
            if len(titles) > 1:
                what = f"it has several sheets: {', '.join(titles)}; name one of them: {book_name}#{titles[0]}"
            yield Problem(book_name, 0, 0, what)
            return
        yield from _sheet(book[titles[0]], f"{book_name}, sheet {titles[0]}")
    except Exception as error:  # zip, XML and openpyxl raise what they like about a damaged file
        said = (str(error).splitlines() or [type(error).__name__])[0][:200]
        yield Problem(book_name, 0, 0, f"not an Excel workbook (.xlsx), or a damaged one ({said})", ("save it again",))


def _sheet(sheet: Any, name: str) -> Iterator[Row | Problem]:
    header: list[str] | None = None
    for number, values in enumerate(sheet.iter_rows(values_only=True), 1):
        cells = [_text(value) for value in values]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            continue
        if header is None:
            header = cells
            faults = [Problem(name, number, 0, text, unit="row") for _, text in faults_of_header(header)]
            yield from faults
            if faults:
                return
        elif len(cells) > len(header):
            yield Problem(name, number, 0, f"the row has {len(cells)} cells, and the header {len(header)} names", unit="row")
        else:
            yield Row(name, number, dict(zip(header, [*cells, *[""] * (len(header) - len(cells))], strict=True)), has_header=True)


def _first_cells(sheet: Any) -> bool:
    return any(value not in (None, "") for values in sheet.iter_rows(values_only=True) for value in values)


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else str(value)


def _openpyxl(name: str) -> Any:
    try:
        import openpyxl
    except ImportError:
        raise Unusable(f"{name}: Excel workbooks are read by openpyxl, which is not installed: pip install 'beam-ray[excel]'") from None
    return openpyxl
