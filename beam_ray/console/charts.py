"""Geometry of the small charts: numbers to places, so that templates only draw."""

from collections.abc import Sequence
from dataclasses import dataclass

WIDTH = 160.0
"""Units from the left end of an interval's axis to the right one; 0 is in the middle."""


@dataclass(frozen=True)
class IntervalMark:
    """An interval on an axis around zero."""

    low: float
    high: float
    dot: float
    word: str
    """better, worse or unclear: where the whole interval is."""


def interval_mark(change: float | None, low: float | None, high: float | None, better: str) -> IntervalMark | None:
    """The mark of a change; None without an interval. Its axis reaches as far as the interval does."""
    if change is None or low is None or high is None:
        return None
    reach = max(abs(low), abs(high), abs(change), 1e-12) * 1.15

    def place(value: float) -> float:
        return round(WIDTH / 2 + value / reach * WIDTH / 2, 1)

    up = better == "up"
    word = "unclear" if low <= 0 <= high else "better" if (low > 0) == up else "worse"
    return IntervalMark(place(low), place(high), place(change), word)


@dataclass(frozen=True)
class LevelMark:
    """A level from 0 to 100 on its axis, with its interval."""

    low: float
    high: float
    dot: float


def level_mark(value: float | None, low: float | None, high: float | None) -> LevelMark | None:
    """The mark of a level; None without an interval."""
    if value is None or low is None or high is None:
        return None
    return LevelMark(round(low, 1), round(high, 1), round(value, 1))


def sparkline(values: Sequence[float], width: float = 72.0, height: float = 18.0) -> str:
    """The points of a line through values from 0 to 1; empty for fewer than two."""
    if len(values) < 2:
        return ""
    step = width / (len(values) - 1)
    return " ".join(f"{index * step:.1f},{height - 1 - value * (height - 2):.1f}" for index, value in enumerate(values))
