"""The pairs as rows: the table that is kept, and the changed tasks that reports show."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.flips import NEWLY_FAILING, NEWLY_PASSING, WORDS, Codes, Divergence
from beam_ray.compare.pairs import Pairs, numbers

MAX_CHANGES = 200
MAX_OUTPUT = 2_000

PAIRS = pa.schema(
    [
        pa.field("task_id", pa.string(), False, {"meaning": "the task"}),
        pa.field("trial", pa.int32(), False, {"meaning": "1 is the first"}),
        pa.field("flip", pa.string(), False, {"meaning": "newly passing, newly failing, both passing, both failing or not judged; of the task, by majority"}),
        *(
            pa.field(f"{side}_{name}", kind, True, {"meaning": f"{meaning}, on the {whose}"})
            for name, kind, meaning in (
                ("outcome", pa.string(), "done or failed"),
                ("passed", pa.bool_(), "whether the task passed"),
                ("score", pa.float64(), "0 to 100; null when unscored"),
                ("routes", pa.list_(pa.string()), "labels of the routes taken"),
                ("seconds", pa.float64(), "spent in models and tools"),
                ("tokens", pa.int64(), "read and written by models"),
                ("usd", pa.float64(), "money; null when a model has no price"),
                ("error", pa.string(), "the first failed step's error"),
                ("output", pa.string(), "JSON: the outputs of the last nodes"),
            )
            for side, whose in (("before", "baseline"), ("after", "candidate"))
        ),
        pa.field("diverges_at", pa.string(), True, {"meaning": "the first node whose output differs; null when none does"}),
        pa.field("before_there", pa.string(), True, {"meaning": "JSON: the baseline's output at that node"}),
        pa.field("after_there", pa.string(), True, {"meaning": "JSON: the candidate's output at that node"}),
        pa.field("changed_criteria", pa.list_(pa.string()), True, {"meaning": "NODE/CRITERION of each criterion that is met on one side only"}),
    ],
    metadata={"beam_ray": "comparison/1"},
)


@dataclass(frozen=True)
class Change:
    """A task that flipped. Long outputs are shortened here; the table has them in full."""

    task_id: str
    trial: int
    flip: str
    before_score: float | None
    after_score: float | None
    before_routes: tuple[str, ...]
    after_routes: tuple[str, ...]
    diverges_at: str | None
    before_there: str | None
    after_there: str | None
    before_error: str | None
    after_error: str | None
    first_call: str | None = None
    """The first call at which the agent or program at that node did something else."""


def rows(pairs: Pairs, words: Codes, divergence: Divergence, criteria: pa.Array) -> pa.Table:
    """One row for each pair, in the schema of comparison.parquet; *words* has each task's place in WORDS."""
    columns: dict[str, pa.Array] = {
        "task_id": pairs.before["task_id"],
        "trial": pairs.before["trial"],
        "flip": pa.array(WORDS, pa.string()).take(pa.array(words[pairs.task])),
        "diverges_at": divergence.node,
        "before_there": divergence.before,
        "after_there": divergence.after,
        "changed_criteria": criteria,
    }
    for side, table in (("before", pairs.before), ("after", pairs.after)):
        for name in ("outcome", "passed", "score", "routes", "error", "output"):
            columns[f"{side}_{name}"] = table[name]
        for name in ("seconds", "tokens", "usd"):
            # what the task takes, and not what this run paid: a side that borrows is not cheaper to run
            columns[f"{side}_{name}"] = table[f"work_{name}"]
    return pa.table({name: columns[name] for name in PAIRS.names}, schema=PAIRS)


def changes(table: pa.Table) -> tuple[tuple[Change, ...], int]:
    """The changed tasks, newly failing first, at most a page of them; and how many are left out."""
    kept = []
    for word in (NEWLY_FAILING, NEWLY_PASSING):
        places = np.flatnonzero(numbers(pc.and_(pc.equal(table["flip"], word), _differs(table))))
        ids = table["task_id"].take(pa.array(places)).combine_chunks()
        # of a task with several trials the first one shown is the first whose result differs
        kept.append(places[np.diff(numbers(ids.dictionary_encode().indices), prepend=-1) != 0])
    shown = np.concatenate(kept)
    columns = table.select([name for name in Change.__dataclass_fields__ if name in table.schema.names])
    made = []
    for row in columns.take(pa.array(shown[:MAX_CHANGES])).to_pylist():
        for name in ("before_there", "after_there", "before_error", "after_error"):
            row[name] = _cut(row[name])
        made.append(Change(**{**row, "before_routes": tuple(row["before_routes"] or ()), "after_routes": tuple(row["after_routes"] or ())}))
    return tuple(made), max(0, len(shown) - MAX_CHANGES)


def _differs(table: pa.Table) -> pa.ChunkedArray:
    return pc.not_equal(pc.fill_null(table["before_passed"], False), pc.fill_null(table["after_passed"], False))


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MAX_OUTPUT else f"{text[:MAX_OUTPUT]}… ({len(text) - MAX_OUTPUT:,} more characters)"
