"""How often a backtest confirms a regression where nothing changed, and where one task broke."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from beam_ray.compare.regressions import DEFAULT_REPEATS, Repeats, regressions, repeats_again, suspected

SIZES = (20, 50, 200, 1_319)
FLAKES = ("2%", "5%", "10%", "5% of tasks pass every second time", "10% of tasks do")


class Confirmed(NamedTuple):
    """What many simulated backtests confirmed."""

    blocked: float
    """Percent of the backtests with a confirmed regression."""
    broken: float
    """Percent in which the first task is among them."""
    runs: float
    """How many runs of a task the repeats took, on average."""


def passing(tasks: int, flakes: str, broken: float | None = None) -> np.ndarray:
    """How often each task passes, on both sides; *broken* is how often the first one passes on the candidate."""
    found = np.full((2, tasks), 1.0)
    if "tasks" in flakes:
        found[:, : round(float(flakes.partition("%")[0]) / 100 * tasks)] = 0.5
        found = found[:, ::-1].copy()
    else:
        found -= float(flakes.removesuffix("%")) / 100
    if broken is not None:
        found[1, 0] = broken
    return found


def simulate(chances: np.ndarray, repetitions: int, seed: int = 1, repeats: int = DEFAULT_REPEATS) -> Confirmed:
    """Backtests of tasks that pass with these chances before and after."""
    chance = np.random.default_rng(seed)
    blocked = broken = runs = 0
    for _ in range(repetitions):
        before, after = chance.random(chances.shape) < chances
        failing = np.flatnonzero(before & ~after)
        first = _repeated(chance, chances, failing, repeats)
        names = [str(task) for task in failing]
        tested = suspected(names, first)
        more = repeats_again(len(tested))
        second = _repeated(chance, chances, [int(task) for task in tested[:20]], more)
        found = regressions(names, first, second).confirmed
        blocked += bool(found)
        broken += "0" in found
        runs += 2 * (repeats * len(failing) + more * len(second))
    return Confirmed(100 * blocked / repetitions, 100 * broken / repetitions, runs / repetitions)


def _repeated(chance: np.random.Generator, chances: np.ndarray, tasks: Sequence[int] | np.ndarray, times: int) -> dict[str, Repeats]:
    return {str(task): Repeats(int(chance.binomial(times, chances[0, task])), times, int(chance.binomial(times, chances[1, task])), times) for task in tasks}


def table(repetitions: int) -> str:
    """The table of docs/statistics.md."""
    lines = [f"| tasks | {' | '.join(FLAKES)} |", f"|--:|{'--:|' * len(FLAKES)}"]
    for tasks in SIZES:
        cells = [f"{simulate(passing(tasks, flakes), repetitions).blocked:.1f}" for flakes in FLAKES]
        lines.append(f"| {tasks:,} | {' | '.join(cells)} |")
    lines += ["", "| one of 50 tasks breaks | confirmed | runs of repeats |", "|---|--:|--:|"]
    for flakes in ("2%", "5%", "10%"):
        for broken in (0.0, 0.05, 0.5):
            found = simulate(passing(50, flakes, broken), repetitions)
            lines.append(f"| flakes {flakes}, the broken one passes {broken:.0%} | {found.broken:.1f} | {found.runs:.0f} |")
    return "\n".join(lines)
