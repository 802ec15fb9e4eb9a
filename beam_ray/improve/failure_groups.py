"""
Group failed tasks by the reason for their failure.

The reason is the step, the criterion or kind of error, and the message with task-specific parts
removed. Nothing cleverer, so that people can check the groups.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from beam_ray.compare.formatting import plain
from beam_ray.compare.pairs import UNAVAILABLE
from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable
from beam_ray.store.lookup import status_of
from beam_ray.store.runs import Run
from beam_ray.store.step_lookup import StepRows
from beam_ray.store.tables import OutcomeRow, StepRow

Kind = Literal["criterion", "error", "model away"]

_COLUMNS = ["task_id", "trial", "outcome", "passed", "score", "inputs", "calls", "usd"]


@dataclass(frozen=True, order=True)
class Failure:
    """One reason why a task failed; equal for tasks that failed for the same reason."""

    node: str
    kind: Kind
    what: str
    """The criterion's id, or the kind of error."""
    text: str
    """The criterion, or the error message with task-specific parts removed."""


@dataclass(frozen=True)
class TaskResult:
    """The result of a task in one run."""

    status: str
    """passed, below (a threshold) or failed."""
    score: float | None
    failures: tuple[Failure, ...]

    @property
    def model_unavailable(self) -> bool:
        """Whether a model did not answer, so that the task's quality is unknown."""
        return any(failure.kind == "model away" for failure in self.failures)


class CachedRun:
    """A run whose rows are read only once."""

    def __init__(self, run: Run):
        self.run = run

    @cached_property
    def has_tasks(self) -> bool:
        """Whether the run has tasks. Its driver may have died before it stored them."""
        try:
            return bool(self.run.tasks().num_rows)
        except Unusable:
            return False

    @cached_property
    def outcome(self) -> dict[tuple[str, int], OutcomeRow]:
        return {(row["task_id"], row["trial"]): row for row in self.run.outcome(_COLUMNS).to_pylist()}

    @cached_property
    def criteria_fingerprint(self) -> str:
        workflow = self.run.record.plan
        judged = {name: (node.evaluate.model_dump(mode="json"), workflow.judge_of(name)) for name, node in workflow.nodes.items() if node.evaluate}
        return digest("criteria/1", judged)

    def states(self, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], TaskResult]:
        here = [key for key in wanted if key in self.outcome]
        failing = [key for key in here if not self.outcome[key]["passed"]]
        failures: dict[tuple[str, int], list[Failure]] = {key: [] for key in here}
        if failing:
            reader = StepRows(self.run)
            for node in self.run.record.plan.order:
                for key, row in reader.rows(node, failing).items():
                    failures[key] += _failures(row)
        return {key: TaskResult(status_of(self.outcome[key]), self.outcome[key]["score"], tuple(failures[key])) for key in here}


def _failures(step: StepRow) -> list[Failure]:
    node = step["node"]
    missed = [Failure(node, "criterion", item["id"], item["text"]) for item in step["criteria"] or () if item["met"] is False]
    if step["outcome"] == "failed":
        kind: Kind = "model away" if step["error_type"] == UNAVAILABLE else "error"
        # where a step failed because it stayed below its threshold, the unmet criteria say more
        return missed or [Failure(node, kind, step["error_type"] or "error", without_task_details(step["error"] or ""))]
    return missed if step["passed"] is False else []


def without_task_details(message: str) -> str:
    """*message* without its task-specific parts: quoted texts, numbers and ids."""
    text = re.sub(r"(?<!\w)'[^']*'|\"[^\"]*\"", "'…'", plain(message, 1_000))
    text = re.sub(r"\b(?=[0-9a-f-]*[0-9])[0-9a-f]{6,}(?:-[0-9a-f]+)*\b", "#", text)
    return plain(re.sub(r"[0-9]+(?:[.,][0-9]+)*", "#", text), 160)
