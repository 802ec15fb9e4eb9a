"""What people see: tables, progress and amounts; and what machines read."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import click

import beam_ray

PLAIN_S = 5.0
"""Seconds between two progress lines where there is no terminal."""
WAITING_S = 300.0
"""The same while a run waits for batches."""

_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_NOT_ESCAPED = re.compile(r"[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What could steer a terminal, and JSON does not escape by itself."""


def clean(text: str) -> str:
    """*text* without what could steer a terminal."""
    return _CONTROL.sub("", text)


MARKS = {"passed": "pass", "below": "BELOW", "failed": "FAILED"}
"""A task's status as tables show it."""


def emit(document: Any) -> None:
    """The one JSON document of a command."""
    text = json.dumps(document, ensure_ascii=False, indent=2, default=str)
    click.echo(_NOT_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def say(text: str = "") -> None:
    """A line for people, on standard error: standard output is for results."""
    click.echo(clean(text), err=True)


def show(text: str = "") -> None:
    """A line of a command's result."""
    click.echo(clean(text))


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = (), indent: str = "  ", width: int = 60) -> str:
    """An aligned table; *right* are the columns of numbers, *width* the most that a cell shows."""
    flat = [[_cell(cell, width) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *flat, strict=True)] if flat else [len(name) for name in header]
    numbers = set(right)

    def line(cells: Sequence[str]) -> str:
        return (
            indent
            + "  ".join(
                cell.rjust(size) if index in numbers else cell.ljust(size) for index, (cell, size) in enumerate(zip(cells, widths, strict=True))
            ).rstrip()
        )

    return "\n".join([line(header), *(line(row) for row in flat)])


def _cell(value: Any, width: int) -> str:
    text = "" if value is None else " ".join(clean(str(value)).split())
    return text if len(text) <= width else text[: width - 1] + "…"


def money(usd: float | None) -> str:
    """US dollars, or the word for a model without a price."""
    if usd is None:
        return "unpriced"
    return f"${usd:,.2f}" if usd == 0 or usd >= 1 else f"${usd:.4f}"


def at_most(usd: float | None) -> str:
    """The most that something costs."""
    return money(usd) if usd is None else f"≤ {money(usd)}"


def duration(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def number(value: float | None, digits: int = 1) -> str:
    """A number, or a dash where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}"


class Meter:
    """Progress: one line that rewrites itself on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, *, quiet: bool = False):
        self.title, self.quiet = title, quiet
        self.live = sys.stderr.isatty() and not os.environ.get("CI")
        self.told = time.monotonic()
        self.shown = self.waiting = False

    def __call__(self, progress: Any) -> None:
        moment = time.monotonic()
        pause = 0.2 if self.live else WAITING_S if progress.waits_for and self.waiting else PLAIN_S
        if self.quiet or moment - self.told < pause:
            return
        self.told, self.waiting = moment, bool(progress.waits_for)
        rate = progress.calls / progress.seconds if progress.seconds else 0.0
        text = f"{self.title}  {progress.tasks_done}/{progress.tasks} tasks  {progress.steps_done}/{progress.steps} steps  {rate:.1f} calls/s  {money(progress.usd)}"
        if progress.steps_failed:
            text += f"  {progress.steps_failed} failed"
        if progress.waits_for:
            text = f"{self.title}  {progress.waits_for}  {money(progress.usd)}"
        elif progress.remaining_s is not None and progress.steps_done < progress.steps:
            text += f"  {duration(progress.remaining_s)} left"
        if self.live:
            self.shown = True
            sys.stderr.write(f"\r\x1b[2K{clean(text)}")
            sys.stderr.flush()
        else:
            say(text)

    def done(self) -> None:
        """Leave the line."""
        if self.shown:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


@contextlib.contextmanager
def progress(*, quiet: bool = False) -> Iterator[Callable[[beam_ray.Progress], None]]:
    """A progress callback that shows a line per run or side, and messages, on standard error; *quiet* shows messages alone."""
    meters: dict[str, Meter] = {}

    def callback(state: beam_ray.Progress) -> None:
        if state.message:
            for meter in meters.values():
                meter.done()
            say(f"{state.title}: {state.message}" if state.title else state.message)
        else:
            meters.setdefault(state.title, Meter(state.title, quiet=quiet))(state)

    try:
        yield callback
    finally:
        for meter in meters.values():
            meter.done()


def plural(count: int, one: str, many: str = "") -> str:
    """A count with its noun: ``1 task``, ``2 tasks``."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
