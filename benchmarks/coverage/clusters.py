"""The share of samples whose 95% interval holds the true change, when tasks come in clusters, with and without ``cluster:``."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from beam_ray.compare.intervals import change, level, relative, sample
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Quantity

Numbers = np.ndarray[Any, np.dtype[Any]]
CLUSTERS = (4, 6, 8, 10, 15, 20, 30, 50, 100)
SIZE = 8
"""Tasks of a cluster, on average."""
KINDS = ("change", "relative", "level")


def alike(chance: np.random.Generator, clusters: int) -> Numbers:
    """Clusters of the same size."""
    return np.full(clusters, SIZE)


def uneven(chance: np.random.Generator, clusters: int) -> Numbers:
    """From 1 to 60 tasks: a third of the clusters has two thirds of the tasks."""
    return np.clip(np.round(SIZE * np.exp(chance.normal(-0.4, 0.9, clusters))), 1, 60).astype(int)


def pass_or_fail(before: float, after: float, spread: float) -> Callable[[np.random.Generator, Numbers, int], tuple[Numbers, Numbers]]:
    """0 or 100; how often a cluster's tasks pass scatters, on each side and together (beta)."""

    def draw(chance: np.random.Generator, cluster: Numbers, clusters: int) -> tuple[Numbers, Numbers]:
        common = chance.beta(before * spread, (1 - before) * spread, clusters)
        second = chance.beta(after * spread, (1 - after) * spread, clusters)
        # half of the clusters do on the candidate as well as they did, moved by the change
        second = np.where(chance.random(clusters) < 0.5, second, np.clip(common * after / before, 0, 1))
        return 100.0 * (chance.random(len(cluster)) < common[cluster]), 100.0 * (chance.random(len(cluster)) < second[cluster])

    return draw


def scores(chance: np.random.Generator, cluster: Numbers, clusters: int) -> tuple[Numbers, Numbers]:
    """Normal scores; a cluster's tasks gain or lose together as much as each of them scatters."""
    level_, gain = chance.normal(60, 10, clusters), chance.normal(3, 8, clusters)
    before = level_[cluster] + chance.normal(0, 8, len(cluster))
    return np.clip(before, 0, 100), np.clip(before + gain[cluster] + chance.normal(0, 8, len(cluster)), 0, 100)


SCENARIOS: Mapping[str, tuple[Callable[..., Numbers], Callable[..., tuple[Numbers, Numbers]]]] = {
    "0/100, 80 → 88, alike": (alike, pass_or_fail(0.8, 0.88, 3)),
    "0/100, 80 → 88, uneven": (uneven, pass_or_fail(0.8, 0.88, 3)),
    "0/100, 90 → 90, uneven": (uneven, pass_or_fail(0.9, 0.9, 3)),
    "scores, alike": (alike, scores),
    "scores, uneven": (uneven, scores),
}


def coverage(title: str, clusters: int, repetitions: int, *, robust: bool = True, seed: int = 1) -> dict[str, float]:
    """Percent of samples of so many clusters whose interval holds the truth, by kind."""
    sizes, draw = SCENARIOS[title]
    chance = np.random.default_rng(seed)

    def drawn(count: int) -> tuple[Numbers, Numbers, Numbers]:
        cluster = np.repeat(np.arange(count), sizes(chance, count))
        return (cluster, *draw(chance, cluster, count))

    _, before, after = drawn(300_000)
    truth = {"change": after.mean() - before.mean(), "relative": 100 * (after.mean() / before.mean() - 1), "level": after.mean()}
    held: dict[str, list[bool]] = {kind: [] for kind in KINDS}
    for _ in range(repetitions):
        cluster, before, after = drawn(clusters)
        sampled = sample(Quantity(before, after), cluster if robust else np.arange(len(cluster)), largest=100)
        once = Confidence()
        found = {
            "change": change(sampled, once),
            "relative": relative(sampled, once),
            "level": level(sampled.after, once, largest=100, effective=sampled.effective),
        }
        for kind, interval in found.items():
            if interval:
                held[kind].append(interval.low - 1e-9 <= truth[kind] <= interval.high + 1e-9)
    return {kind: 100 * float(np.mean(rows)) for kind, rows in held.items()}


def table(repetitions: int) -> str:
    """The table of docs/statistics.md."""
    lines = [f"| | {' | '.join(str(count) for count in CLUSTERS)} |", f"|---|{'--:|' * len(CLUSTERS)}"]
    for title in SCENARIOS:
        found = [coverage(title, count, repetitions) for count in CLUSTERS]
        lines += [f"| {title}: {kind} | {' | '.join(f'{cell[kind]:.1f}' for cell in found)} |" for kind in KINDS]
        plain = [coverage(title, count, max(repetitions // 4, 1), robust=False)["change"] for count in CLUSTERS]
        lines.append(f"| {title}: change, clusters ignored | {' | '.join(f'{cell:.1f}' for cell in plain)} |")
    return "\n".join(lines)
