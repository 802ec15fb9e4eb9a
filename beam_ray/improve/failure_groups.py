"""
What was wrong with a task in a run, in words that are equal for tasks that failed alike.

Nothing cleverer than the step, the criterion or the kind of error, and the message without
what differs from task to task: what is grouped so can be looked at, and argued with.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from beam_ray.compare.formatting import plain
from beam_ray.compare.pairs import UNAVAILABLE
from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable
from beam_ray.store.lookup import status_of
from beam_ray.store.runs import Run
from beam_ray.store.steps import StepRows

Kind = Literal["criterion", "error", "model away"]

_COLUMNS = ["task_id", "trial", "outcome", "passed", "score", "inputs", "calls", "usd"]


@dataclass(frozen=True, order=True)
class Failure:
    """One thing that was wrong with a task; equal for tasks that failed alike."""

    node: str
    kind: Kind
    what: str
    """The criterion's id, or the kind of error."""
    text: str
    """The criterion, or the message without what differs from task to task."""


@dataclass(frozen=True)
class State:
    """What became of a task in one run."""

    status: str
    """passed, below or failed"""
    score: float | None
    failures: tuple[Failure, ...]

    @property
    def away(self) -> bool:
        """Whether a model left it without an answer, so that nobody knows how good it is."""
        return any(failure.kind == "model away" for failure in self.failures)


class Kept:
    """A run, read once however often it is asked."""

    def __init__(self, run: Run):
        self.run = run

    @cached_property
    def begun(self) -> bool:
        """Whether it has tasks: whoever planned it may have died before they were kept."""
        try:
            return bool(self.run.tasks().num_rows)
        except Unusable:
            return False

    @cached_property
    def outcome(self) -> dict[tuple[str, int], dict[str, Any]]:
        return {(row["task_id"], row["trial"]): row for row in self.run.outcome(_COLUMNS).to_pylist()}

    @cached_property
    def ruler(self) -> str:
        workflow = self.run.record.plan
        judged = {name: (node.evaluate.model_dump(mode="json"), workflow.judge_of(name)) for name, node in workflow.nodes.items() if node.evaluate}
        return digest("ruler/1", judged)

    def states(self, wanted: Iterable[tuple[str, int]]) -> dict[tuple[str, int], State]:
        here = [key for key in wanted if key in self.outcome]
        failing = [key for key in here if not self.outcome[key]["passed"]]
        failures: dict[tuple[str, int], list[Failure]] = {key: [] for key in here}
        if failing:
            reader = StepRows(self.run)
            for node in self.run.record.plan.order:
                for key, row in reader.rows(node, failing).items():
                    failures[key] += _failures(row)
        return {key: State(status_of(self.outcome[key]), self.outcome[key]["score"], tuple(failures[key])) for key in here}


def _failures(step: Mapping[str, Any]) -> list[Failure]:
    node = step["node"]
    missed = [Failure(node, "criterion", item["id"], item["text"]) for item in step["criteria"] or () if item["met"] is False]
    if step["outcome"] == "failed":
        kind: Kind = "model away" if step["error_type"] == UNAVAILABLE else "error"
        # of a step that failed because it stayed below its threshold, the criteria say more
        return missed or [Failure(node, kind, step["error_type"] or "error", alike(step["error"] or ""))]
    return missed if step["passed"] is False else []


def alike(message: str) -> str:
    """*message* without what differs from task to task: quoted texts, numbers and ids."""
    text = re.sub(r"(?<!\w)'[^']*'|\"[^\"]*\"", "'…'", plain(message, 1_000))
    text = re.sub(r"\b(?=[0-9a-f-]*[0-9])[0-9a-f]{6,}(?:-[0-9a-f]+)*\b", "#", text)
    return plain(re.sub(r"[0-9]+(?:[.,][0-9]+)*", "#", text), 160)
