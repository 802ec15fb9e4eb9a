"""
``rerun: fresh``: the best candidate and the baseline once more, over tasks that the comparison did not use.

Nobody chose the candidate by these tasks, so its gain there is not inflated, and PASS there
needs no correction for the number of candidates. The verdict of the backtest is that of the
rerun, whatever the comparison said, except that a candidate that the comparison blocks is not run again.
"""

import dataclasses
from collections.abc import Sequence

from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import Resolved, Side, as_judged
from beam_ray.compare.formatting import plural
from beam_ray.compare.report import Result
from beam_ray.compare.verdict import WORST_FIRST
from beam_ray.run.plan import Plan, make_plan


def rerun_of(backtest: Backtest, side: Side) -> Backtest:
    """The rerun of a candidate over the backtest's fresh tasks; its runs are sides of the same backtest, and share its budget."""
    assert backtest.fresh_tasks is not None
    resolved = backtest.resolved
    made = Backtest(
        backtest.objects,
        Resolved(resolved.spec, resolved.folder, as_judged(resolved.baseline, side), (side,)),
        backtest.fresh_tasks,
        backtest.source,
        backtest.models,
        backtest.address,
        backtest.takeover,
        allow_writes=backtest.allow_writes,
        progress=backtest.progress,
        execute=backtest.execute,
        confirms=backtest.backtest_id,
    )
    made.connection = backtest.connection
    return made


def chosen(results: Sequence[Result], sides: Sequence[Side]) -> Side | None:
    """The candidate to run again: the one with the best word, not corrected, and the highest score; None where all are blocked."""
    ranked = [(WORST_FIRST.index(verdict.own_word or verdict.word), comparison.metric("score").after or 0.0) for comparison, verdict in results]
    best = max(range(len(ranked)), key=lambda index: ranked[index])
    return None if (results[best].verdict.own_word or results[best].verdict.word) == "BLOCK" else sides[best]


def announce(backtest: Backtest, side: Side | None) -> None:
    """Say which candidate is run again, and let its use of the fresh tasks be noted."""
    assert backtest.fresh_tasks is not None
    if side is None:
        backtest.say("every candidate is blocked, so none is run again on fresh tasks")
        return
    best = "" if len(backtest.resolved.candidates) == 1 else f", the best of {len(backtest.resolved.candidates)} candidates,"
    backtest.say(f"{side.name}{best} is run again on {plural(backtest.fresh_tasks.num_rows, 'task')} that the comparison did not use")
    backtest.before_rerun(side)


def check_fresh_tasks(backtest: Backtest) -> None:
    """
    Check before anything is spent that each side can be run over the fresh tasks.

    Raises:
        BadDefinition: a task does not fit the inputs.
    """
    if backtest.fresh_tasks is not None:
        for side in (backtest.resolved.baseline, *backtest.resolved.candidates):
            make_plan(side.workflow, backtest.fresh_tasks, backtest.models, source=backtest.source)


def rerun_plans(backtest: Backtest) -> list[tuple[Side, Plan | None, str]]:
    """What the rerun costs at most: the baseline over the fresh tasks, and the dearest candidate, or the one that is being run again."""
    if backtest.fresh_tasks is None:
        return []
    made = [(rerun, rerun.plans()) for rerun in (rerun_of(backtest, side) for side in backtest.resolved.candidates)]
    begun = [plans for rerun, plans in made if rerun.known_run(rerun.resolved.candidates[0].name)]
    plans = begun[0] if begun else max((plans for _, plans in made), key=_cost)
    return [(dataclasses.replace(side, name=f"{side.name} on fresh tasks"), plan, run_id) for side, plan, run_id in plans]


def _cost(plans: Sequence[tuple[Side, Plan | None, str]]) -> tuple[float, int]:
    made = [plan for _, plan, _ in plans if plan]
    return sum(plan.usd or 0.0 for plan in made), sum(plan.calls for plan in made)
