"""How much two runs of one workflow differ task by task, from its finished runs in the store."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from beam_ray.compare.statistics import Numbers
from beam_ray.store.lookup import recent_runs
from beam_ray.store.objects import Objects
from beam_ray.store.runs import Run

NEWEST_RUNS = 8
LEAST_TASKS = 10
COLUMNS = ["task_id", "trial", "passed", "score", "inputs", "steps_done"]


@dataclass(frozen=True)
class Scatter:
    """Two samples of tasks, one trial each: how much they differ beyond the net change. Medians over pairs of runs."""

    flips: float
    """The share of tasks that pass in one and fail in the other, without those that make the net change."""
    score_sd: float | None
    """Standard deviation of the difference of scores, in points, likewise; None without scores."""


@dataclass(frozen=True)
class Discordance:
    """What finished runs of a workflow tell about the runs that a backtest compares."""

    runs: tuple[str, ...]
    tasks: int
    """Pairs of results that were compared."""
    of_changes: Scatter | None
    """Between runs of different definitions."""
    of_noise: Scatter | None
    """Between runs or trials of the same definition, with nothing changed."""

    @property
    def usual(self) -> Scatter:
        """What a backtest of a change will find, as far as is known: no less than flips without a change."""
        known = [found for found in (self.of_changes, self.of_noise) if found]
        return max(known, key=lambda found: found.flips)


def discordance(objects: Objects, workflow: str, leaving_out: str = "") -> Discordance | None:
    """
    What the newest finished runs of *workflow* over common tasks tell, but for those of the backtest *leaving_out*.

    None where no two results of ten tasks can be compared.
    """
    usable = (run for run in recent_runs(objects) if _usable(run, workflow) and not (leaving_out and run.record.backtest == leaving_out))
    runs = list(islice(usable, NEWEST_RUNS))
    samples = {run.run_id: _samples(run) for run in runs}
    pairs = [(run, run, *two) for run in runs for two in combinations(samples[run.run_id], 2)]
    pairs += [(after, before, samples[before.run_id][0], samples[after.run_id][0]) for after, before in combinations(runs, 2)]
    used, tasks = dict[str, None](), 0
    changes, noise = list[Scatter](), list[Scatter]()
    for after, before, one, other in pairs:
        same = after.record.definition_digest == before.record.definition_digest
        found, count = _compared(one, other, same)
        if found:
            (noise if same else changes).append(found)
            used.update({after.run_id: None, before.run_id: None})
            tasks += count
    return Discordance(tuple(used), tasks, _median(changes), _median(noise)) if used else None


def _usable(run: Run, workflow: str) -> bool:
    if run.workflow != workflow:
        return False
    record = run.record
    # reruns and repeats are of tasks that were chosen for what became of them
    whole = record.mode in ("run", "baseline", "candidate") and not record.start_node and not record.ruler_only
    return whole and record.tasks >= LEAST_TASKS and run.finished


def _samples(run: Run) -> list[pa.Table]:
    """The run's results, one table per trial."""
    table = run.outcome(COLUMNS)
    return [table.filter(pc.equal(table["trial"], trial)) for trial in range(1, run.record.trials + 1)]


def _compared(one: pa.Table, other: pa.Table, same: bool) -> tuple[Scatter | None, int]:
    """How two samples differ over the tasks that both executed on the same inputs, and how many those are."""
    columns = ["task_id", "inputs", "passed", "score", "steps_done"]
    both = one.select(columns).join(other.select(columns), keys=["task_id", "inputs"], join_type="inner", right_suffix="_2")
    # a row that is borrowed as a whole is a copy and no second sample
    both = both.filter(pc.and_(pc.greater(both["steps_done"], 0), pc.greater(both["steps_done_2"], 0)))
    if both.num_rows < LEAST_TASKS:
        return None, 0
    passed = [np.asarray(pc.fill_null(both[name], False).to_numpy(zero_copy_only=False), dtype=float) for name in ("passed", "passed_2")]
    scores = [np.asarray(both[name].to_numpy(zero_copy_only=False), dtype=float) for name in ("score", "score_2")]
    difference = scores[1] - scores[0]
    difference = difference[~np.isnan(difference)]
    return Scatter(_flips(passed[1] - passed[0], same), _spread(difference, same) if len(difference) else None), int(both.num_rows)


def _flips(change: Numbers, same: bool) -> float:
    """
    The share of tasks that flip beyond the net change: 16 that got better and one that got worse are an effect and two flips.

    Of samples of the *same* definition all flips count. Two more tasks flip, one each way: of few tasks without a flip nobody
    knows that none will.
    """
    flipped = float(np.abs(change).sum())
    net = 0.0 if same else math.sqrt(max(0.0, float(change.sum()) ** 2 - flipped))
    return (flipped - net + 2) / (len(change) + 2)


def _spread(difference: Numbers, same: bool) -> float:
    sizes = np.unique(np.abs(difference[difference != 0]))
    largest = float(sizes.max(initial=0.0)) or 100.0
    if len(sizes) <= 1:
        # all or nothing: as for passing and failing
        return largest * math.sqrt(_flips(difference / largest, same))
    return float(np.append(difference, difference.mean() + np.array([largest, -largest])).std())


def _median(found: Sequence[Scatter]) -> Scatter | None:
    if not found:
        return None
    spreads = [each.score_sd for each in found if each.score_sd is not None]
    return Scatter(float(np.median([each.flips for each in found])), float(np.median(spreads)) if spreads else None)
