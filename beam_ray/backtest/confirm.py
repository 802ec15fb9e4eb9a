"""Repeating the newly failing tasks of a candidate, and those that fail again once more."""

from beam_ray.backtest.flakiness import Flakiness, flakiness
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import Side
from beam_ray.compare.compare_runs import repeats_of, with_repeats
from beam_ray.compare.comparison import Comparison
from beam_ray.compare.formatting import plural
from beam_ray.compare.regressions import MOST_TESTED, first_repeats, repeats_again, suspected
from beam_ray.define.fingerprint import digest
from beam_ray.store.runs import Run


def confirm(backtest: Backtest, side: Side, before: Run, after: Run, found: Comparison) -> Comparison:
    """*found*, with its newly failing tasks divided by repeats into regressions and noise."""
    failing = list(found.newly_failing)
    known = flakiness(backtest.objects, before.record.workflow, before.record.definition_digest, backtest.backtest_id, set(failing))
    times = times_of(backtest.resolved.spec.confirm, known)
    names = repeated_names(side)
    backtest.say(f"{plural(len(failing), 'newly failing task')} of {side.name}: repeated {times} times on both sides")
    runs = [backtest.repeats(name, run, failing, times) for name, run in zip(names[:2], (before, after), strict=True)]
    doubted = suspected(failing, repeats_of(before.record.trials, *runs))
    # of too many, those are repeated again whom their names draw, so that a resumed backtest draws the same
    tested = sorted(doubted, key=lambda task: digest("suspected/1", backtest.backtest_id, task))[:MOST_TESTED]
    if tested:
        flake = max(known.of(task) for task in tested)
        more = repeats_again(len(tested), flake)
        why = f", because up to {100 * flake:.0f}% of their runs fail by chance" if more > repeats_again(len(tested)) else ""
        backtest.say(f"{plural(len(tested), 'task')} of {side.name} failed again: repeated {more} times more on both sides{why}")
        runs += [backtest.repeats(name, run, tested, more) for name, run in zip(names[2:], tuple(runs), strict=True)]
    return with_repeats(found, before.record.trials, runs)


def times_of(confirm: int | str, known: Flakiness) -> int:
    """How often each newly failing task is repeated at first; ``auto`` goes by how flaky the workflow is known to be."""
    return first_repeats(known.share) if isinstance(confirm, str) else confirm


def repeated_names(side: Side) -> tuple[str, ...]:
    """The names of the runs that repeat newly failing tasks, the baseline's first, and of those that repeat suspected ones again."""
    names = f"baseline-for-{side.name}-repeats", f"{side.name}-repeats"
    return (*names, *(f"{name}-again" for name in names))
