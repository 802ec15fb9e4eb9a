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


def normal(strata: Strata) -> Figure:
    """Prediction-powered inference with a normal interval, for comparison."""
    share, tasks = strata.judged_met, sum(strata.judged)
    shares = [strata.truth(word) for word in (0, 1)]
    spread = [part * (1 - part) / count if count else 0.25 for part, count in zip(shares, strata.reviewed, strict=True)]
    middle = share * shares[1] + (1 - share) * shares[0]
    error = share**2 * spread[1] + (1 - share) ** 2 * spread[0] + (shares[1] - shares[0]) ** 2 * share * (1 - share) / tasks
    reach = 1.96 * float(np.sqrt(error))
    return Figure(middle, middle - reach, middle + reach)


def lang_reiczigel(strata: Strata) -> Figure:
    """Rogan and Gladen's rate with the interval of Lang and Reiczigel (2014), for comparison; of unbalanced samples."""
    z, tasks = 1.96, sum(strata.judged)
    (missed, met), (failed, passed) = strata.met, strata.reviewed
    true, false = met + missed + 2, passed - met + failed - missed + 2
    sensitivity, specificity = (met + 1) / true, (failed - missed + 1) / false
    share = (strata.judged[1] + z**2 / 2) / (tasks + z**2)
    slope = sensitivity + specificity - 1
    if slope <= 0:
        return Figure(0.5, 0, 1)
    rate = (share + specificity - 1) / slope
    moved = 2 * z**2 * (rate * sensitivity * (1 - sensitivity) / true - (1 - rate) * specificity * (1 - specificity) / false)
    parts = share * (1 - share) / (tasks + z**2) + rate**2 * sensitivity * (1 - sensitivity) / true + (1 - rate) ** 2 * specificity * (1 - specificity) / false
    reach = z * float(np.sqrt(parts)) / slope
    return Figure(rate + moved, max(rate + moved - reach, 0), min(rate + moved + reach, 1))


def choice(repetitions: int) -> str:
    """Ways to correct a rate by reviews of its own outputs: coverage and mean width."""
    ways = {"strata, Jeffreys (used)": corrected_rate, "strata, normal": normal, "Rogan-Gladen, Lang-Reiczigel": lang_reiczigel}
    lines = [f"| | tasks | reviews | {' | '.join(ways)} |", f"|---|--:|--:|{'--:|' * len(ways)}"]
    for truth in TRUTHS:
        for tasks, count in SIZES[:2]:
            chance, held = np.random.default_rng(1), {name: list[tuple[bool, float]]() for name in ways}
            for _ in range(repetitions):
                side = _side(chance, truth, chance.random(tasks) < truth.met)
                strata = side.strata(_sample(chance, side, count, balanced=False))
                for name, way in ways.items():
                    found = way(strata)
                    held[name].append((found.low <= truth.met <= found.high, found.high - found.low))
            cells = [f"{100 * np.mean([one for one, _ in rows]):.1f} / {100 * np.mean([width for _, width in rows]):.1f}" for rows in held.values()]
            lines.append(f"| {truth} | {tasks:,} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    return "\n".join(
        [
            "Ways to correct a rate, coverage in % / mean width in points:",
            "",
            choice(repetitions),
            "",
            "Coverage, %:",
            "",
            *lines,
            "",
            "Mean width, points:",
            "",
            *widths,
        ]
    )
