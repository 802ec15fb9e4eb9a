"""From two runs to pairs: the same task, the same trial, the same inputs, on both sides."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

INFRASTRUCTURE = ("ModelUnavailable", "ToolFailed")
UNAVAILABLE = "ModelUnavailable"
Rows = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Side:
    """One side of a comparison: a run's outcome and steps tables under a name for people."""

    name: str
    run_id: str
    outcome: pa.Table
    steps: pa.Table
    recorded: bool = False
    """Whether it is what production answered: then costs, times, attempts, routes and inner steps are unknown."""
    calls: pa.Table | None = None
    """The calls of its agents and programs, made in this run; None where it has none."""

    @cached_property
    def by_node(self) -> Mapping[str, pa.Table]:
        """The steps of each node, in order of the nodes' first step; without copies where a node's steps stand together."""
        coded = self.steps["node"].dictionary_encode().combine_chunks()
        codes = numbers(coded.indices)
        starts = np.flatnonzero(np.diff(codes, prepend=-1))
        stops = np.append(starts[1:], len(codes))[: len(starts)]
        together = len(starts) == len(coded.dictionary)
        names = coded.dictionary.to_pylist()
        if together:
            return {names[codes[start]]: self.steps.slice(start, stop - start) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)}
        return {name: self.steps.filter(pa.array(codes == code)) for code, name in enumerate(names)}

    @cached_property
    def failed(self) -> pa.Table:
        """The steps that failed, with ``error_type`` and ``error`` and, once they are placed, their ``pair``."""
        wanted = [name for name in ("pair", "error_type", "error") if name in self.steps.schema.names]
        return self.steps.select(wanted).filter(pc.equal(self.steps["outcome"], "failed"))


@dataclass(frozen=True)
class Pairs:
    """Rows of the two outcome tables that belong together: row i of *before* with row i of *after*."""

    before: pa.Table
    after: pa.Table
    task: Rows
    """Each pair's task, as an index into *task_ids*; in order."""
    ids: pa.Array
    """The id of each task."""
    baseline_only: tuple[str, ...]
    candidate_only: tuple[str, ...]
    inputs_differ: tuple[str, ...]
    rows: tuple[Rows, Rows]
    """The row of each pair in the outcome tables as they were given."""

    def __len__(self) -> int:
        return len(self.task)

    @cached_property
    def task_ids(self) -> tuple[str, ...]:
        """The ids as text."""
        return tuple(self.ids.to_pylist())

    @cached_property
    def first(self) -> np.ndarray[Any, Any]:
        """Whether each pair is the first one of its task."""
        return np.diff(self.task, prepend=-1) > 0

    def placed(self, baseline: Side, candidate: Side) -> tuple[Side, Side]:
        """The sides with one more column of their steps, ``pair``: the pair that a step belongs to, or -1. Their outcomes, which the pairs have, are left out."""
        return self._placed(baseline, self.rows[0]), self._placed(candidate, self.rows[1])

    def _placed(self, side: Side, rows: Rows) -> Side:
        places = np.full(side.outcome.num_rows, -1, np.int32)
        places[rows] = np.arange(len(rows), dtype=np.int32)
        steps, count, nothing = side.steps, len(places), side.outcome.schema.empty_table()
        # a run has each node's steps in the order of its tasks
        starts = range(0, steps.num_rows, max(count, 1))
        if count and not steps.num_rows % count and all(_same_keys(steps.slice(start, count), side.outcome) for start in starts):
            found = pa.array(np.tile(places, len(starts)))
            return replace(side, outcome=nothing, steps=steps.append_column("pair", found))
        found = pc.fill_null(pc.index_in(_keys(steps), value_set=_keys(self.before).combine_chunks()), -1)
        return replace(side, outcome=nothing, steps=steps.append_column("pair", found))


def pair(baseline: Side, candidate: Side) -> Pairs:
    """
    The pairs of the two sides, ordered by task and trial.

    Every task of either side is in a pair or is named as unpaired.
    """
    before, after = baseline.outcome, candidate.outcome
    candidate_only: tuple[str, ...] = ()
    if _same_keys(before, after):
        places, common = np.arange(before.num_rows), np.ones(before.num_rows, dtype=bool)
        inputs = after["inputs"]
    else:
        keys = _keys(before), _keys(after)
        found = pc.index_in(keys[0], value_set=keys[1].combine_chunks())
        places, common = numbers(pc.fill_null(found, -1)).astype(np.int64), numbers(pc.is_valid(found)).astype(bool)
        inputs = after["inputs"].take(found)
        candidate_only = _names(after.filter(pc.invert(pc.is_in(keys[1], value_set=keys[0].combine_chunks())))["task_id"])
    same = numbers(pc.fill_null(pc.equal(before["inputs"], inputs), False)).astype(bool) & common
    ordered = _order(before)
    rows = ordered[same[ordered]]
    others = places[rows]
    baseline_only, differ = (_names(before["task_id"].filter(pa.array(mask))) for mask in (~common, common & ~same))
    before, after = (_taken(table.drop_columns(["inputs"]), taken) for table, taken in ((before, rows), (after, others)))
    coded = before["task_id"].combine_chunks().dictionary_encode()
    return Pairs(before, after, numbers(coded.indices).astype(np.int64), coded.dictionary, baseline_only, candidate_only, differ, (rows, others))


def _order(outcome: pa.Table) -> Rows:
    """The rows by task and trial."""
    trials = pc.min_max(outcome["trial"]).as_py()
    keys = [("task_id", "ascending")] if trials["min"] == trials["max"] else [("task_id", "ascending"), ("trial", "ascending")]
    return numbers(pc.sort_indices(outcome.select(["task_id", "trial"]).combine_chunks(), sort_keys=keys)).astype(np.int64)


def _taken(table: pa.Table, rows: Rows) -> pa.Table:
    return table if np.array_equal(rows, np.arange(table.num_rows)) else table.take(pa.array(rows))


def _same_keys(one: pa.Table, other: pa.Table) -> bool:
    return all(one[name].equals(other[name]) for name in ("task_id", "trial"))


def failed_with(pairs: Pairs, failed: pa.Table, kinds: tuple[str, ...], *, others: bool = False) -> np.ndarray[Any, Any]:
    """For each pair whether one of its *failed* steps, as placed, has one of the error types *kinds*, or with *others* one of any other type."""
    named = pc.is_in(pc.fill_null(failed["error_type"], ""), value_set=pa.array(kinds))
    rows = numbers(failed["pair"].filter(pc.invert(named) if others else named))
    flags = np.zeros(len(pairs), dtype=bool)
    flags[rows[rows >= 0]] = True
    return flags


def numbers(column: pa.ChunkedArray | pa.Array) -> np.ndarray[Any, Any]:
    """The column as numpy numbers; NaN where it is null."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    return np.asarray(column.to_numpy(zero_copy_only=False))


def _keys(table: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(table["trial"].cast(pa.string()), table["task_id"], " ")


def _names(column: pa.ChunkedArray) -> tuple[str, ...]:
    return tuple(sorted(pc.unique(column).to_pylist()))
