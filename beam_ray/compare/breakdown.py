"""Where the difference lies: by node, by criterion and field, by label, by route."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

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


Members = Mapping[str, np.ndarray[Any, Any]]
"""Label or route to the rows of the pairs that have it."""


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
            steps = side.steps.select(["pair", "outcome", "score"]).filter(pc.equal(side.steps["node"], node))
            scores = numbers(steps["score"])
            ran = numbers(pc.is_in(steps["outcome"], value_set=pa.array(["done", "borrowed"]))).astype(bool)
            sides.append(np.where(judged, _spread(pairs, numbers(steps["pair"]), scores), np.nan))
            counts.append(int((~np.isnan(scores)).sum()))
            unscored.append(int((np.isnan(scores) & ran).sum()))
        parts.append(Part("node", node, Quantity(*sides), counts=(counts[0], counts[1]), unscored=(unscored[0], unscored[1])))
    return parts


def by_criterion(pairs: Pairs, baseline: Side, candidate: Side, judged: np.ndarray[Any, Any]) -> list[Part]:
    """How often each criterion holds, among the steps where both sides could decide it."""
    found = [_criteria(pairs, side.steps) for side in (baseline, candidate)]
    fields = _fields([baseline.steps, candidate.steps])
    parts = []
    for name in dict.fromkeys(key for side in found for key in side):
        before, after = (side.get(name, (np.full(len(pairs), np.nan), "", 0, 0)) for side in found)
        quantity = Quantity(np.where(judged, before[0], np.nan), np.where(judged, after[0], np.nan))
        counts, unscored = (before[2], after[2]), (before[3], after[3])
        parts.append(Part("criterion", name, quantity, after[1] or before[1], "%", 100, counts, unscored, name in fields))
    return parts


def by_label(pairs: Pairs, score: Quantity) -> list[Part]:
    """The score of the tasks that carry each label; the commonest labels first."""
    held = {label: rows for label, rows in _members(pairs.after["labels"], len(pairs)).items() if label}
    return _grouped("label", score, held, held)


def by_route(pairs: Pairs, score: Quantity) -> list[Part]:
    """The score of the tasks that took each route on both sides, and how many took it on each."""
    before, after = (_members(side["routes"], len(pairs)) for side in (pairs.before, pairs.after))
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


def _criteria(pairs: Pairs, steps: pa.Table) -> dict[str, tuple[Numbers, str, int, int]]:
    steps = steps.select(["pair", "node", "criteria"]).combine_chunks()
    if not steps.num_rows:
        return {}
    lists = steps["criteria"].combine_chunks()
    parents = pc.list_parent_indices(lists)
    flat = pc.list_flatten(lists)
    nodes = pc.take(steps["node"].combine_chunks(), parents)
    coded = pc.binary_join_element_wise(nodes, pc.struct_field(flat, "id"), "/").dictionary_encode()
    codes, met, texts = numbers(coded.indices), numbers(pc.struct_field(flat, "met")).astype(np.float64), pc.struct_field(flat, "text")
    rows = numbers(steps["pair"])[numbers(parents)]
    found = {}
    for code, name in enumerate(coded.dictionary.to_pylist()):
        mine = np.flatnonzero(codes == code)
        decided = ~np.isnan(met[mine])
        values = _spread(pairs, rows[mine], met[mine])
        found[name] = (values, texts[int(mine[0])].as_py() or "", int(decided.sum()), int((~decided).sum()))
    return found


def _fields(tables: Sequence[pa.Table]) -> set[str]:
    """Criteria named like a field of their node's output, judged by a rule: they are about that field."""
    found = set()
    for steps in tables:
        for node in pc.unique(steps["node"]).to_pylist():
            mine = pc.indices_nonzero(pc.and_(pc.equal(steps["node"], node), pc.is_valid(steps["output"])))
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


def _members(lists: pa.ChunkedArray, count: int) -> Members:
    joined = lists.combine_chunks()
    coded = pc.list_flatten(joined).dictionary_encode()
    codes, parents = numbers(coded.indices), numbers(pc.list_parent_indices(joined))
    order = np.argsort(codes, kind="stable")
    bounds = np.searchsorted(codes[order], np.arange(len(coded.dictionary) + 1))
    return {name: parents[order[bounds[code] : bounds[code + 1]]] for code, name in enumerate(coded.dictionary.to_pylist())}


def _grouped(kind: Literal["label", "route"], score: Quantity, before: Members, after: Members) -> list[Part]:
    sizes = Counter({name: len(rows) for name, rows in before.items()}) + Counter({name: len(rows) for name, rows in after.items()})
    parts = []
    for name, _ in sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0]))[:MAX_GROUPS]:
        none = np.array([], dtype=np.int64)
        own = (before.get(name, none), after.get(name, none))
        both = np.zeros(len(score.before), dtype=bool)
        both[np.intersect1d(*own)] = True
        quantity = Quantity(np.where(both, score.before, np.nan), np.where(both, score.after, np.nan))
        unscored = (int(np.isnan(score.before[np.unique(own[0])]).sum()), int(np.isnan(score.after[np.unique(own[1])]).sum()))
        parts.append(Part(kind, name, quantity, counts=(len(np.unique(own[0])), len(np.unique(own[1]))), unscored=unscored))
    return parts
