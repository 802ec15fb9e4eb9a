"""What a rule of a gate is about beside the metrics of all tasks: a node, a criterion, a class or a slice."""

from beam_ray.compare.breakdown import Slice
from beam_ray.compare.classification import ClassMeasure
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.gate import Limit, SlicedRule, sliced_rule
from beam_ray.compare.metric_definitions import KINDS
from beam_ray.compare.metrics import Metric
from beam_ray.compare.subgroups import SubgroupMetric
from beam_ray.errors import Unusable, did_you_mean

Part = Slice | ClassMeasure | SubgroupMetric


def part_of(limit: Limit, comparison: Comparison) -> Part | None:
    """What the limit is about if that is not a metric of all tasks."""
    if sliced := sliced_rule(limit.rule):
        return _sliced(limit.rule, sliced, comparison)
    return _slice(limit, comparison) if "/" in limit.rule else None


def _sliced(rule: str, sliced: SlicedRule, comparison: Comparison) -> SubgroupMetric:
    fields = {group.field: group for group in comparison.subgroups}
    if sliced.field not in fields:
        raise Unusable(
            f"the gate has a rule for {rule!r}, but the tasks are not sliced by {sliced.field}\n  add it to 'slices' of the backtest, or --slice {sliced.field}"
        )
    found = [entry for member in fields[sliced.field].members if member.value == sliced.value for entry in member.metrics if entry.name == sliced.metric]
    kind = KINDS[sliced.metric]
    numbers = (None, None, None, None, None, None, None, None)
    nothing = Metric(rule, rule, kind.unit, kind.better, *numbers, pairs=0, note=f"no compared task has {sliced.field}={sliced.value}")
    return found[0] if found else SubgroupMetric(sliced.metric, nothing, None, 1.0, 1.0)


def _slice(limit: Limit, comparison: Comparison) -> Slice | ClassMeasure:
    measures = {measure.name: measure for measure in comparison.class_measures}
    node, _, criterion = limit.rule.partition("/")
    kind, name = ("node", node) if criterion == "score" else ("criterion", limit.rule)
    known = {entry.name: entry for entry in comparison.of_kind(kind)}
    if name in known:
        return known[name]
    if name not in measures:
        raise Unusable("\n  ".join([f"the gate has a rule for {limit.rule!r}, which neither side has", *did_you_mean(name, {**known, **measures})]))
    return measures[name]


def as_metric(part: Part) -> Metric:
    """A node, criterion, class or slice as a metric."""
    if isinstance(part, ClassMeasure | SubgroupMetric):
        return part.metric
    relative = 100 * part.change / part.before if part.before and part.change is not None else None
    note = "" if part.pairs else "no pair has this number on both sides"
    numbers = (part.before, part.after, part.change, relative, part.low, part.high, part.relative_interval, part.after_interval)
    return Metric(part.name, part.name, part.unit, "up", *numbers, part.pairs, note)
