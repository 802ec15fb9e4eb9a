"""Rows of the steps table, as steps write them. The columns are declared in ``store.tables``."""

import datetime
from dataclasses import dataclass
from typing import Any

from beam_ray.define.fingerprint import strict_json
from beam_ray.llm.usage import Usage, plus
from beam_ray.run.context import RAN, TaskTrial
from beam_ray.store.tables import StepRow


@dataclass
class StepFrame:
    """What every row of one step has, whatever its outcome."""

    run_id: str
    task: TaskTrial
    node: str
    threshold: float | None
    """None without criteria."""
    started_at: datetime.datetime
    fingerprint: str = ""
    criteria_fingerprint: str = ""
    inputs: str = ""
    """Digest of the messages or arguments; these three are empty until the step is identified."""

    def row(self, outcome: str) -> StepRow:
        """A row with this outcome; everything that is not of the frame is empty."""
        return self.on(_EMPTY, outcome)

    def on(self, origin: StepRow, outcome: str) -> StepRow:
        """The *origin*'s row as one of this step, with this outcome; this run pays nothing for it."""
        return {
            **origin,
            "run_id": self.run_id,
            "task_id": self.task.task_id,
            "node": self.node,
            "trial": self.task.trial,
            "outcome": outcome,
            "shard": self.task.shard,
            "fingerprint": self.fingerprint or None,
            "criteria_fingerprint": self.criteria_fingerprint or None,
            "inputs": self.inputs or None,
            "review": False,
            "threshold": self.threshold,
            "started_at": self.started_at,
            "ended_at": datetime.datetime.now(datetime.UTC),
            "seconds": 0.0,
            "waited": 0.0,
            "calls": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "usd": 0.0,
            "judge_calls": 0,
            "judge_input_tokens": 0,
            "judge_output_tokens": 0,
            "judge_usd": 0.0,
            "cached_tokens": None,
            "reasoning_tokens": None,
            "estimated_calls": 0,
            # of the origin's calls none was answered in this run
            "calls_recorded": None if origin["calls_recorded"] is None else 0,
            "calls_refused": None if origin["calls_refused"] is None else 0,
            "diverged_at": None,
            "divergence": None,
            "call_rows": None,
        }


_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)
_EMPTY: StepRow = {
    "run_id": "",
    "task_id": "",
    "node": "",
    "trial": 1,
    "outcome": "",
    "score": None,
    "passed": None,
    "shard": 0,
    "fingerprint": None,
    "criteria_fingerprint": None,
    "borrowed_from": None,
    "inputs": None,
    "output": None,
    "route": None,
    "reason": None,
    "unscored": None,
    "review": False,
    "threshold": None,
    "criteria": [],
    "attempts": [],
    "first_score": None,
    "started_at": _EPOCH,
    "ended_at": _EPOCH,
    "seconds": 0.0,
    "waited": 0.0,
    "calls": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "usd": 0.0,
    "judge_calls": 0,
    "judge_input_tokens": 0,
    "judge_output_tokens": 0,
    "judge_usd": 0.0,
    "cached_tokens": None,
    "reasoning_tokens": None,
    "estimated_calls": 0,
    "work_seconds": 0.0,
    "work_calls": 0,
    "work_tokens": 0,
    "work_usd": 0.0,
    "error_type": None,
    "error": None,
    "turns": None,
    "tool_calls": None,
    "tool_errors": None,
    "calls_recorded": None,
    "calls_refused": None,
    "diverged_at": None,
    "divergence": None,
}


def with_costs(row: StepRow, usage: Usage, judging: Usage, work: Usage | None = None) -> StepRow:
    """
    The row, with what the calls for its output and those of its judge cost.

    *work* is what the output takes, where another run paid for it.
    """
    work = work or usage
    return {
        **row,
        "seconds": usage.seconds,
        "waited": usage.waited + judging.waited,
        "calls": usage.calls,
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "usd": usage.usd,
        "judge_calls": judging.calls,
        "judge_input_tokens": judging.input_tokens,
        "judge_output_tokens": judging.output_tokens,
        "judge_usd": judging.usd,
        "cached_tokens": plus(usage.cached_tokens, judging.cached_tokens),
        "reasoning_tokens": plus(usage.reasoning_tokens, judging.reasoning_tokens),
        "estimated_calls": usage.estimated_calls + judging.estimated_calls,
        "work_seconds": work.seconds,
        "work_calls": work.calls + judging.calls,
        "work_tokens": work.input_tokens + work.output_tokens + judging.input_tokens + judging.output_tokens,
        "work_usd": None if work.usd is None or judging.usd is None else work.usd + judging.usd,
    }


def without_work(row: StepRow) -> StepRow:
    """The row, saying that nobody knows what its output took."""
    return {**row, "work_seconds": None, "work_calls": None, "work_tokens": None, "work_usd": None}


def usage_of_row(row: StepRow) -> tuple[Usage, Usage]:
    """What the calls behind a row cost: for its output, and for its judge."""
    usage = Usage(row["calls"], row["input_tokens"], row["output_tokens"], row["usd"], row["seconds"], row["waited"])
    # stored together for output and judge; null in rows of older versions
    usage.cached_tokens, usage.reasoning_tokens = row["cached_tokens"], row["reasoning_tokens"]
    usage.estimated_calls = row["estimated_calls"] or 0
    return usage, Usage(row["judge_calls"], row["judge_input_tokens"], row["judge_output_tokens"], row["judge_usd"])


def attempt_of(row: StepRow) -> int:
    """The number of the attempt whose output and score are the step's; of equal ones the first."""
    made = [attempt for attempt in row["attempts"] or () if not attempt["error"]]
    counts = [attempt for attempt in made if attempt["output"] == row["output"] and attempt["score"] == row["score"]] or made
    return counts[0]["number"] if counts else 1


def output_value(output: str | None) -> Any:
    """The value of an ``output`` column, which is JSON."""
    return None if output is None else strict_json(output)


def output_of(row: StepRow) -> Any:
    """What templates see of a step: its output, or None when it did not run."""
    return output_value(row["output"]) if row["outcome"] in RAN else None
