"""One task as somebody wrote it, before it is checked, and where it stands."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from beam_ray.errors import Problem

MAX_ROW = 8_000_000
"""Bytes of a line, or characters of a task."""

FREE = 32_000_000
"""Bytes that any compressed file may hold, however small it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """One task as written, with its place."""

    file: str
    """The file's name as messages show it."""
    number: int
    """The line at which it begins, or the number of the row of a table; from 1."""
    written: Any
    find: Callable[[str], tuple[int, int]] | None = None
    """Line and column of a field; None for a table that has rows and no lines."""
    has_header: bool = False
    """Whether all rows of the file have the same fields."""

    def problem(self, text: str, *notes: str, field: str = "") -> Problem:
        """What is wrong with the task, at the place of *field* where there is one."""
        if self.find is None:
            return Problem(self.file, self.number, 0, text, notes, unit="row")
        line, column = self.find(field) if field else (self.number, 1)
        return Problem(self.file, line, column, text, notes)

    def seen_from(self, file: str) -> str:
        """This row's place in a message about *file*: ``line 3``, or with the name of its own file where that is another one."""
        unit = "row" if self.find is None else "line"
        if self.file == file:
            return f"{unit} {self.number}"
        return f"{self.file}, row {self.number}" if unit == "row" else f"{self.file}:{self.number}"
