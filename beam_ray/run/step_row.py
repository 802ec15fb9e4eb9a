"""Rows of the steps table, as steps write them."""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from beam_ray.define.fingerprint import strict_json
from beam_ray.errors import StepFailed
from beam_ray.llm.usage import Usage, plus
from beam_ray.run.context import RAN, Row, TaskTrial
from beam_ray.store.tables import text

WORK_COLUMNS = ("work_seconds", "work_calls", "work_tokens", "work_usd")
"""What an output takes, whoever paid for it; borrowed with the output."""


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

    def row(self, outcome: str) -> Row:
        """The columns of the frame, with the *outcome*."""
        return {
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
        }

    def without_output(self, outcome: str, *, reason: str | None = None, error: StepFailed | None = None) -> Row:
        """The row of a step that was skipped or has failed; costs and attempts are still to be added."""
        return {
            **self.row(outcome),
            "reason": reason,
            "criteria": [],
            "attempts": [],
            "error_type": type(error).__name__ if error else None,
            "error": text(str(error)) if error else None,
        }


def cost_columns(usage: Usage, judging: Usage) -> Row:
    """What the calls for the output, and those of its judge, cost."""
    return {
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
        **work_columns(usage, judging),
    }


def work_columns(usage: Usage, judging: Usage) -> Row:
    """What the output and its score take, whoever paid for them."""
    return {
        "work_seconds": usage.seconds,
        "work_calls": usage.calls + judging.calls,
        "work_tokens": usage.input_tokens + usage.output_tokens + judging.input_tokens + judging.output_tokens,
        "work_usd": None if usage.usd is None or judging.usd is None else usage.usd + judging.usd,
    }


def without_costs(origin: Mapping[str, Any]) -> Row:
    """The cost columns of a row that is borrowed: this run pays nothing, and the work is the origin's."""
    return {**cost_columns(Usage(), Usage()), **{name: origin[name] for name in WORK_COLUMNS}}


def usage_of_row(row: Row) -> tuple[Usage, Usage]:
    """What the calls behind a row cost: for its output, and for its judge."""
    usage = Usage(row["calls"], row["input_tokens"], row["output_tokens"], row["usd"], row["seconds"], row["waited"])
    # stored together for output and judge; null in rows of older versions
    usage.cached_tokens, usage.reasoning_tokens = row.get("cached_tokens"), row.get("reasoning_tokens")
    usage.estimated_calls = row.get("estimated_calls") or 0
    return usage, Usage(row["judge_calls"], row["judge_input_tokens"], row["judge_output_tokens"], row["judge_usd"])


def output_value(output: str | None) -> Any:
    """The value of an ``output`` column, which is JSON."""
    return None if output is None else strict_json(output)


def output_of(row: Row) -> Any:
    """What templates see of a step: its output, or None when it did not run."""
    return output_value(row["output"]) if row["outcome"] in RAN else None
