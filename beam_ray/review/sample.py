"""
Which outputs people review: drawn at random with a known probability, or chosen.

A sample is a function of the run's tasks, the node and the seed alone: outputs are put into an order
by a digest, and the sample is the beginning of it. So the same draw names the same outputs anywhere,
a larger sample holds the smaller one, whoever stops half-way has reviewed a random sample too, and
two runs of the same tasks are reviewed on the same tasks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from beam_ray.define.criterion import Criterion
from beam_ray.define.fingerprint import digest
from beam_ray.errors import Unusable
from beam_ray.evaluate.panel import disagree
from beam_ray.run.context import RAN
from beam_ray.store.runs import Run
from beam_ray.store.tables import CriterionRow

How = Literal["random", "balanced", "flagged", "disagreed", "chosen"]
"""How an output comes to be reviewed."""

HOWS = get_args(How)

DRAWN = ("random", "balanced")
"""Ways with a known probability; only their reviews say how often a judge errs."""


@dataclass(frozen=True)
class StoredOutput:
    """An output of a node, with what was decided about it."""

    task_id: str
    trial: int
    output: str
    criteria: Mapping[str, CriterionRow]
    flagged: bool

    def met(self, ids: Iterable[str]) -> bool:
        """Whether all of the criteria are met; undecided counts as not met."""
        return all(name in self.criteria and self.criteria[name]["met"] for name in ids)


class Drawn(NamedTuple):
    """An output in a sample, and its chance to be in it; None where nothing was drawn at random."""

    output: StoredOutput
    probability: float | None


@dataclass(frozen=True)
class Sample:
    """Outputs to review, in the order in which they should be."""

    how: How
    seed: int | None
    outputs: tuple[Drawn, ...]
    population: int
    """The outputs that it was drawn from."""


def outputs_of(run: Run, node: str) -> list[StoredOutput]:
    """The outputs of the node in a finished run: one per task, that of its first trial, since trials of a task are alike."""
    columns = ["task_id", "trial", "outcome", "output", "criteria", "review"]
    found = []
    for row in run.steps([node], columns).to_pylist():
        if row["trial"] == 1 and row["outcome"] in RAN and row["output"] is not None:
            found.append(StoredOutput(row["task_id"], 1, row["output"], {entry["id"]: entry for entry in row["criteria"] or ()}, bool(row["review"])))
    return found


def draw(run: Run, node: str, ids: Sequence[str], *, how: How, count: int, seed: int = 0, tasks: Sequence[str] = ()) -> Sample:
    """
    A sample of the outputs of *node* in *run*.

    Args:
        ids: the criteria that are reviewed. A balanced sample has as many outputs that meet all of them as outputs that do not.
        how: as ``How`` says; ``chosen`` takes *tasks*.
        count: how many outputs at most.

    Raises:
        Unusable: a chosen task has no output.
    """
    known = outputs_of(run, node)
    if how == "chosen":
        by_task = {each.task_id: each for each in known}
        missing = [task for task in tasks if task not in by_task]
        if missing:
            raise Unusable(f"run {run.run_id} has no output of {node!r} for task {missing[0]!r}\n  beam-ray tasks --run {run.run_id}  lists its tasks")
        return Sample(how, None, tuple(Drawn(by_task[task], None) for task in dict.fromkeys(tasks)), len(known))
    # without the run's id, so that two runs of the same tasks are reviewed on the same of them
    ordered = sorted(known, key=lambda each: digest("review/1", seed, node, each.task_id))
    if how in ("flagged", "disagreed"):
        wanted = [each for each in ordered if (each.flagged if how == "flagged" else _disagreed(each, ids))]
        return Sample(how, None, tuple(Drawn(each, None) for each in wanted[:count]), len(wanted))
    if how == "random":
        size = min(count, len(ordered))
        return Sample(how, seed, tuple(Drawn(each, size / len(ordered)) for each in ordered[:size]), len(ordered))
    strata = [[each for each in ordered if each.met(ids) is wanted] for wanted in (False, True)]
    sizes = _halves(count, [len(stratum) for stratum in strata])
    placed = [
        ((place + 0.5) / size, Drawn(each, size / len(stratum)))
        for stratum, size in zip(strata, sizes, strict=True)
        for place, each in enumerate(stratum[:size])
    ]
    placed.sort(key=lambda entry: entry[0])
    return Sample(how, seed, tuple(each for _, each in placed), len(ordered))


def _halves(count: int, there: Sequence[int]) -> list[int]:
    """Half of *count* from each of two strata; what one lacks is taken from the other."""
    first = min(there[0], max(math.ceil(count / 2), count - there[1]))
    return [first, min(there[1], count - first)]


def _disagreed(each: StoredOutput, ids: Sequence[str]) -> bool:
    """Whether the judges of a panel disagree about one of the criteria."""
    return any(disagree(each.criteria[name]["judges"]) for name in ids if name in each.criteria)


def reviewed_criteria(criteria: Sequence[Criterion], wanted: Sequence[str]) -> tuple[Criterion, ...]:
    """
    The criteria that people review: those in *wanted*, by default the plain-language ones, which a judge decides.

    Raises:
        Unusable: one of *wanted* is not there, or there is none.
    """
    known = {each.id: each for each in criteria}
    for name in wanted:
        if name not in known:
            raise Unusable(f"there is no criterion {name!r}\n  criteria: {', '.join(known)}")
    found = tuple(known[name] for name in dict.fromkeys(wanted)) if wanted else tuple(each for each in criteria if each.kind == "plain")
    if not found:
        raise Unusable(f"no criterion is decided by a judge; name those to review\n  criteria: {', '.join(known) or 'none'}")
    return found
