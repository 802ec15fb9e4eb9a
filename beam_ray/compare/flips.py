"""Which tasks flipped, and at which node the two runs first differ."""

from collections.abc import Sequence
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
Codes = np.ndarray[Any, np.dtype[np.int8]]


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


def flip_words(before: Numbers, after: Numbers) -> Codes:
    """For each task, from whether it passes before and after, the place of its word in WORDS."""
    judged = ~(np.isnan(before) | np.isnan(after))
    places = {(1, 1): BOTH_PASSING, (0, 1): NEWLY_PASSING, (1, 0): NEWLY_FAILING, (0, 0): BOTH_FAILING}
    found = np.full(len(before), WORDS.index(NOT_JUDGED), np.int8)
    for (was, now), word in places.items():
        found[judged & (before == was) & (after == now)] = WORDS.index(word)
    return found


def route_flips(pairs: Pairs, baseline: Side, candidate: Side) -> tuple[RouteFlip, ...]:
    """The matrix of routes taken before and after, the commonest first; empty where those of one side are not recorded."""
    if baseline.recorded or candidate.recorded:
        return ()
    columns = {}
    for name, side in (("before", pairs.before), ("after", pairs.after)):
        # with the number of labels, as none and one that is empty are the same text
        columns[name] = pc.fill_null(pc.binary_join(side["routes"], "\x1f"), "")
        columns[f"{name} labels"] = pc.fill_null(pc.list_value_length(side["routes"]), 0)
    every = pa.table({**columns, "place": pa.array(np.arange(len(pairs)))})
    found = every.group_by([*columns], use_threads=False).aggregate([("place", "min"), ("place", "count")])
    firsts = found["place_min"].combine_chunks()
    ways = zip(*([tuple(routes or ()) for routes in side["routes"].take(firsts).to_pylist()] for side in (pairs.before, pairs.after)), strict=True)
    made = [RouteFlip(was, now, count) for (was, now), count in zip(ways, found["place_count"].to_pylist(), strict=True)]
    return tuple(sorted(made, key=lambda flip: (-flip.pairs, flip.before, flip.after)))


def diverge(pairs: Pairs, baseline: Side, candidate: Side, order: Sequence[str]) -> Divergence:
    """
    Where each pair first differs, looking at the nodes in *order*.

    A node differs when its outputs are not the same text, or when only one side ran it.
    Nodes that are not in *order* are looked at last, by name.
    """
    named = {*baseline.by_node, *candidate.by_node}
    count = len(pairs)
    at = np.full(count, -1)
    for side in (baseline, candidate):
        if side.recorded:
            named &= {node for node, steps in side.by_node.items() if steps["output"].null_count < steps.num_rows}
    nodes = [*(node for node in order if node in named), *sorted(named - set(order))]
    before, after = pa.nulls(count, pa.string()), pa.nulls(count, pa.string())
    for index, node in enumerate(nodes):
        left, right = (_outputs(pairs, side, node) for side in (baseline, candidate))
        same_text = pc.fill_null(pc.equal(left, right), pc.and_(pc.is_null(left), pc.is_null(right)))
        first = pa.array((at < 0) & ~numbers(same_text).astype(bool))
        at[numbers(first).astype(bool)] = index
        before, after = pc.if_else(first, left, before), pc.if_else(first, right, after)
    return Divergence(pa.array(nodes, pa.string()).take(pa.array(at, mask=at < 0)), before, after)


def _outputs(pairs: Pairs, side: Side, node: str) -> pa.Array:
    mine = side.by_node.get(node, side.steps.slice(0, 0))
    rows = numbers(mine["pair"])
    places = np.full(len(pairs), -1)
    places[rows[rows >= 0]] = np.flatnonzero(rows >= 0)
    return pc.take(mine["output"].combine_chunks(), pa.array(places, mask=places < 0))
