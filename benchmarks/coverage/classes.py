"""The share of samples whose 95% interval of precision, recall or F1 holds what is true of all tasks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from beam_ray.compare.ratios import FEWEST_UNITS, Counts, Ratio
from beam_ray.compare.sequential import Confidence

SIZES = (20, 50, 100, 200, 1_000)
KINDS = ("precision", "recall", "f1")
ONCE = Confidence()


class Truth(NamedTuple):
    """How often each class is expected, how often each side is right, and how alike the sides are."""

    shares: tuple[float, ...]
    before: float
    after: float
    alike: float


SCENARIOS: Mapping[str, Truth] = {
    "two alike, 70 → 80": Truth((0.5, 0.5), 0.7, 0.8, 0.6),
    "70, 20 and 10% of the tasks, 80 → 80": Truth((0.7, 0.2, 0.1), 0.8, 0.8, 0.7),
    "70, 20 and 10% of the tasks, 75 → 90": Truth((0.7, 0.2, 0.1), 0.75, 0.9, 0.5),
    "five alike, 90 → 95": Truth((0.2,) * 5, 0.9, 0.95, 0.8),
    "50, 30 and 20% of the tasks, 98 → 95": Truth((0.5, 0.3, 0.2), 0.98, 0.95, 0.9),
    "ten alike, 60 → 80": Truth((0.1,) * 10, 0.6, 0.8, 0.5),
}


def drawn(chance: np.random.Generator, truth: Truth, tasks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What so many tasks expect and both sides answer; a tenth of the wrong answers is missing."""
    classes = len(truth.shares)
    expected = chance.choice(classes, size=tasks, p=truth.shares)
    first = chance.random(tasks)
    second = np.where(chance.random(tasks) < truth.alike, first, chance.random(tasks))
    sides = []
    for at, right in ((first, truth.before), (second, truth.after)):
        wrong = np.where(chance.random(tasks) < 0.1, -1, (expected + chance.integers(1, classes, size=tasks)) % classes)
        sides.append(np.where(at < right, expected, wrong))
    return expected, sides[0], sides[1]


def ratio(kind: str, labels: Sequence[int], expected: np.ndarray, before: np.ndarray, after: np.ndarray) -> Ratio:
    """The ratio of these classes."""
    sides = []
    for answered in (before, after):
        over = np.array([(expected == label) & (answered == label) for label in labels], dtype=float).T
        parts = {"precision": [answered == label for label in labels], "recall": [expected == label for label in labels]}
        under = np.array(parts[kind], dtype=float).T if kind in parts else sum(np.array(each, dtype=float).T for each in parts.values())
        sides.append(Counts(over * (2 if kind == "f1" else 1), under))
    return Ratio(*sides, wrong=1.0, right=2.0 if kind == "f1" else 1.0)


def coverage(truth: Truth, kind: str, labels: Sequence[int], tasks: int, repetitions: int) -> tuple[float | None, float | None]:
    """Percent of samples whose interval of the change, and of the level, holds the truth; None where most samples have none."""
    chance = np.random.default_rng(1)
    whole = ratio(kind, labels, *drawn(chance, truth, 1_000_000))
    true_after = float(whole.after.ratios.mean())
    true_change = true_after - float(whole.before.ratios.mean())
    changes, levels = [], []
    for _ in range(repetitions):
        one = ratio(kind, labels, *drawn(chance, truth, tasks))
        if int(((one.before.under + one.after.under) > 0).sum(axis=0).min()) < FEWEST_UNITS:
            continue
        found, _ = one.estimate(ONCE)
        changes += [found.change.low - 1e-9 <= true_change <= found.change.high + 1e-9] if found.change else []
        levels += [found.level.low - 1e-9 <= true_after <= found.level.high + 1e-9] if found.level else []
    return tuple(100 * float(np.mean(held)) if len(held) > repetitions / 2 else None for held in (changes, levels))  # type: ignore[return-value]


def table(repetitions: int) -> str:
    """The table of docs/statistics.md: change / level."""
    lines = [f"| classes, percent right | {' | '.join(f'{size:,}' for size in SIZES)} |", f"|---|{'--:|' * len(SIZES)}"]
    for title, truth in SCENARIOS.items():
        rarest = len(truth.shares) - 1
        for kind in KINDS:
            for labels, name in (((rarest,), f"{kind} of the rarest"), (tuple(range(rarest + 1)), f"{kind}, macro")):
                cells = [coverage(truth, kind, labels, size, repetitions if size < 1_000 else repetitions // 2) for size in SIZES]
                shown = [" / ".join("–" if percent is None else f"{percent:.1f}" for percent in cell) for cell in cells]
                lines.append(f"| {title}: {name} | {' | '.join(shown)} |")
    return "\n".join(lines)
