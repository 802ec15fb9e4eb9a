"""What repeating newly failing tasks may cost, before anything is run."""

from dataclasses import dataclass
from typing import TypedDict

from beam_ray.backtest.confirm import times_of
from beam_ray.backtest.flakiness import flakiness
from beam_ray.backtest.sides import Backtest as Engine
from beam_ray.compare.regressions import MOST_TESTED, repeats_again
from beam_ray.run.plan import make_plan


class RepeatsPlanDocument(TypedDict):
    """What repeats may cost, as ``--json`` prints it."""

    times: int
    flakes: float | None
    expected_runs: int | None
    most_runs: int
    most_calls: int
    most_usd: float | None


@dataclass(frozen=True)
class RepeatsPlan:
    """What ``confirm`` may cost: repeats of newly failing tasks, and of those that are suspected once more."""

    times: int
    """How often each newly failing task is repeated at first, on both sides."""
    flakes: float | None
    """Percent of a task's runs that fail by chance, from earlier runs; None where these do not tell."""
    expected_runs: int | None
    """Runs of a task where nothing breaks, on average; None where earlier runs do not tell."""
    most_runs: int
    """Runs of a task if every task is newly failing on every candidate, and suspected."""
    most_calls: int
    """Model calls of these, at most."""
    most_usd: float | None
    """US dollars of these, at most; None when a model has no price."""

    def document(self) -> RepeatsPlanDocument:
        """The numbers as a JSON document."""
        return {
            "times": self.times,
            "flakes": self.flakes,
            "expected_runs": self.expected_runs,
            "most_runs": self.most_runs,
            "most_calls": self.most_calls,
            "most_usd": self.most_usd,
        }


def plan_repeats(engine: Engine) -> RepeatsPlan | None:
    """What the backtest's ``confirm`` may cost; None without it."""
    spec = engine.resolved.spec
    if not spec.confirm:
        return None
    known = flakiness(engine.objects, engine.resolved.baseline.workflow.name, backtest=engine.backtest_id)
    times, tasks = times_of(spec.confirm, known), engine.tasks.num_rows
    tested = min(tasks, MOST_TESTED)
    both = times * tasks + repeats_again(tested, known.share) * tested
    calls, usd = 0.0, list[float | None]()
    for side in engine.resolved.candidates:
        for plan in (make_plan(each.workflow, engine.tasks, engine.models) for each in (engine.resolved.baseline, side) if not each.recorded):
            ratio = both / max(plan.record.rows, 1)
            calls += ratio * plan.calls
            usd.append(None if plan.usd is None else ratio * plan.usd)
    candidates = len(engine.resolved.candidates)
    expected = None
    if known.known is not None:
        # a task passes on the baseline and fails on the candidate, or neither
        failing = tasks * known.share * (1 - known.share)
        expected = round(candidates * failing * 2 * times)
    total = None if None in usd else sum(each for each in usd if each is not None)
    return RepeatsPlan(times, None if known.known is None else round(100 * known.share, 6), expected, 2 * candidates * both, round(calls), total)
