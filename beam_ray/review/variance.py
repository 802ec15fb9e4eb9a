"""
Where the scatter of scores comes from: tasks, trials of a task, or the judge; and what to buy more of.

A score is taken as a sum of independent parts, one per task, one per trial within it, one per
judgement of the same output. Their variances are estimated from the inside out: judgements of
one output tell the judge's, means over them tell the trials', means over these the tasks'.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

Purchase = Literal["tasks", "trials", "judge repeats"]


@dataclass(frozen=True)
class VarianceComponents:
    """Standard deviations of the parts of a node's score, in points, and what they mean for its mean in a run of so many tasks."""

    node: str
    tasks: int
    """Tasks of the run."""
    trials: int
    """Trials per task."""
    outputs: int
    """Tasks whose outputs were judged again."""
    judgements: int
    """How often each of these outputs was judged; in the run itself it was once."""
    between_tasks: float | None
    """How much tasks differ; None for fewer than two."""
    between_trials: float | None
    """How much trials of one task differ; None for a single trial, whose part lies in that of the tasks."""
    between_judgements: float | None
    """How much judgements of one output differ; None for a single one, whose part lies in that of the trials or tasks."""
    usd_output: float | None
    """Of an output; None where it is not known."""
    usd_judgement: float | None
    """Of a judgement of it; None where it is not known."""

    @property
    def error(self) -> float:
        """Standard error of the run's mean score, over tasks."""
        return math.sqrt(self._variance(self.tasks, self.trials, 1))

    @property
    def error_of_change(self) -> float | None:
        """Standard error that trials and judge alone give to a change over the same tasks, whose own differences cancel; None where neither is known."""
        if self.between_trials is None and self.between_judgements is None:
            return None
        noise = _squared(self.between_trials) + _squared(self.between_judgements)
        return math.sqrt(2 * noise / (self.trials * self.tasks))

    @property
    def priced(self) -> bool:
        """Whether prices are known; otherwise an output counts as much as a judgement."""
        return bool(self.usd_output) and bool(self.usd_judgement)

    def purchases(self) -> list[tuple[Purchase, float]]:
        """
        Each thing that can be bought, with the standard error after one tenth more is spent on it, the best first.

        A tenth, because with more trials or repeats than the parts are worth the gain soon ends.
        """
        output, judgement = (float(self.usd_output or 0), float(self.usd_judgement or 0)) if self.priced else (1.0, 1.0)
        more = (output + judgement) / 10
        options: dict[Purchase, tuple[float, float, float]] = {
            "tasks": (self.tasks * 1.1, self.trials, 1),
            "trials": (self.tasks, self.trials * 1.1, 1),
            "judge repeats": (self.tasks, self.trials, 1 + more / judgement),
        }
        unknown = {"trials": self.between_trials is None, "judge repeats": self.between_judgements is None}
        found = [(name, math.sqrt(self._variance(*sizes))) for name, sizes in options.items() if not unknown.get(name)]
        return sorted(found, key=lambda entry: entry[1])

    def _variance(self, tasks: float, trials: float, repeats: float) -> float:
        inner = _squared(self.between_trials) + _squared(self.between_judgements) / repeats
        return (_squared(self.between_tasks) + inner / trials) / tasks

    def document(self) -> "VarianceDocument":
        """The components as a JSON document."""
        return {
            "node": self.node,
            "tasks": self.tasks,
            "trials": self.trials,
            "outputs": self.outputs,
            "judgements": self.judgements,
            "between_tasks": _rounded(self.between_tasks),
            "between_trials": _rounded(self.between_trials),
            "between_judgements": _rounded(self.between_judgements),
            "standard_error": round(self.error, 12),
            "standard_error_of_change": _rounded(self.error_of_change),
            "usd_output": _rounded(self.usd_output),
            "usd_judgement": _rounded(self.usd_judgement),
            "purchases": [{"what": name, "standard_error": round(error, 12)} for name, error in self.purchases()],
        }


class PurchaseDocument(TypedDict):
    """What can be bought, as JSON."""

    what: Purchase
    standard_error: float


class VarianceDocument(TypedDict):
    """Components of variance as JSON."""

    node: str
    tasks: int
    trials: int
    outputs: int
    judgements: int
    between_tasks: float | None
    between_trials: float | None
    between_judgements: float | None
    standard_error: float
    standard_error_of_change: float | None
    usd_output: float | None
    usd_judgement: float | None
    purchases: list[PurchaseDocument]


def components(
    node: str,
    scores: Sequence[Sequence[Sequence[float]]],
    *,
    weights: Sequence[float] = (),
    tasks: int = 0,
    usd_output: float | None = None,
    usd_judgement: float | None = None,
) -> VarianceComponents | None:
    """
    The components of a node's score; None without scores.

    Args:
        scores: per task, per trial, the score of each judgement; all tasks have equally many trials, and all outputs equally many judgements.
        weights: how many tasks of the run each stands for, where some kinds were chosen more often than others; by default all alike.
        tasks: tasks of the run; by default those in *scores*.
    """
    if not scores:
        return None
    weights = weights or [1.0] * len(scores)
    trials, repeats = len(scores[0]), len(scores[0][0])
    outputs = [[_mean(judgements) for judgements in task] for task in scores]
    judge = _mean([_mean([_spread(judgements) for judgements in task]) for task in scores], weights) if repeats > 1 else None
    within = _mean([_spread(task) for task in outputs], weights) if trials > 1 else None
    trial = None if within is None else max(within - (judge or 0) / repeats, 0.0)
    task = None
    if len(scores) > 1:
        between = _spread([_mean(each) for each in outputs], weights)
        task = max(between - (within / trials if within is not None else (judge or 0) / repeats), 0.0)
    roots = _root(task), _root(trial), _root(judge)
    return VarianceComponents(node, tasks or len(scores), trials, len(scores), repeats, *roots, usd_output, usd_judgement)


def _mean(values: Sequence[float], weights: Sequence[float] = ()) -> float:
    if not weights:
        return math.fsum(values) / len(values)
    return math.fsum(value * weight for value, weight in zip(values, weights, strict=True)) / math.fsum(weights)


def _spread(values: Sequence[float], weights: Sequence[float] = ()) -> float:
    """Variance of a sample, whose values may stand for different numbers of tasks."""
    weights = weights or [1.0] * len(values)
    middle, total = _mean(values, weights), math.fsum(weights)
    squares = math.fsum(weight * (value - middle) ** 2 for value, weight in zip(values, weights, strict=True))
    return squares / (total - math.fsum(weight**2 for weight in weights) / total)


def _root(value: float | None) -> float | None:
    return None if value is None else math.sqrt(value)


def _squared(value: float | None) -> float:
    return (value or 0.0) ** 2


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 12)
