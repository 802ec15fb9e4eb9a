"""Geometry of the chart of a trend: its points with their intervals, in the order of versions and days."""

from __future__ import annotations  # a type of the API is not loaded for its name alone

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from beam_ray import TrendPoint


@dataclass(frozen=True)
class TrendMark:
    """A point of a trend with its interval, and what it is of."""

    x: float
    y: float
    low: float
    high: float
    label: str
    version: str
    value: float


TREND_WIDTH, TREND_HEIGHT = 640.0, 140.0
"""Units of a trend chart; its axis goes from 0 to 100 percent."""


def trend_marks(points: Sequence[TrendPoint], levels: Sequence[Any]) -> list[TrendMark]:
    """The marks of levels in percent (value, low and high), in the order of the points; those without a level are left out."""
    known = [(point, level) for point, level in zip(points, levels, strict=True) if level is not None]
    step = TREND_WIDTH / max(len(known), 1)

    def height(value: float) -> float:
        return round(TREND_HEIGHT * (1 - min(max(value, 0.0), 100.0) / 100), 1)

    marks = []
    for place, (point, level) in enumerate(known):
        value, low, high = level["value"], level["low"], level["high"]
        label = f"version {point.version}" if point.version else "draft"
        span = (height(value), height(value)) if low is None or high is None else (height(low), height(high))
        marks.append(TrendMark(round((place + 0.5) * step, 1), height(value), *span, f"{point.day}, {label}: {value:.2f}%", label, value))
    return marks
