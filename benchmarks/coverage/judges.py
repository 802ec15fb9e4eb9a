"""How often intervals about a judge, and of rates corrected for its errors, hold the truth."""

from typing import NamedTuple

import numpy as np

from beam_ray.review import correction
from beam_ray.review.correction import Figure, Strata, corrected_change, corrected_rate, errors, judged_rate, transported_change, transported_rate

SIZES = ((200, 50), (1_000, 100), (2_000, 300))
"""Tasks, and outputs reviewed."""


class Truth(NamedTuple):
    """What is true of all outputs, and how the judge errs."""

    met: float
    sensitivity: float
    specificity: float
    after: float
    """The truly met share of the candidate."""

    def __str__(self) -> str:
        return f"{self.met:.0%} met, sensitivity {self.sensitivity:.2f}, specificity {self.specificity:.2f}"


TRUTHS = (Truth(0.78, 0.95, 0.70, 0.93), Truth(0.60, 0.85, 0.85, 0.70), Truth(0.93, 0.95, 0.70, 0.96), Truth(0.97, 0.97, 0.50, 0.97))

Flags = np.ndarray[tuple[int], np.dtype[np.bool_]]


class Side(NamedTuple):
    """The outputs of a side: whether each is met, and what the judge says."""

    met: Flags
    judged: Flags

    @property
    def words(self) -> tuple[int, int]:
        """How many are judged not met, and met."""
        return int((~self.judged).sum()), int(self.judged.sum())

    def strata(self, chosen: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Strata:
        """What is known when the chosen outputs are reviewed."""
        met, judged = self.met[chosen], self.judged[chosen]
        return Strata(self.words, (int((~judged).sum()), int(judged.sum())), (int((met & ~judged).sum()), int((met & judged).sum())))


def _side(chance: np.random.Generator, truth: Truth, met: Flags) -> Side:
    draws = chance.random(len(met))
    return Side(met, np.where(met, draws < truth.sensitivity, draws > truth.specificity))


def _sample(chance: np.random.Generator, side: Side, count: int, balanced: bool) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if not balanced:
        return chance.permutation(len(side.met))[:count]
    fail, passed = np.flatnonzero(~side.judged), np.flatnonzero(side.judged)
    half = min(len(fail), max(-(-count // 2), count - len(passed)))
    return np.concatenate([chance.permutation(fail)[:half], chance.permutation(passed)[: count - half]])


def _figures(chance: np.random.Generator, truth: Truth, tasks: int, count: int, balanced: bool) -> dict[str, tuple[Figure | None, float]]:
    """Each figure of one sample, and its true value."""
    before = _side(chance, truth, chance.random(tasks) < truth.met)
    # the candidate keeps what is met where it can, so that tasks are paired
    up = (truth.after - truth.met + 0.03) / (1 - truth.met)
    after = _side(chance, truth, np.where(before.met, chance.random(tasks) > 0.03 / truth.met, chance.random(tasks) < up))
    strata = before.strata(_sample(chance, before, count, balanced))
    both = after.strata(_sample(chance, after, count, balanced))
    words = tuple(int((one & other).sum()) for one in (~before.judged, before.judged) for other in (~after.judged, after.judged))
    found = errors(strata)
    cells = np.array(
        [truth.met * truth.sensitivity, (1 - truth.met) * (1 - truth.specificity), truth.met * (1 - truth.sensitivity), (1 - truth.met) * truth.specificity]
    )
    agreed, judged = cells[0] + cells[3], cells[0] + cells[1]
    by_chance = judged * truth.met + (1 - judged) * (1 - truth.met)
    change = truth.after - truth.met
    return {
        "as judged": (judged_rate(before.words), truth.met),
        "corrected": (corrected_rate(strata), truth.met),
        "taken over": (transported_rate(after.words, strata), truth.after),
        "change, corrected": (corrected_change(strata, both, words), change),
        "change, taken over": (transported_change(words, strata), change),
        "kappa": (found.kappa, float((agreed - by_chance) / (1 - by_chance))),
        "sensitivity": (found.sensitivity, truth.sensitivity),
        "specificity": (found.specificity, truth.specificity),
    }


def measure(truth: Truth, tasks: int, count: int, balanced: bool, repetitions: int, seed: int = 1) -> dict[str, tuple[float, float]]:
    """Percent of samples whose interval holds the truth, and its mean width in points, by figure."""
    chance = np.random.default_rng(seed)
    held: dict[str, list[tuple[bool, float]]] = {}
    for _ in range(repetitions):
        for name, (figure, value) in _figures(chance, truth, tasks, count, balanced).items():
            if figure:
                held.setdefault(name, []).append((figure.low <= value <= figure.high, figure.high - figure.low))
    return {name: (100 * float(np.mean([one for one, _ in rows])), 100 * float(np.mean([width for _, width in rows]))) for name, rows in held.items()}


def _row(found: dict[str, tuple[float, float]], names: tuple[str, ...], which: int) -> str:
    return " | ".join(f"{found[name][which]:.1f}" if name in found else "–" for name in names)


def table(repetitions: int) -> str:
    """The tables as Markdown."""
    correction.POINTS = 512  # a quarter of the product's, for time
    repetitions = max(repetitions // 5, 1)  # each is eight intervals
    names = ("as judged", "corrected", "taken over", "change, corrected", "change, taken over", "kappa", "sensitivity", "specificity")
    lines = [f"| | tasks | reviews | {' | '.join(names)} |", f"|---|--:|--:|{'--:|' * len(names)}"]
    widths = [*lines[:2]]
    for truth in TRUTHS:
        for tasks, count in SIZES:
            for balanced in (False, True):
                found = measure(truth, tasks, count, balanced, repetitions)
                head = f"| {truth} | {tasks:,} | {count}{' balanced' if balanced else ''} |"
                lines.append(f"{head} {_row(found, names, 0)} |")
                widths.append(f"{head} {_row(found, names, 1)} |")
    return "\n".join(["Coverage, %:", "", *lines, "", "Mean width, points:", "", *widths])
