"""Several candidates: how often one passes by chance, and how far the best one's gain is from the truth."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from beam_ray.compare.intervals import Sample, change, sample
from beam_ray.compare.multiplicity import holm
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.shrinkage import covariance_of, shrunk
from beam_ray.compare.statistics import Quantity
from benchmarks.coverage.scenarios import Numbers

COUNTS = (1, 2, 3, 5, 10, 20)
SIZES = (50, 200)

Truths = Callable[[np.random.Generator, int], Numbers]
"""How much so many candidates are truly better, in points of the share of tasks that pass."""


def idle(chance: np.random.Generator, candidates: int) -> Numbers:
    """Nothing changed."""
    return np.zeros(candidates)


def five_worse(chance: np.random.Generator, candidates: int) -> Numbers:
    """All are as much worse as `not_worse_than: 5` wants excluded."""
    return np.full(candidates, -5.0)


def one(gain: float) -> Truths:
    """One is better, or worse, and the others change nothing."""
    return lambda chance, candidates: np.array([gain, *[0.0] * (candidates - 1)])


def spread(width: float) -> Truths:
    """All differ a little, normally distributed."""
    return lambda chance, candidates: np.clip(chance.normal(0, width, candidates), -30, 18)


def half(gain: float) -> Truths:
    """One half changes nothing, the other is so much better or worse."""
    return lambda chance, candidates: np.array([gain] * (candidates // 2) + [0.0] * (candidates - candidates // 2))


class Drawn(NamedTuple):
    """The candidates of one backtest, each as pairs with the baseline."""

    truths: Numbers
    samples: list[Sample]
    changes: Numbers


def draw(chance: np.random.Generator, truths: Numbers, tasks: int) -> Drawn:
    """Tasks of which nine of ten pass in 85% of runs and one in 35%: a success rate of 80% on the baseline, which all candidates share."""
    passing = np.where(chance.random(tasks) < 0.9, 0.85, 0.35)
    before = 100.0 * (chance.random(tasks) < passing)
    moved = np.clip(passing[:, None] + truths / 100, 0, 1)
    after = 100.0 * (chance.random((tasks, len(truths))) < moved)
    samples = [sample(Quantity(before, after[:, index]), np.arange(tasks), largest=100.0) for index in range(len(truths))]
    return Drawn(np.array([100 * (moved[:, index] - passing).mean() for index in range(len(truths))]), samples, after - before[:, None])


def passing(drawn: Drawn, bound: float) -> tuple[bool, bool]:
    """Whether some candidate's interval lies above the bound: each for itself, and by Holm's method."""

    def holds(index: int, confidence: float) -> bool:
        found = change(drawn.samples[index], Confidence(confidence))
        return bool(found and found.low > bound)

    claims = [index for index in range(len(drawn.samples)) if holds(index, 95.0)]
    return bool(claims), bool(claims and holm(claims, len(drawn.samples), 95.0, holds).held)


def passed(truths: Truths, bound: float, candidates: int, tasks: int, repetitions: int, seed: int = 1) -> tuple[float, float]:
    """Percent of backtests in which some candidate passes, without and with correction."""
    chance = np.random.default_rng([seed, candidates, tasks])
    found = [passing(draw(chance, truths(chance, candidates), tasks), bound) for _ in range(repetitions)]
    alone, corrected = (100 * float(np.mean([each[place] for each in found])) for place in (0, 1))
    return alone, corrected


def passed_again(truths: Truths, bound: float, candidates: int, tasks: int, repetitions: int, seed: int = 1) -> float:
    """Percent of backtests under ``rerun: fresh`` in which the best candidate on one half of the tasks passes on the other."""
    chance, found = np.random.default_rng([seed, candidates, tasks]), 0
    for _ in range(repetitions):
        true = truths(chance, candidates)
        first = draw(chance, true, tasks // 2)
        ends = [change(each, Confidence()) for each in first.samples]
        ranked = [(bool(each and each.low > bound), float(drawn.after.mean())) for each, drawn in zip(ends, first.samples, strict=True)]
        best = max(range(candidates), key=lambda index: ranked[index])
        again = change(draw(chance, true[[best]], tasks // 2).samples[0], Confidence())
        found += bool(again and again.low > bound)
    return 100 * found / repetitions


class Winner(NamedTuple):
    """The best candidate's gain against the truth, as found and shrunk: mean error, root mean square error, and how often its interval holds the truth."""

    bias: float
    error: float
    holds: float
    bias_shrunk: float
    error_shrunk: float
    holds_shrunk: float


def winner(truths: Truths, candidates: int, tasks: int, repetitions: int, seed: int = 1) -> Winner:
    """How far off the gain of the candidate with the highest score is."""
    chance, rows = np.random.default_rng([seed, candidates, tasks]), []
    quantile = Confidence().quantile(tasks)
    for _ in range(repetitions):
        drawn = draw(chance, truths(chance, candidates), tasks)
        ends = [change(each, Confidence()) for each in drawn.samples]
        gains = [float(each.after.mean() - each.before.mean()) for each in drawn.samples]
        errors = [(each.high - each.low) / 2 / quantile for each in ends if each]
        best = int(np.argmax(gains))
        less, end, truth = shrunk(gains, covariance_of(drawn.changes, errors), 95)[best], ends[best], float(drawn.truths[best])
        assert end
        rows.append((gains[best] - truth, end.low <= truth <= end.high, less.gain - truth, less.interval.low <= truth <= less.interval.high))
    found, holds, smaller, holds_smaller = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
    numbers = [(values.mean(), np.sqrt((values**2).mean()), 100 * kept.mean()) for values, kept in ((found, holds), (smaller, holds_smaller))]
    return Winner(*(float(value) for each in numbers for value in each))


PASSES: dict[str, tuple[Truths, float]] = {
    "nothing changed, `score: {up_by: 0}`": (idle, 0.0),
    "all lose 5 points, `not_worse_than: 5`": (five_worse, -5.0),
}
FOUND: dict[str, tuple[Truths, float]] = {"one gains 12 points, `score: {up_by: 0}`": (one(12.0), 0.0)}
WINNERS: dict[str, Truths] = {
    "nothing changed": idle,
    "one gains 10 points": one(10.0),
    "one gains 18 points": one(18.0),
    "normal, standard deviation 5 points": spread(5.0),
    "half gain 8 points": half(8.0),
    "one loses 40 points": one(-40.0),
    "half lose 40 points": half(-40.0),
}


def table(repetitions: int) -> str:
    """The tables of docs/statistics.md."""
    lines = [f"| some candidate passes, % (alone / corrected) | tasks | {' | '.join(map(str, COUNTS))} |", f"|---|--:|{'--:|' * len(COUNTS)}"]
    for title, (truths, bound) in (PASSES | FOUND).items():
        for tasks in SIZES:
            cells = [passed(truths, bound, count, tasks, repetitions) for count in COUNTS]
            lines.append(f"| {title} | {tasks} | {' | '.join(f'{alone:.1f} / {corrected:.1f}' for alone, corrected in cells)} |")
    for title, (truths, bound) in (PASSES | FOUND).items():
        cells = [f"{passed_again(truths, bound, count, 200, repetitions):.1f}" for count in COUNTS]
        lines.append(f"| {title}; `rerun: fresh` | 100 + 100 | {' | '.join(cells)} |")
    few = max(repetitions // 3, 200)
    lines += [
        "",
        "| the best one's gain, error in points: bias (root mean square), interval holds | tasks | candidates | as found | shrunk |",
        "|---|--:|--:|--:|--:|",
    ]
    for title, truths in WINNERS.items():
        for tasks, count in ((50, 3), (50, 10), (200, 10)):
            got = winner(truths, count, tasks, few)
            cells = [f"{bias:+.1f} ({error:.1f}), {holds:.0f}%" for bias, error, holds in (got[:3], got[3:])]
            lines.append(f"| {title} | {tasks} | {count} | {' | '.join(cells)} |")
    return "\n".join(lines)
