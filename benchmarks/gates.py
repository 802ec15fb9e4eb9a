"""
How often the default gate gives each verdict, simulated: the table of docs/statistics.md.

    python -m benchmarks.gates [--backtests 10000]

Each backtest draws tasks that pass with known chances on both sides, repeats newly failing tasks in two
stages as ``confirm: 3`` does, and is judged by the gate itself. Only what a backtest of these counts finds
is computed once for all that find the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import click
import numpy as np
import pyarrow as pa

from beam_ray.compare import intervals
from beam_ray.compare.comparison import Comparison, compare
from beam_ray.compare.gate_file import load_gate
from beam_ray.compare.pairs import Side
from beam_ray.compare.regressions import DEFAULT_REPEATS, MOST_TESTED, Regressions, Repeats, regressions, repeats_again
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Quantity
from beam_ray.compare.verdict import judge
from beam_ray.store.parquet import to_table
from beam_ray.store.tables import OUTCOME, STEPS

GATE = load_gate("no-harm")
SIZES = (20, 50, 100, 200, 500, 1_319)
WORDS = ("PASS", "WARN", "BLOCK")
CELLS = 4_000_000
"""Tasks drawn at a time."""

Chances = tuple[np.ndarray, np.ndarray]
"""How often each task of each backtest passes: on the baseline, and on the candidate."""
Truth = Callable[[np.random.Generator, int, int], Chances]


def unchanged(flake: float, coins: float = 0.0) -> Truth:
    """Every task fails in the share *flake* of its runs, and a share *coins* of the tasks in every second one."""

    def draw(chance: np.random.Generator, backtests: int, tasks: int) -> Chances:
        passing = np.full((backtests, tasks), 1 - flake)
        passing[:, : round(coins * tasks)] = 0.5
        return passing, passing

    return draw


def broken(after: float, flake: float = 0.05) -> Truth:
    """One task passes only in the share *after* of its runs on the candidate."""

    def draw(chance: np.random.Generator, backtests: int, tasks: int) -> Chances:
        before = np.full((backtests, tasks), 1 - flake)
        after_ = before.copy()
        after_[:, 0] = after
        return before, after_

    return draw


def improved(breaks: float = 0.0, flake: float = 0.0) -> Truth:
    """From 78 to 93 % of the tasks; a share *breaks* of those that passed no longer does."""

    def draw(chance: np.random.Generator, backtests: int, tasks: int) -> Chances:
        drawn = chance.random((backtests, tasks))
        before = np.where(drawn < 0.78, 1 - flake, 0.0)
        after = np.where(drawn < 0.93, 1 - flake, 0.0)
        return before, np.where(drawn < 0.78 * breaks, 0.0, after)

    return draw


def worse(before: float, after: float) -> Truth:
    """Every task passes a little less often."""

    def draw(chance: np.random.Generator, backtests: int, tasks: int) -> Chances:
        return np.full((backtests, tasks), before), np.full((backtests, tasks), after)

    return draw


TRUTHS: Mapping[str, tuple[Truth, tuple[int, ...]]] = {
    "unchanged, no flakes": (unchanged(0.0), SIZES),
    "unchanged, flakes 2 %": (unchanged(0.02), SIZES),
    "unchanged, flakes 5 %": (unchanged(0.05), SIZES),
    "unchanged, flakes 10 %": (unchanged(0.10), SIZES),
    "unchanged, 10 % of the tasks pass every second time": (unchanged(0.0, 0.10), SIZES),
    "the same, and flakes 5 %": (unchanged(0.05, 0.10), SIZES),
    "one task breaks, 95 to 5 %, flakes 5 %": (broken(0.05), (20, 50, 200)),
    "one task half breaks, 95 to 50 %, flakes 5 %": (broken(0.50), (20, 50, 200)),
    "78 to 93 %, nothing broken": (improved(), SIZES),
    "78 to 93 %, nothing broken, flakes 5 %": (improved(0.0, 0.05), SIZES),
    "78 to 93 %, 1 % of the passing tasks break": (improved(0.01), SIZES),
    "95 to 92 % of every task's runs": (worse(0.95, 0.92), SIZES),
    "95 to 85 % of every task's runs": (worse(0.95, 0.85), SIZES),
}


class Shares(NamedTuple):
    """Percent of the backtests with each verdict."""

    passed: float
    warned: float
    blocked: float


def simulate(truth: Truth, tasks: int, backtests: int, seed: int = 1) -> Shares:
    """The verdicts of so many backtests of so many tasks."""
    chance = np.random.default_rng(seed)
    counts = dict.fromkeys(WORDS, 0)
    batch = max(1, CELLS // tasks)
    for start in range(0, backtests, batch):
        before, after = truth(chance, min(batch, backtests - start), tasks)
        passed = chance.random(before.shape) < before, chance.random(after.shape) < after
        failing = passed[0] & ~passed[1]
        confirmed = _confirmed(chance, before, after, failing)
        gained, lost = (passed[1] & ~passed[0]).sum(axis=1), failing.sum(axis=1)
        for one, other, regressed in zip(gained.tolist(), lost.tolist(), confirmed.tolist(), strict=True):
            counts[word(tasks, one, other, regressed)] += 1
    return Shares(*(100 * counts[name] / backtests for name in WORDS))


def _confirmed(chance: np.random.Generator, before: np.ndarray, after: np.ndarray, failing: np.ndarray) -> np.ndarray:
    """For each backtest how many of its newly *failing* tasks two stages of repeats confirm."""
    found = np.zeros(len(failing), dtype=int)
    rows, columns = np.nonzero(failing)
    sides = before[rows, columns], after[rows, columns]
    first = [chance.binomial(DEFAULT_REPEATS, side) for side in sides]
    kept = np.array([Repeats(one, DEFAULT_REPEATS, other, DEFAULT_REPEATS).suspects for one, other in np.ndindex(DEFAULT_REPEATS + 1, DEFAULT_REPEATS + 1)])
    doubted = np.flatnonzero(kept.reshape(DEFAULT_REPEATS + 1, -1)[first[0], first[1]])
    for row, places in _grouped(rows, doubted):
        names = [str(place) for place in places]
        once = {str(place): Repeats(int(first[0][place]), DEFAULT_REPEATS, int(first[1][place]), DEFAULT_REPEATS) for place in places}
        times = repeats_again(min(len(places), MOST_TESTED))
        again = {
            str(place): Repeats(int(chance.binomial(times, sides[0][place])), times, int(chance.binomial(times, sides[1][place])), times)
            for place in places[:MOST_TESTED]
        }
        found[row] = len(regressions(names, once, again).confirmed)
    return found


def _grouped(rows: np.ndarray, places: np.ndarray) -> list[tuple[int, list[int]]]:
    groups: dict[int, list[int]] = {}
    for place in places.tolist():
        groups.setdefault(int(rows[place]), []).append(place)
    return list(groups.items())


@cache
def word(tasks: int, gained: int, lost: int, confirmed: int) -> str:
    """The gate's word for so many newly passing, newly failing and confirmed tasks, all scores being 0 or 100."""
    change = np.zeros(tasks)
    change[:gained], change[gained : gained + lost] = 1.0, -1.0
    # how many pass on both sides matters to the targets only
    before = np.where(change < 0, 1.0, np.where(change > 0, 0.0, 1.0))
    sampled = intervals.sample(Quantity(before, before + change), np.arange(tasks), largest=1.0)
    found = intervals.change(sampled, Confidence(GATE.confidence, 0, tasks))
    assert found
    base = _base(tasks)
    moved = 100 * float(change.mean())
    replaced = tuple(
        replace(metric, change=moved, low=100 * found.low, high=100 * found.high) if metric.name in ("success_rate", "score") else metric
        for metric in base.metrics
    )
    names = tuple(f"t{index}" for index in range(confirmed))
    return judge(replace(base, metrics=replaced, regressions=Regressions(names, (), ())), GATE).word


@cache
def _base(tasks: int) -> Comparison:
    """A comparison of so many tasks in which nothing changed."""
    return compare(*(_side(name, tasks) for name in ("baseline", "candidate")))


def _side(name: str, tasks: int) -> Side:
    common = {"run_id": "run", "trial": 1, "outcome": "done", "passed": True, "score": 100.0, "output": "{}"}
    work = {"inputs": "", "labels": [], "routes": [], "auto_reruns": 0, "auto_rerun_tokens": 0, "auto_rerun_usd": 0.0}
    work |= {"first_score": 100.0, "work_seconds": 1.0, "work_calls": 1, "work_tokens": 100, "work_usd": 0.01}
    ids = [f"t{index}" for index in range(tasks)]
    outcome: pa.Table = to_table(OUTCOME, [{**common, **work, "task_id": task} for task in ids])
    steps: pa.Table = to_table(STEPS, [{**common, "task_id": task, "node": "a", "criteria": []} for task in ids])
    return Side(name, name, outcome, steps)


def table(backtests: int) -> str:
    """The table, in Markdown: PASS, WARN and BLOCK in percent."""
    lines = [f"| truth | {' | '.join(f'{size:,}' for size in SIZES)} |", f"|---|{'--:|' * len(SIZES)}"]
    for name, (truth, sizes) in TRUTHS.items():
        cells = []
        for size in SIZES:
            found = simulate(truth, size, backtests) if size in sizes else None
            cells.append(" / ".join(f"{share:.1f}".removesuffix(".0") for share in found) if found else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


@click.command()
@click.option("--backtests", default=10_000, show_default=True, help="Simulated backtests in each cell.")
def main(backtests: int) -> None:
    """Print how often the gate no-harm gives PASS, WARN and BLOCK."""
    click.echo(table(backtests))


if __name__ == "__main__":
    main()
