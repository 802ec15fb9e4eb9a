"""A finished run in numbers."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME

COLUMNS = [
    "outcome",
    "passed",
    "score",
    "first_score",
    "calls",
    "input_tokens",
    "output_tokens",
    "usd",
    "seconds",
    "auto_reruns",
    "auto_rerun_tokens",
    "auto_rerun_usd",
    "review",
    "steps_done",
    "steps_borrowed",
    "steps_failed",
    "steps_skipped",
    "steps_unscored",
    "started_at",
    "ended_at",
]
"""Of the outcome: what the summary is made of."""


def summarise(run: Run, files: list[dict[str, Any]]) -> dict[str, Any]:
    """The run in numbers, from its merged outcome."""
    named = [entry for entry in files if entry["name"].startswith("outcome")]
    return summary_of(pa.concat_tables([run.read(entry["name"], OUTCOME, COLUMNS, entry) for entry in named]))


def summary_of(table: pa.Table) -> dict[str, Any]:
    """The outcome *table* in numbers."""

    def total(column: str) -> Any:
        return pc.sum(table[column]).as_py() or 0

    def mean(column: str) -> float | None:
        value = pc.mean(table[column]).as_py()
        return None if value is None else round(value, 4)

    started, ended = pc.min(table["started_at"]).as_py(), pc.max(table["ended_at"]).as_py()
    rows = table.num_rows
    passed = pc.sum(pc.cast(table["passed"], "int64")).as_py() or 0
    failed = rows - (pc.sum(pc.cast(pc.equal(table["outcome"], "done"), "int64")).as_py() or 0)
    return {
        "rows": rows,
        "passed": passed,
        "failed": failed,
        "below": rows - passed - failed,
        "score": mean("score"),
        "first_score": mean("first_score"),
        "calls": total("calls"),
        "input_tokens": total("input_tokens"),
        "output_tokens": total("output_tokens"),
        "usd": None if table["usd"].null_count else round(total("usd"), 6),
        "model_seconds": round(total("seconds"), 3),
        "auto_reruns": total("auto_reruns"),
        "auto_rerun_tokens": total("auto_rerun_tokens"),
        "auto_rerun_usd": None if table["auto_rerun_usd"].null_count else round(total("auto_rerun_usd"), 6),
        "review": pc.sum(pc.cast(table["review"], "int64")).as_py() or 0,
        **{name: total(name) for name in ("steps_done", "steps_borrowed", "steps_failed", "steps_skipped", "steps_unscored")},
        "started_at": started.isoformat(timespec="milliseconds") if started else None,
        "ended_at": ended.isoformat(timespec="milliseconds") if ended else None,
        "seconds": round((ended - started).total_seconds(), 3) if started and ended else 0.0,
    }
