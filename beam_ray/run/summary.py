"""Runs in numbers: the summary of a finished run, and the counts of an unfinished one."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.run.progress import Counts
from beam_ray.store.manifest import RunSummary
from beam_ray.store.runs import Run
from beam_ray.store.tables import OUTCOME, FileEntry

COLUMNS = [
    "outcome",
    "passed",
    "score",
    "first_score",
    "calls",
    "input_tokens",
    "output_tokens",
    "usd",
    "cached_tokens",
    "reasoning_tokens",
    "estimated_calls",
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
"""Columns of the outcome table that the summary is computed from."""


def summarise(run: Run, files: list[FileEntry]) -> RunSummary:
    """The summary of a run, from its merged outcome table."""
    named = [entry for entry in files if entry["name"].startswith("outcome")]
    return summary_of(pa.concat_tables([run.read(entry["name"], OUTCOME, COLUMNS, entry) for entry in named]))


def summary_of(table: pa.Table) -> RunSummary:
    """The summary of an outcome *table*."""

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
        # null where no call reported them, as in runs of older versions
        "cached_tokens": pc.sum(table["cached_tokens"]).as_py(),
        "reasoning_tokens": pc.sum(table["reasoning_tokens"]).as_py(),
        "estimated_calls": pc.sum(table["estimated_calls"]).as_py() or 0,
        "model_seconds": round(total("seconds"), 3),
        "auto_reruns": total("auto_reruns"),
        "auto_rerun_tokens": total("auto_rerun_tokens"),
        "auto_rerun_usd": None if table["auto_rerun_usd"].null_count else round(total("auto_rerun_usd"), 6),
        "review": pc.sum(pc.cast(table["review"], "int64")).as_py() or 0,
        "steps_done": total("steps_done"),
        "steps_borrowed": total("steps_borrowed"),
        "steps_failed": total("steps_failed"),
        "steps_skipped": total("steps_skipped"),
        "steps_unscored": total("steps_unscored"),
        "started_at": started.isoformat(timespec="milliseconds") if started else None,
        "ended_at": ended.isoformat(timespec="milliseconds") if ended else None,
        "seconds": round((ended - started).total_seconds(), 3) if started and ended else 0.0,
    }


def committed_counts(run: Run) -> Counts:
    """Counts of the committed parts of an unfinished run; they count against the budget of whoever resumes it."""
    table = run.steps(
        columns=["outcome", "calls", "judge_calls", "input_tokens", "output_tokens", "judge_input_tokens", "judge_output_tokens", "usd", "judge_usd"]
    )

    def summed(*columns: str) -> float:
        return sum(pc.sum(table[column]).as_py() or 0 for column in columns)

    unpriced = table["usd"].null_count or table["judge_usd"].null_count
    return Counts(
        steps=table.num_rows,
        failed=table.filter(pc.equal(table["outcome"], "failed")).num_rows,
        calls=int(summed("calls", "judge_calls")),
        tokens=int(summed("input_tokens", "output_tokens", "judge_input_tokens", "judge_output_tokens")),
        usd=None if unpriced else summed("usd", "judge_usd"),
    )
