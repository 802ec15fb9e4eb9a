"""Running a backtest from look to look, until its verdict is settled."""

import contextlib
from collections.abc import Callable

from beam_ray.backtest.rescored_baseline import rescored_name
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import Side
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.gate import Gate
from beam_ray.compare.multiplicity import corrected_confidence
from beam_ray.compare.verdict import settled
from beam_ray.compare.verdict_json import Word
from beam_ray.store.runs import Run

Look = Callable[[Gate, Side, Run, Run, int], Comparison]
"""Compares the baseline with a candidate over the first so many tasks, with intervals of the gate's confidence."""


def run_interim_analyses(backtest: Backtest, gate: Gate, baseline: Run, look: Look) -> None:
    """
    Bring each candidate to the look that settles its verdict, and end its run there.

    Sides go from look to look together, so that of both nothing more is paid for. A look is
    after a fixed number of tasks: whoever goes on after a crash decides as it was decided.
    The baseline ends where the last candidate did.
    """
    most = 0
    with backtest.driving("baseline", baseline) as baseline_to:
        for side in backtest.resolved.candidates:
            run = backtest.candidate(side, baseline)
            before = backtest.rescored_baseline(side, baseline)
            with contextlib.ExitStack() as stack:
                sides = [baseline_to, stack.enter_context(backtest.driving(side.name, run))]
                if before.run_id != baseline.run_id:
                    sides.append(stack.enter_context(backtest.driving(rescored_name(side), before)))
                for tasks in [] if run.finished or run.record.cut_from else [*backtest.pauses, run.record.tasks]:
                    for to in sides:
                        to(tasks)
                    looked = (side, before, run, tasks)
                    word = _settled(backtest, gate, look, looked) if tasks < run.record.tasks else None
                    if word:
                        backtest.say(f"{side.name}: settled after {tasks:,} of {backtest.tasks.num_rows:,} tasks, {word}")
                        _cut(run, tasks)
                        break
                if before.run_id != baseline.run_id:
                    _cut(before, run.record.tasks)
            most = max(most, run.record.tasks)
    _cut(baseline, most)


def _settled(backtest: Backtest, gate: Gate, look: Look, at: tuple[Side, Run, Run, int]) -> Word | None:
    """The word that more tasks would not change; PASS of one of several candidates only where it also holds among all of them."""
    candidates, found = len(backtest.resolved.candidates), look(gate, *at)
    backtest.on_analysis(at[0], found)
    word = settled(found, gate)
    if word != "PASS" or candidates < 2:
        return word
    sharper = gate.model_copy(update={"confidence": corrected_confidence(gate.confidence, candidates)})
    return word if settled(look(sharper, *at), sharper) == word else None


def _cut(run: Run, tasks: int) -> None:
    if not run.finished and run.record.early:
        run.cut(sum(start < tasks * run.record.trials for start, _ in run.record.shards))
