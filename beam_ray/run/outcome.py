"""The row of the outcome table that a task's steps add up to."""

import json
from collections.abc import Iterable, Sequence

from beam_ray.define.workflow import Workflow
from beam_ray.run.context import RAN, TaskTrial
from beam_ray.run.step_row import output_of
from beam_ray.store.tables import OutcomeRow, StepRow


def output_nodes(workflow: Workflow) -> set[str]:
    """The nodes whose outputs are the task's: the last ones, without tools that write, whose effect is not a result."""
    writes = {name for name, node in workflow.nodes.items() if node.effects == "write"}
    last = {name for name in workflow.order if name not in writes and workflow.downstream(name) <= writes}
    return last or {name for name in workflow.order if not workflow.downstream(name)}


def outcome_row(run_id: str, task: TaskTrial, steps: Sequence[StepRow], ends: set[str]) -> OutcomeRow:
    """
    The outcome of a task and trial.

    Args:
        steps: The rows of its steps, in the workflow's order.
        ends: The nodes whose outputs are the task's, see `output_nodes`.
    """
    ran = [row for row in steps if row["outcome"] in RAN]
    firsts = [row["first_score"] for row in ran if row["first_score"] is not None]
    failed = [row for row in steps if row["outcome"] == "failed"]
    again = [attempt for row in steps for attempt in [tried for tried in row["attempts"] if not tried["error"]][1:]]
    scores = [row["score"] for row in ran if row["score"] is not None]
    outcomes = [row["outcome"] for row in steps]
    known = all(row["work_calls"] is not None for row in steps)
    return {
        "run_id": run_id,
        "task_id": task.task_id,
        "trial": task.trial,
        "outcome": "failed" if failed else "done",
        "passed": not failed and all(row["passed"] for row in ran if row["score"] is not None),
        "score": sum(scores) / len(scores) if scores else None,
        "first_score": sum(firsts) / len(firsts) if firsts else None,
        "inputs": task.inputs,
        "labels": list(task.labels),
        "routes": [row["route"] for row in ran if row["route"]],
        "path": [row["node"] for row in ran],
        "output": json.dumps({row["node"]: output_of(row) for row in ran if row["node"] in ends}, ensure_ascii=False),
        "steps_done": outcomes.count("done"),
        "steps_borrowed": outcomes.count("borrowed"),
        "steps_failed": outcomes.count("failed"),
        "steps_skipped": outcomes.count("skipped"),
        "steps_unscored": sum(row["score"] is None and row["threshold"] is not None for row in ran),
        "auto_reruns": len(again) if known else None,
        "auto_rerun_tokens": sum(attempt["input_tokens"] + attempt["output_tokens"] for attempt in again) if known else None,
        "auto_rerun_usd": sum_of_prices(attempt["usd"] for attempt in again) if known else None,
        "review": any(row["review"] for row in steps),
        "seconds": sum(row["seconds"] for row in steps),
        "calls": sum(row["calls"] + row["judge_calls"] for row in steps),
        "input_tokens": sum(row["input_tokens"] + row["judge_input_tokens"] for row in steps),
        "output_tokens": sum(row["output_tokens"] + row["judge_output_tokens"] for row in steps),
        "usd": sum_of_prices(money for row in steps for money in (row["usd"], row["judge_usd"])),
        "cached_tokens": _known_sum(row["cached_tokens"] for row in steps),
        "reasoning_tokens": _known_sum(row["reasoning_tokens"] for row in steps),
        "estimated_calls": sum(row["estimated_calls"] or 0 for row in steps),
        "work_seconds": sum_of_prices(row["work_seconds"] for row in steps),
        "work_calls": _sum_if_known(row["work_calls"] for row in steps),
        "work_tokens": _sum_if_known(row["work_tokens"] for row in steps),
        "work_usd": sum_of_prices(row["work_usd"] for row in steps),
        "started_at": min(row["started_at"] for row in steps),
        "ended_at": max(row["ended_at"] for row in steps),
        "error": failed[0]["error"] if failed else None,
        "turns": _known_sum(row["turns"] for row in steps),
        "tool_calls": _known_sum(row["tool_calls"] for row in steps),
        "tool_errors": _known_sum(row["tool_errors"] for row in steps),
        "calls_recorded": _known_sum(row["calls_recorded"] for row in steps),
        "calls_refused": _known_sum(row["calls_refused"] for row in steps),
        "diverged": _diverged(steps),
    }


def sum_of_prices(prices: Iterable[float | None]) -> float | None:
    """The sum, of prices or of seconds; None when one is unknown."""
    total = 0.0
    for price in prices:
        if price is None:
            return None
        total += price
    return total


def _sum_if_known(counts: Iterable[int | None]) -> int | None:
    """The sum; None when a count is unknown."""
    found = list(counts)
    return None if None in found else sum(count for count in found if count is not None)


def _diverged(steps: Sequence[StepRow]) -> bool | None:
    """Whether some step left its recording; None when nothing was recorded."""
    if any(row["diverged_at"] is not None for row in steps):
        return True
    return False if any(row["calls_recorded"] for row in steps) else None


def _known_sum(counts: Iterable[int | None]) -> int | None:
    """The sum of the counts that are known; None when none is."""
    known = [count for count in counts if count is not None]
    return sum(known) if known else None
