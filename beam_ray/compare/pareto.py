"""Which sides of a comparison are dominated: another one is at least as good, and costs no more, and one of the two is better."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    """One side: what it reaches, and what that takes."""

    name: str
    score: float
    cost: float
    dominated_by: str | None = None
    """The best of those that dominate it; None on the front."""


def front(points: Sequence[Point]) -> list[Point]:
    """The points, each with what dominates it, in their order. Equal points do not dominate each other."""
    return [Point(point.name, point.score, point.cost, _dominating(point, points)) for point in points]


def _dominating(point: Point, points: Sequence[Point]) -> str | None:
    better = [other for other in points if other.score >= point.score and other.cost <= point.cost and (other.score, other.cost) != (point.score, point.cost)]
    return max(better, key=lambda other: (other.score, -other.cost)).name if better else None
