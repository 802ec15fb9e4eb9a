"""Which tasks flipped, and at which node the two runs first differ."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.pairs import Pairs, Side, numbers
from beam_ray.compare.statistics import Numbers

NEWLY_PASSING, NEWLY_FAILING = "newly passing", "newly failing"
BOTH_PASSING, BOTH_FAILING = "both passing", "both failing"
NOT_JUDGED = "not judged"
WORDS = (BOTH_PASSING, NEWLY_PASSING, NEWLY_FAILING, BOTH_FAILING, NOT_JUDGED)


@dataclass(frozen=True)
class RouteFlip:
    """How many pairs went one way on the baseline and another, or the same, on the candidate."""

    before: tuple[str, ...]
    after: tuple[str, ...]
    pairs: int


@dataclass(frozen=True)
class Divergence:
    """For each pair the first node at which the two sides differ, and both outputs there; null where they never do."""

    node: pa.Array
    before: pa.Array
    after: pa.Array


def majority(passed: Numbers, task: np.ndarray[Any, Any], judged: np.ndarray[Any, Any]) -> Numbers:
    """
    For each task 1 when it passes in most of its judged trials, else 0; NaN without any.

    A tie is a failure: a task that passes every second time does not work.
    """
    count = int(task.max()) + 1 if len(task) else 0
    trials = np.bincount(task[judged], minlength=count)
    passes = np.bincount(task[judged], weights=passed[judged], minlength=count)
    return np.where(trials > 0, (2 * passes > trials).astype(np.float64), np.nan)


def flip_words(before: Numbers, after: Numbers) -> list[str]:
    """One word for each task, from whether it passes before and after."""
    words = {(1.0, 1.0): BOTH_PASSING, (0.0, 1.0): NEWLY_PASSING, (1.0, 0.0): NEWLY_FAILING, (0.0, 0.0): BOTH_FAILING}
    return [words.get(sides, NOT_JUDGED) for sides in zip(before.tolist(), after.tolist(), strict=True)]


def route_flips(pairs: Pairs, baseline: Side, candidate: Side) -> tuple[RouteFlip, ...]:
    """The matrix of routes taken before and after, the commonest first; empty where those of one side are not recorded."""
    if baseline.recorded or candidate.recorded:
        return ()
    both = zip(_routes(pairs.before), _routes(pairs.after), strict=True)
    counted = Counter(both)
    return tuple(RouteFlip(*ways, count) for ways, count in sorted(counted.items(), key=lambda entry: (-entry[1], entry[0])))


def diverge(pairs: Pairs, baseline: Side, candidate: Side, order: Sequence[str]) -> Divergence:
    """
    Where each pair first differs, looking at the nodes in *order*.

    A node differs when its outputs are not the same text, or when only one side ran it.
    Nodes that are not in *order* are looked at last, by name.
    """
    named = set(pc.unique(baseline.steps["node"]).to_pylist()) | set(pc.unique(candidate.steps["node"]).to_pylist())
    count = len(pairs)
    at = np.full(count, -1)
    for side in (baseline, candidate):
        if side.recorded:
            named &= set(pc.unique(side.steps["node"].filter(pc.is_valid(side.steps["output"]))).to_pylist())
    nodes = [*(node for node in order if node in named), *sorted(named - set(order))]
    before, after = pa.nulls(count, pa.string()), pa.nulls(count, pa.string())
    for index, node in enumerate(nodes):
        left, right = (_outputs(pairs, side.steps, node) for side in (baseline, candidate))
        same_text = pc.fill_null(pc.equal(left, right), pc.and_(pc.is_null(left), pc.is_null(right)))
        first = pa.array((at < 0) & ~numbers(same_text).astype(bool))
        at[numbers(first).astype(bool)] = index
        before, after = pc.if_else(first, left, before), pc.if_else(first, right, after)
    return Divergence(pa.array([nodes[index] if index >= 0 else None for index in at.tolist()], pa.string()), before, after)


def changed_criteria(pairs: Pairs, baseline: Side, candidate: Side) -> pa.Array:
    """For each pair the criteria, as NODE/CRITERION, that are met on one side and not on the other; in order of their names."""
    sides = [_decided(side.steps) for side in (baseline, candidate)]
    names = pa.chunked_array([side[1] for side in sides], pa.string()).dictionary_encode().combine_chunks()
    codes = numbers(names.indices).astype(np.int64)
    words = np.asarray(names.dictionary.to_pylist(), dtype=object)
    order = np.argsort(words) if len(words) else np.zeros(0, np.int64)
    rank = np.empty(len(words), np.int64)
    rank[order] = np.arange(len(words))
    first = len(sides[0][0])
    keys = [pair * max(len(words), 1) + rank[own] for (pair, _, _), own in zip(sides, (codes[:first], codes[first:]), strict=True)]
    common, left, right = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    changed = common[sides[0][2][left] != sides[1][2][right]]
    of_pair = changed // max(len(words), 1)
    offsets = np.searchsorted(of_pair, np.arange(len(pairs) + 1))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(words[order][changed % max(len(words), 1)].tolist(), pa.string()))


def _decided(steps: pa.Table) -> tuple[np.ndarray[Any, Any], pa.Array, np.ndarray[Any, Any]]:
    """Every criterion that was decided: its pair, its name, and whether it is met."""
    mine = steps.select(["pair", "node", "criteria"]).filter(pc.greater_equal(steps["pair"], 0)).combine_chunks()
    lists = mine["criteria"].combine_chunks()
    items, rows = pc.list_flatten(lists), pc.list_parent_indices(lists)
    met = pc.struct_field(items, "met")
    decided = pc.is_valid(met)
    names = pc.binary_join_element_wise(pc.take(mine["node"].combine_chunks(), rows), pc.struct_field(items, "id"), "/")
    pair = numbers(pc.take(mine["pair"].combine_chunks(), rows).filter(decided)).astype(np.int64)
    return pair, names.filter(decided), numbers(met.filter(decided))


def _outputs(pairs: Pairs, steps: pa.Table, node: str) -> pa.Array:
    mine = steps.select(["pair", "output"]).filter(pc.equal(steps["node"], node))
    rows = numbers(mine["pair"])
    places = np.full(len(pairs), -1)
    places[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    column = mine["output"].combine_chunks()
    return pc.take(column, pa.array(places, mask=places < 0))


def _routes(side: pa.Table) -> Iterator[tuple[str, ...]]:
    for batch in side.select(["routes"]).to_batches():
        yield from (tuple(routes or ()) for routes in batch.column(0).to_pylist())
