"""Geometry of the small charts: numbers to places, so that templates only draw."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

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


@dataclass(frozen=True)
class LimitMark:
    """An interval on an axis that has its limit in view."""

    low: float
    high: float
    dot: float
    limit: float


def limit_mark(low: float, value: float, high: float, limit: float) -> LimitMark:
    """The mark of an interval beside the limit that it is held against."""
    left, right = min(low, limit), max(high, limit)
    reach = max(right - left, 1e-12)

    def place(at: float) -> float:
        return round(WIDTH * (0.08 + 0.84 * (at - left) / reach), 1)

    return LimitMark(place(low), place(high), place(value), place(limit))


def strength(count: int, most: int) -> int:
    """How strongly a bin is drawn, 1 to 6: by the logarithm, since one bin often has nearly all."""
    return 1 + round(5 * math.log1p(count) / math.log1p(most)) if most > 1 else 6


@dataclass(frozen=True)
class FrontMark:
    """A side on a chart of what it reaches against what that takes."""

    name: str
    x: float
    y: float
    score: float
    cost: float
    dominated_by: str | None
    baseline: bool


FRONT_WIDTH, FRONT_HEIGHT = 360.0, 190.0
METRIC_UNITS = {"success_rate": "%", "usd": "USD", "seconds": "s", "tokens": "tokens"}


def front_marks(front: Any, baseline: str) -> dict[str, Any]:
    """The places of all sides, and the steps of the Pareto front; cost to the right, score upwards."""
    points = front["points"]
    costs, scores = [each["cost"] for each in points], [each["score"] for each in points]

    def place(value: float, values: list[float], size: float) -> float:
        reach = max(values) - min(values)
        return round(size * (0.1 + 0.8 * ((value - min(values)) / reach if reach else 0.5)), 1)

    marks = [
        FrontMark(
            each["name"],
            place(each["cost"], costs, FRONT_WIDTH),
            FRONT_HEIGHT - place(each["score"], scores, FRONT_HEIGHT),
            each["score"],
            each["cost"],
            each["dominated_by"],
            each["name"] == baseline,
        )
        for each in points
    ]
    best = sorted((mark for mark in marks if not mark.dominated_by), key=lambda mark: mark.x)
    # from each side on the front the next one takes over only at its own cost
    line = [f"{best[0].x},{best[0].y}"] if best else []
    for before, after in pairwise(best):
        line += [f"{after.x},{before.y}", f"{after.x},{after.y}"]
    units = {f"{axis}_unit": METRIC_UNITS.get(front[axis], "points") for axis in ("score", "cost")}
    return {"score": front["score"], "cost": front["cost"], **units, "marks": marks, "line": " ".join(line)}


@dataclass(frozen=True)
class SequenceMark:
    """An interim analysis on the chart of a gate's line."""

    x: float
    low: float
    high: float
    dot: float


SEQUENCE_WIDTH, SEQUENCE_HEIGHT = 320.0, 120.0


def sequence_marks(points: Sequence[tuple[int, float, float, float]], limit: float, planned: int) -> dict[str, Any]:
    """
    A confidence sequence closing in on its limit: tasks to the right, values upwards.

    Args:
        points: Tasks, low, value and high of each analysis.
    """
    values = [limit, *(each for point in points for each in point[1:])]
    # the first intervals may be many times as wide as the last: the axis shows what lies around the newest
    newest = points[-1]
    reach = max(abs(newest[1] - limit), abs(newest[3] - limit), (newest[3] - newest[1])) * 1.6 or 1.0
    bottom, top = max(min(values), limit - reach), min(max(values), limit + reach)
    span = (top - bottom) or 1.0

    def up(value: float) -> float:
        inside = min(max(value, bottom), top)
        return round(SEQUENCE_HEIGHT * (0.94 - 0.88 * (inside - bottom) / span), 1)

    marks = [SequenceMark(round(SEQUENCE_WIDTH * tasks / max(planned, 1), 1), up(low), up(high), up(value)) for tasks, low, value, high in points]
    area = [f"{mark.x},{mark.high}" for mark in marks] + [f"{mark.x},{mark.low}" for mark in reversed(marks)]
    return {"marks": marks, "limit": up(limit), "area": " ".join(area)}
