"""From two runs to pairs: the same task, the same trial, the same inputs, on both sides."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

INFRASTRUCTURE = ("ModelUnavailable", "ToolFailed")
UNAVAILABLE = "ModelUnavailable"


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


@dataclass(frozen=True)
class Pairs:
    """Rows of the two outcome tables that belong together: row i of *before* with row i of *after*."""

    before: pa.Table
    after: pa.Table
    task: np.ndarray[Any, Any]
    """Each pair's task, as an index into *task_ids*."""
    task_ids: tuple[str, ...]
    baseline_only: tuple[str, ...]
    candidate_only: tuple[str, ...]
    inputs_differ: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.task)

    def placed(self, side: Side) -> Side:
        """*side* with one more column of its steps, ``pair``: the pair that a step belongs to, or -1."""
        found = pc.index_in(_keys(side.steps), value_set=_keys(self.before).combine_chunks())
        return replace(side, steps=side.steps.append_column("pair", pc.fill_null(found, -1)))


def pair(baseline: Side, candidate: Side) -> Pairs:
    """
    The pairs of the two sides, ordered by task and trial.

    Every task of either side is in a pair or is named as unpaired.
    """
    before, after = (side.outcome.sort_by([("task_id", "ascending"), ("trial", "ascending")]) for side in (baseline, candidate))
    places = pc.index_in(_keys(before), value_set=_keys(after).combine_chunks())
    common = pc.is_valid(places)
    baseline_only = before.filter(pc.invert(common))["task_id"]
    candidate_only = after.filter(pc.invert(pc.is_in(_keys(after), value_set=_keys(before).combine_chunks())))["task_id"]
    before, after = before.filter(common), after.take(places.drop_null())
    same = pc.fill_null(pc.equal(before["inputs"], after["inputs"]), False)
    differ = before.filter(pc.invert(same))["task_id"]
    before, after = before.filter(same), after.filter(same)
    coded = before["task_id"].combine_chunks().dictionary_encode()
    return Pairs(
        before,
        after,
        numbers(coded.indices).astype(np.int64),
        tuple(coded.dictionary.to_pylist()),
        _names(baseline_only),
        _names(candidate_only),
        _names(differ),
    )


def failed_with(pairs: Pairs, steps: pa.Table, kinds: tuple[str, ...], *, others: bool = False) -> np.ndarray[Any, Any]:
    """For each pair whether one of its *steps*, as placed, failed with one of the error types *kinds*, or with *others* one of any other type."""
    failed = pc.equal(steps["outcome"], "failed")
    named = pc.is_in(pc.fill_null(steps["error_type"], ""), value_set=pa.array(kinds))
    rows = numbers(steps["pair"].filter(pc.and_(failed, pc.invert(named) if others else named)))
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
