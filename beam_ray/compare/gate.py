"""
The gate: limits that a candidate must keep, or may reach. ``gate_file`` reads and checks it, ``verdict`` judges by it.

A rule is a name and limits; several limits of one rule are judged one by one.

- **Levels** ``at_least`` and ``at_most`` are about the candidate alone, in the metric's own unit.
- **Targets** ``up_by`` and ``down_by`` ask for a change of at least so much.
- **Guards** ``up_by_at_most`` and ``down_by_at_most`` ask whether harm is *shown*: no evidence, no
  objection. A guard that PASSes does not say that there is no harm.
- **Non-inferiority** ``not_worse_than`` asks whether harm is *excluded*: it PASSes when the entire
  interval lies above a loss of so much.
"""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

from beam_ray.compare.metric_definitions import KINDS
from beam_ray.define.fingerprint import JsonObject
from beam_ray.define.frozen import Frozen

Kind = Literal["at_least", "at_most", "up_by", "down_by", "up_by_at_most", "down_by_at_most", "not_worse_than"]
Level = Literal["block", "warn", "target"]
LIMITS: tuple[Kind, ...] = ("at_least", "at_most", "up_by", "down_by", "up_by_at_most", "down_by_at_most", "not_worse_than")
LEVELS = LIMITS[:2]
COUNTS: Mapping[str, tuple[Kind, ...]] = {"regressions": ("at_most",), "route_changes": ("at_most",), "compared": ("at_least",), "in_recording": ("at_least",)}
"""Rules about counts that are known exactly, and the limits that make sense for them."""
NAMES = (*KINDS, *COUNTS)
PERCENTAGES = {name for name, kind in KINDS.items() if kind.unit == "%"} | {"compared", "in_recording"}
BOUNDED = PERCENTAGES | {"score", "first_score"}


SLICED = ("success_rate", "score", "usd", "seconds")
"""Metrics that each slice of the tasks has."""


class SlicedRule(NamedTuple):
    """``score[variables.country=DE]``."""

    metric: str
    field: str
    value: str


def sliced_rule(rule: str) -> SlicedRule | None:
    """The parts of a rule about a slice; None for any other rule."""
    match = re.fullmatch(r"(\w+)\[([\w.]+)=(.+)\]", rule)
    return SlicedRule(*match.groups()) if match else None


class Limit(Frozen):
    """One limit of one rule."""

    rule: str
    """A metric, a count, ``node/score``, ``node/criterion``, ``node/criterion.recall[class]`` or ``score[field=value]``."""
    kind: Kind
    amount: float
    percent: bool = False
    """The amount is in percent of the baseline, or of the compared tasks, and not in the metric's unit."""
    level: Level = "block"
    """Whether the line decides, at most warns, or is a target that is only shown."""
    by: Literal["interval", "estimate"] = "interval"
    any_loss: Literal["allow", "block"] = "allow"
    """Of ``not_worse_than``: whether a loss within the margin blocks when it is shown beyond doubt."""
    optional: bool = False
    """Whether there is no line where neither side has the number, such as the price of an unpriced model."""

    @property
    def text(self) -> str:
        """The limit as people read it: ``up by at most 25 %``."""
        sliced = sliced_rule(self.rule)
        percent = self.percent or ((sliced.metric if sliced else self.rule) in PERCENTAGES and self.kind in LEVELS)
        return f"{self.kind.replace('_', ' ')} {self.amount:g}{' %' if percent else ''}"


class Gate(Frozen):
    """Allowed changes: a name, the confidence of the intervals, and the limits in order."""

    name: str
    confidence: float = 95.0
    strict: bool = True
    """Whether a limit that the interval leaves open makes the verdict INCONCLUSIVE; otherwise it is a warning."""
    limits: tuple[Limit, ...]

    def document(self) -> JsonObject:
        """The gate as plain JSON."""
        return self.model_dump(mode="json")


NONE = Gate(name="none", limits=())
"""Compares and decides nothing."""
