"""Sides made from plain columns, for every test of comparing."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from beam_ray.compare.pairs import Side
from beam_ray.store.parquet import to_table
from beam_ray.store.tables import OUTCOME, STEPS

Row = Mapping[str, Any]


def task(task_id: str, score: float | None, *, trial: int = 1, **more: Any) -> dict[str, Any]:
    """An outcome row; it passes from a score of 90."""
    row = {
        "run_id": "run",
        "task_id": task_id,
        "trial": trial,
        "outcome": "done",
        "passed": score is None or score >= 90,
        "score": score,
        "first_score": score,
        "inputs": f"inputs of {task_id}",
        "labels": [],
        "routes": [],
        "auto_reruns": 0,
        "auto_rerun_tokens": 0,
        "auto_rerun_usd": 0.0,
        "work_seconds": 2.0,
        "work_calls": 1,
        "work_tokens": 120,
        "work_usd": 0.01,
        "output": json.dumps({"extract": {"score": score}}),
    }
    return {**row, **more}


def step(
    task_id: str, score: float | None, *, node: str = "extract", trial: int = 1, met: Mapping[str, bool | None] | None = None, **more: Any
) -> dict[str, Any]:
    """A steps row of one node; *met* gives its criteria."""
    row = {
        "run_id": "run",
        "task_id": task_id,
        "trial": trial,
        "node": node,
        "outcome": "done",
        "score": score,
        "passed": None if score is None else score >= 90,
        "output": json.dumps({"vendor": f"{score}"}),
        "criteria": [
            {"id": name, "text": f"{name} equals expected.{name}", "met": holds, "reason": "", "judge": None, "weight": 1.0}
            for name, holds in (met or {}).items()
        ],
    }
    return {**row, **more}


def side(name: str, outcome: Sequence[Row], steps: Sequence[Row] | None = None) -> Side:
    """A side; without *steps* every task has one step with the task's score."""
    if steps is None:
        steps = [step(row["task_id"], row["score"], trial=row["trial"]) for row in outcome]
    return Side(name, f"run-{name}", to_table(OUTCOME, outcome), to_table(STEPS, steps))


def scored(name: str, scores: Sequence[float | None], **more: Any) -> Side:
    """A side with one task for each score."""
    return side(name, [task(f"t{index:05d}", score, **more) for index, score in enumerate(scores)])
