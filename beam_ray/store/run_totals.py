"""The counts of one run, and as bytes that say what they should be: they are kept on the machine that has counted."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class StepCounts:
    """What happened at one node of a run, over its tasks and trials."""

    outcomes: Counter[str]
    """Steps by outcome: done, borrowed, skipped or failed."""
    passed: int
    """Steps that reached the threshold."""
    scored: int
    score_sum: float
    scores: "np.ndarray[Any, np.dtype[np.float32]]" = field(compare=False)
    """The score of each step, in the order of the run's tasks and trials; NaN where there is none."""
    review: int
    """Steps flagged for a person."""
    answers: Counter[int]
    """Steps by their number of valid answers; more than one means auto-reruns."""

    @property
    def ran(self) -> int:
        """Steps with an output."""
        return self.outcomes["done"] + self.outcomes["borrowed"]


@dataclass(frozen=True)
class CriterionCounts:
    """How often a criterion was met."""

    met: int
    unmet: int
    undecided: int


@dataclass(frozen=True)
class RunTotals:
    """A run in counts."""

    steps: dict[str, StepCounts]
    """By node."""
    criteria: dict[str, dict[str, CriterionCounts]]
    """By node and id."""
    paths: Counter[tuple[str, ...]]
    """Tasks and trials by the nodes that ran or were borrowed, in order."""
    tasks: "np.ndarray[Any, np.dtype[np.int64]]"
    """A number for each task and trial with an outcome, equal for tasks of the same id."""


def written_totals(totals: RunTotals) -> bytes:
    """The counts as ``read_totals`` reads them: their digest, what is not an array as JSON on one line, then the arrays."""
    document = {
        "tasks": len(totals.tasks),
        "paths": [[list(path), count] for path, count in totals.paths.items()],
        "steps": {
            name: {
                "outcomes": dict(each.outcomes),
                "passed": each.passed,
                "scored": each.scored,
                "score_sum": each.score_sum,
                "scores": len(each.scores),
                "review": each.review,
                "answers": list(each.answers.items()),
            }
            for name, each in totals.steps.items()
        },
        "criteria": {node: {name: [each.met, each.unmet, each.undecided] for name, each in found.items()} for node, found in totals.criteria.items()},
    }
    parts = [json.dumps(document).encode(), b"\n", totals.tasks.astype("<i8").tobytes()]
    body = b"".join([*parts, *(each.scores.astype("<f4").tobytes() for each in totals.steps.values())])
    return hashlib.sha256(body).digest() + body


def read_totals(written: bytes) -> RunTotals | None:
    """The counts in these bytes; None where they are not what was written."""
    digest, body = written[:32], written[32:]
    if hashlib.sha256(body).digest() != digest:
        return None
    line, _, arrays = body.partition(b"\n")
    document = json.loads(line)
    place = 8 * document["tasks"]
    tasks, steps = np.frombuffer(arrays[:place], "<i8"), {}
    for name, each in document["steps"].items():
        scores = np.frombuffer(arrays[place : place + 4 * each["scores"]], "<f4")
        place += 4 * each["scores"]
        outcomes, answers = Counter(each["outcomes"]), Counter(dict(each["answers"]))
        steps[name] = StepCounts(outcomes, each["passed"], each["scored"], each["score_sum"], scores, each["review"], answers)
    criteria = {node: {name: CriterionCounts(*counts) for name, counts in found.items()} for node, found in document["criteria"].items()}
    return RunTotals(steps, criteria, Counter({tuple(path): count for path, count in document["paths"]}), tasks)
