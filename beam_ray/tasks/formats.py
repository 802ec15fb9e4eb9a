"""Formats of tasks files: which reader yields the rows of a file."""

from collections.abc import Callable, Iterator
from typing import BinaryIO

from beam_ray.errors import Problem, Unusable
from beam_ray.tasks.files import TaskFile
from beam_ray.tasks.rows import Row
from beam_ray.tasks.table_files import read_excel, read_parquet
from beam_ray.tasks.text_files import read_csv, read_json, read_json_lines, read_tsv

FORMATS: dict[str, Callable[[BinaryIO, str], Iterator[Row | Problem]]] = {
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_tsv,
    ".parquet": read_parquet,
    ".xlsx": read_excel,
}
"""Ending of a file to its reader, which takes the bytes and the name that messages show."""


def read_rows(file: TaskFile) -> Iterator[Row | Problem]:
    """
    The rows of the file, and what is wrong where one cannot be read.

    Raises:
        BadDefinition: the file is damaged, or holds far more than its size lets expect.
        Unusable: it cannot be opened.
    """
    try:
        with file.open() as stream:
            yield from FORMATS[file.suffix](stream, file.name)
    except OSError as error:
        raise Unusable(f"{file.name}: cannot be read ({error.strerror or error})") from None
