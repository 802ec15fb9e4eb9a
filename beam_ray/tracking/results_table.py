"""
A side's results as a table, so that MLflow can show the outputs of several sides next to each other.
"""

from collections.abc import Mapping
from typing import Any, TypedDict

from beam_ray.store.tables import OutcomeRow
from beam_ray.tracking.backtest_log import MOST_ROWS, BacktestLog, SideLog
from beam_ray.tracking.traces import cut, loads, readable

_LONGEST = 2_000
COLUMNS = ("task", "output", "passed", "score", "first score", "auto-reruns", "routes", "seconds", "error", "query")


class ResultsTable(TypedDict):
    """A table in MLflow's JSON format."""

    columns: list[str]
    data: list[list[Any]]


def results(log: BacktestLog, side: SideLog) -> ResultsTable:
    """The first tasks of *side* in MLflow's table format."""
    queries = {} if log.tasks is None else dict(zip(log.tasks["task_id"].to_pylist(), log.tasks["task_query"].to_pylist(), strict=True))
    return {"columns": list(COLUMNS), "data": [_row(row, queries) for row in side.outcome.slice(0, MOST_ROWS).to_pylist()]}


def _row(row: OutcomeRow, queries: Mapping[str, str]) -> list[Any]:
    return [
        row["task_id"] if row["trial"] == 1 else f"{row['task_id']}#{row['trial']}",
        cut(readable(loads(row["output"])), _LONGEST),
        "yes" if row["passed"] else "no",
        None if row["score"] is None else round(row["score"], 2),
        None if row["first_score"] is None else round(row["first_score"], 2),
        row["auto_reruns"],
        ", ".join(row["routes"] or ()),
        None if row["seconds"] is None else round(row["seconds"], 3),
        cut(row["error"] or "", _LONGEST),
        cut(queries.get(row["task_id"], ""), _LONGEST),
    ]
