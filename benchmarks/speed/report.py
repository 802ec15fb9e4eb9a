"""The benchmark's report: Markdown tables, and every target with what was measured."""

import os
import platform
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path


@dataclass(frozen=True)
class Target:
    """A measured value, and its upper or lower limit."""

    what: str
    found: float
    limit: float
    unit: str = ""
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the value keeps the limit."""
        return self.found >= self.limit if self.least else self.found <= self.limit

    @property
    def row(self) -> list[str]:
        """The target as a row of the last table."""
        wanted = f"{'at least' if self.least else 'at most'} {number(self.limit)}{self.unit}"
        return [self.what, wanted, f"{number(self.found)}{self.unit}", "met" if self.met else "MISSED"]


@dataclass
class Report:
    """Tables on standard output, progress on standard error."""

    targets: list[Target] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def part(self, title: str) -> None:
        """The heading of a part."""
        say(f"\n### {title}\n")

    def progress(self, text: str) -> None:
        """A line on standard error."""
        sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        sys.stderr.flush()

    def note(self, text: str) -> None:
        """A paragraph."""
        say(f"{text}\n")

    def table(self, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table; the first column is left-aligned, the others right-aligned."""
        lines = [list(head), *([each if isinstance(each, str) else number(each) for each in row] for row in rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]

        def line(cells: Sequence[str]) -> str:
            aligned = [cell.rjust(width) if column else cell.ljust(width) for column, (cell, width) in enumerate(zip(cells, widths, strict=True))]
            return f"| {' | '.join(aligned)} |"

        rule = [f"{'-' * (width - 1)}{':' if column else '-'}" for column, width in enumerate(widths)]
        say("\n".join([line(lines[0]), f"| {' | '.join(rule)} |", *map(line, lines[1:])]) + "\n")

    def at_most(self, what: str, found: float, limit: float, unit: str = "") -> None:
        """Compare *found* with a target."""
        self.targets.append(Target(what, found, limit, unit))
        self.progress(" · ".join(self.targets[-1].row))

    def at_least(self, what: str, found: float, limit: float, unit: str = "") -> None:
        """Compare *found* with a target."""
        self.targets.append(Target(what, found, limit, unit, least=True))
        self.progress(" · ".join(self.targets[-1].row))


def say(text: str) -> None:
    """Print to standard output and flush."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def number(value: object) -> str:
    """A number with three significant digits and separated thousands."""
    if not isinstance(value, (int, float)):
        return str(value)
    if isinstance(value, int) or value == int(value) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 else f"{value:.3f}"


def machine() -> str:
    """Date, machine, versions and load."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1024**2
    versions = ", ".join(f"{name} {version(name)}" for name in ("ray", "openai", "pyarrow"))
    return (
        f"{time.strftime('%-d %B %Y %H:%M')} · {len(os.sched_getaffinity(0))} cores ({model}), {memory:.0f} GiB · Python {platform.python_version()}, {versions}"
        f" · load before the start {os.getloadavg()[0]:.1f}"
    )
