"""Where the difference lies: by node, by criterion and field, by label, by route."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.criterion_columns import Columns, CriterionColumn
from beam_ray.compare.intervals import change, level, p_of_change, relative, sample
from beam_ray.compare.metrics import rounded, rounded_interval
from beam_ray.compare.pairs import Pairs, Side, numbers
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval, Numbers, Quantity, holm
from beam_ray.compare.verdict_json import SliceKind
from beam_ray.define.fingerprint import JsonObject

FEWEST_TASKS = 5
"""Of a slice; below it a slice shows its numbers, and neither interval nor p-value."""
MAX_GROUPS = 40
"""Labels or routes shown; what is beyond is counted in the comparison's notes."""


@dataclass(frozen=True)
class Slice:
    """One part of the comparison: a node's score, how often a criterion holds, a label's or a route's tasks."""

    kind: SliceKind
    name: str
    """A criterion is ``node/criterion``."""
    text: str
    unit: str
    pairs: int
    """The pairs that have the number on both sides."""
    before_count: int
    """How many have it on the baseline, paired or not."""
    after_count: int
    unscored_before: int
    """Undecided, or without a score; counted, never averaged."""
    unscored_after: int
    before: float | None
    after: float | None
    change: float | None
    low: float | None
    high: float | None
    better_tasks: int
    worse_tasks: int
    p: float
    """Of the change: below 5% exactly when the 95% interval leaves out 0. 1 where there is no interval."""
    p_adjusted: float
    """Holm's, over all slices of the kind that have an interval and all candidates."""
    field: bool = False
    """The criterion is about one field of the output."""
    errors_removed: float | None = None
    """Of a criterion: the percent of its unmet pairs that is gone; negative when there are more."""
    relative_interval: Interval | None = None
    """Of the change in percent of *before*."""
    after_interval: Interval | None = None
    """Of *after* itself."""


@dataclass(frozen=True)
class Part:
    """A slice before its numbers are known."""

    kind: SliceKind
    name: str
    quantity: Quantity
    text: str = ""
    unit: str = "points"
    scale: float = 1.0
    counts: tuple[int, int] = (0, 0)
    unscored: tuple[int, int] = (0, 0)
    field: bool = False


def by_node(pairs: Pairs, baseline: Side, candidate: Side, nodes: Sequence[str], judged: np.ndarray[Any, Any]) -> list[Part]:
    """The score of each node's step."""
    parts = []
    for node in nodes:
        sides, counts, unscored = [], [], []
        for side in (baseline, candidate):
            steps = side.by_node.get(node, side.steps.slice(0, 0))
            scores = numbers(steps["score"])
            ran = numbers(pc.is_in(steps["outcome"], value_set=pa.array(["done", "borrowed"]))).astype(bool)
            sides.append(np.where(judged, _spread(pairs, numbers(steps["pair"]), scores), np.nan))
            counts.append(int((~np.isnan(scores)).sum()))
            unscored.append(int((np.isnan(scores) & ran).sum()))
        parts.append(Part("node", node, Quantity(*sides), counts=(counts[0], counts[1]), unscored=(unscored[0], unscored[1])))
    return parts


def by_criterion(sides: tuple[Side, Side], before: Columns, after: Columns, judged: np.ndarray[Any, Any]) -> list[Part]:
    """How often each criterion holds, among the steps where both sides could decide it."""
    fields = _fields(sides)
    nothing = CriterionColumn("", np.full(len(judged), -1, np.int8), 0, 0)
    parts = []
    for name in dict.fromkeys([*before, *after]):
        left, right = (side.get(name, nothing) for side in (before, after))
        quantity = Quantity(*(np.where(judged, side.values, np.nan) for side in (left, right)))
        counts, unscored = (left.decided, right.decided), (left.undecided, right.undecided)
        parts.append(Part("criterion", name, quantity, right.text or left.text, "%", 100, counts, unscored, name in fields))
    return parts


def by_label(pairs: Pairs, score: Quantity) -> list[Part]:
    """The score of the tasks that carry each label; the commonest labels first."""
    held = _Members(pairs.after["labels"], but="")
    return _grouped("label", score, held, held)


def by_route(pairs: Pairs, score: Quantity) -> list[Part]:
    """The score of the tasks that took each route on both sides, and how many took it on each."""
    before, after = (_Members(side["routes"]) for side in (pairs.before, pairs.after))
    return _grouped("route", score, before, after)


def slices(parts: Iterable[Part], task: np.ndarray[Any, Any], unit: np.ndarray[Any, Any], *, confidence: Confidence, family: int) -> tuple[Slice, ...]:
    """The parts with their numbers; p-values are adjusted over all that have an interval. *unit* is each pair's task, or the cluster of its task."""
    made = [_slice(part, task, unit, confidence) for part in parts]
    tested = [index for index, entry in enumerate(made) if entry.low is not None]
    for index, p in zip(tested, holm([made[index].p for index in tested], family), strict=True):
        made[index] = replace(made[index], p_adjusted=rounded(p) or 0.0)
    return tuple(made)


def _slice(part: Part, task: np.ndarray[Any, Any], unit: np.ndarray[Any, Any], confidence: Confidence) -> Slice:
    most = 100.0 / part.scale
    sampled = sample(part.quantity, unit, largest=most)
    before, after = sampled.means
    enough = sampled.tasks >= FEWEST_TASKS
    moved = change(sampled, confidence) if enough else None
    reached = level(sampled.after, confidence, largest=most, effective=sampled.effective) if enough else None
    better, worse = changed_tasks(part.quantity, task)
    p = rounded(confidence.p(p_of_change(sampled, confidence))) or 0.0 if moved else 1.0
    removed = None
    if part.kind == "criterion" and sampled.pairs and before < 1:
        removed = rounded(100 * (after - before) / (1 - before))
    return Slice(
        part.kind,
        part.name,
        part.text,
        part.unit,
        sampled.pairs,
        *part.counts,
        *part.unscored,
        rounded(before * part.scale),
        rounded(after * part.scale),
        rounded((after - before) * part.scale),
        rounded(moved.low * part.scale) if moved else None,
        rounded(moved.high * part.scale) if moved else None,
        better,
        worse,
        p,
        p,
        part.field,
        removed,
        rounded_interval(relative(sampled, confidence)) if enough else None,
        rounded_interval(reached and Interval(reached.low * part.scale, reached.high * part.scale)),
    )


def changed_tasks(quantity: Quantity, task: np.ndarray[Any, Any]) -> tuple[int, int]:
    """How many tasks have a higher mean after than before, and how many a lower one."""
    if not len(task):
        return 0, 0
    change = np.bincount(task, weights=np.nan_to_num(quantity.after - quantity.before))
    return int((change > 1e-9).sum()), int((change < -1e-9).sum())


def _spread(pairs: Pairs, rows: np.ndarray[Any, Any], values: Numbers) -> Numbers:
    spread = np.full(len(pairs), np.nan)
    spread[rows[rows >= 0]] = values[rows >= 0]
    return spread


def _fields(sides: Sequence[Side]) -> set[str]:
    """Criteria named like a field of their node's output, judged by a rule: they are about that field."""
    found = set()
    for side in sides:
        for node, steps in side.by_node.items():
            mine = pc.indices_nonzero(pc.is_valid(steps["output"]))
            for row in steps.select(["output", "criteria"]).take(mine.slice(0, 20)).to_pylist():
                output = _object(row["output"])
                found |= {f"{node}/{entry['id']}" for entry in row["criteria"] or () if entry["judge"] is None and entry["id"] in output}
    return found


def _object(text: str) -> JsonObject:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


class _Members:
    """Which pairs have each label or route."""

    def __init__(self, lists: pa.ChunkedArray, but: str | None = None):
        joined = lists.combine_chunks()
        coded = pc.list_flatten(joined).dictionary_encode()
        self._count, self._codes, self._pairs = len(joined), numbers(coded.indices), numbers(pc.list_parent_indices(joined))
        names = coded.dictionary.to_pylist()
        self._code = {name: code for code, name in enumerate(names) if name != but}
        sizes = np.bincount(self._codes, minlength=len(names))
        self.sizes = Counter({name: int(sizes[code]) for name, code in self._code.items()})

    def have(self, name: str) -> np.ndarray[Any, Any]:
        """Whether each pair has it."""
        flags = np.zeros(self._count, dtype=bool)
        if name in self._code:
            flags[self._pairs[self._codes == self._code[name]]] = True
        return flags


def _grouped(kind: Literal["label", "route"], score: Quantity, before: _Members, after: _Members) -> list[Part]:
    parts = []
    for name, _ in sorted((before.sizes + after.sizes).items(), key=lambda entry: (-entry[1], entry[0]))[:MAX_GROUPS]:
        had, has = before.have(name), after.have(name)
        both = had & has
        quantity = Quantity(np.where(both, score.before, np.nan), np.where(both, score.after, np.nan))
        unscored = (int(np.isnan(score.before[had]).sum()), int(np.isnan(score.after[has]).sum()))
        parts.append(Part(kind, name, quantity, counts=(int(had.sum()), int(has.sum())), unscored=unscored))
    return parts
