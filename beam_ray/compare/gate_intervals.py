"""Where each limit of a gate lies beside the interval of what was observed, in the numbers of a comparison's document."""

from collections.abc import Iterator
from typing import NamedTuple, TypedDict

from beam_ray.compare.gate import COUNTS, LEVELS, Gate, Limit
from beam_ray.compare.verdict_json import ComparisonDocument, IntervalDocument, MetricDocument, SliceDocument


class GateIntervalDocument(TypedDict):
    """A gate interval as JSON."""

    rule: str
    limit: float
    value: float
    low: float
    high: float
    unit: str
    allowed: str


class GateInterval(NamedTuple):
    """A limit, and what is held against it."""

    rule: str
    text: str
    """The limit as people read it; with *rule* it names the gate's line."""
    limit: float
    value: float
    low: float
    high: float
    unit: str
    upward: bool
    """Whether values above the limit are allowed; otherwise those below it are."""
    relative: bool = False
    """Whether limit and values are percent of the baseline, and no change in the metric's own unit."""

    def document(self) -> GateIntervalDocument:
        """The interval as plain JSON."""
        return {
            "rule": self.rule,
            "limit": self.limit,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "unit": self.unit,
            "allowed": "above" if self.upward else "below",
        }


def gate_intervals(gate: Gate, comparison: ComparisonDocument) -> tuple[GateInterval, ...]:
    """The limits that an interval is held against; counts, and numbers without an interval, have none."""
    return tuple(found for limit in gate.limits for found in _of(limit, comparison))


def _of(limit: Limit, comparison: ComparisonDocument) -> Iterator[GateInterval]:
    metric = None if limit.rule in COUNTS else _metric(limit.rule, comparison)
    if metric is None or metric["after"] is None:
        return
    if limit.kind in LEVELS:
        interval = metric["after_interval"]
        if interval is not None:
            yield GateInterval(
                limit.rule, limit.text, limit.amount, metric["after"], interval["low"], interval["high"], metric["unit"], limit.kind == "at_least"
            )
        return
    upward = metric["better"] == "up" if limit.kind == "not_worse_than" else limit.kind in ("up_by", "down_by_at_most")
    # a tolerated loss lies on the other side of no change than a wanted gain
    tolerated = limit.kind.endswith("_at_most") or limit.kind == "not_worse_than"
    bound = limit.amount if upward is not tolerated else -limit.amount
    if limit.percent and metric["relative"] is not None:
        value, interval, unit = metric["relative"], metric["relative_interval"], "%"
    elif metric["change"] is not None and metric["low"] is not None and metric["high"] is not None:
        value, interval, unit = metric["change"], IntervalDocument(low=metric["low"], high=metric["high"]), _of_change(metric["unit"])
        bound = 0.0 if limit.percent else bound
    else:
        return
    if interval is not None:
        yield GateInterval(
            limit.rule, limit.text, bound, value, interval["low"], interval["high"], unit, upward, limit.percent and metric["relative"] is not None
        )


def _of_change(unit: str) -> str:
    return "points" if unit == "%" else unit


def _metric(rule: str, comparison: ComparisonDocument) -> MetricDocument | None:
    found = next((each for each in comparison["metrics"] if each["name"] == rule), None)
    if found is not None or "/" not in rule:
        return found
    node, _, criterion = rule.partition("/")
    kind, name = ("node", node) if criterion == "score" else ("criterion", rule)
    part = next((each for each in comparison["slices"] if each["kind"] == kind and each["name"] == name), None)
    return _as_metric(part) if part else None


def _as_metric(part: SliceDocument) -> MetricDocument:
    before, change = part["before"], part["change"]
    return {
        "name": part["name"],
        "title": part["name"],
        "unit": part["unit"],
        "better": "up",
        "before": before,
        "after": part["after"],
        "change": change,
        "relative": 100 * change / before if before and change is not None else None,
        "low": part["low"],
        "high": part["high"],
        "relative_interval": part.get("relative_interval"),
        "after_interval": part.get("after_interval"),
        "pairs": part["pairs"],
        "note": "",
    }
