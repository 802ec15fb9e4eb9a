"""
When is a newly failing task a regression? When repeats say so, twice.

One run of a workflow in which every twentieth answer is a flake finds a "regression" in 92 of
100 backtests of 50 tasks without any change. So each newly failing task is repeated on both
sides, and it is suspected when the candidate fails most of its repeats while the baseline passes
at least half of its own. Among many tasks, or where some pass only every second time, that
still happens by chance. So the suspected ones, seldom more than one or two, are repeated once
more, eight times or a little more a side, and confirmed by Fisher's exact test of these repeats
alone, at 2.5% over their number. docs/statistics.md has the error rates.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

DEFAULT_REPEATS = 3
MOST_TESTED = 20
"""Suspected tasks that are repeated again. Where there are more, the others follow what most of these are."""
LEVEL = 0.025
_FEWEST, _MOST = 8, 24
CAUGHT = 0.95
"""How often the repeats confirm a task that breaks, at least, if it still passes in the share BROKEN of its runs."""
BROKEN = 0.05


class Repeats(NamedTuple):
    """How often a task passed when it was repeated on both sides."""

    baseline_passed: int
    baseline_repeats: int
    candidate_passed: int
    candidate_repeats: int

    @property
    def suspects(self) -> bool:
        """Whether the candidate failed most repeats, and the baseline passed at least half."""
        candidate_fails = 2 * self.candidate_passed < self.candidate_repeats
        return candidate_fails and self.baseline_repeats > 0 and 2 * self.baseline_passed >= self.baseline_repeats

    @property
    def made(self) -> bool:
        """Whether both sides were repeated at all."""
        return self.baseline_repeats > 0 and self.candidate_repeats > 0

    @property
    def p(self) -> float:
        """Fisher's exact one-sided test: how often the candidate passes as seldom as here if it is no worse."""
        passed, total = self.baseline_passed + self.candidate_passed, self.baseline_repeats + self.candidate_repeats
        ways = sum(math.comb(self.candidate_repeats, here) * math.comb(self.baseline_repeats, passed - here) for here in range(self.candidate_passed + 1))
        return ways / math.comb(total, passed)


class Regressions(NamedTuple):
    """The newly failing tasks, divided by what their repeats say."""

    confirmed: tuple[str, ...]
    noise: tuple[str, ...]
    """Repeated, and not confirmed."""
    unrepeated: tuple[str, ...]
    """Not repeated, or suspected and not repeated again."""


def suspected(newly_failing: Iterable[str], first: Mapping[str, Repeats]) -> tuple[str, ...]:
    """The newly failing tasks that failed their first repeats too."""
    return tuple(task for task in newly_failing if task in first and first[task].made and first[task].suspects)


def first_repeats(flake: float) -> int:
    """How often a newly failing task is repeated at first: often enough to suspect one that breaks, when the baseline fails in the share *flake* of its runs."""
    return next((count for count in (3, 5, 7, 9) if _chance(count, flake, lambda repeats: repeats.suspects) >= CAUGHT), 9)


def repeats_again(tested: int, flake: float = 0.0) -> int:
    """
    How often a side repeats each of so many suspected tasks.

    Often enough to confirm one that breaks, with a flake of the baseline and two of the candidate; and, when the baseline
    fails in the share *flake* of its runs, in 95 of 100 cases.
    """
    level = LEVEL / max(tested, 1)
    least = next((count for count in range(_FEWEST, _MOST) if Repeats(count - 1, count, 2, count).p <= level), _MOST)
    return next((count for count in range(least, _MOST) if _chance(count, flake, lambda repeats: repeats.p <= level) >= CAUGHT), _MOST)


def _chance(count: int, flake: float, holds: Callable[[Repeats], bool]) -> float:
    """How often so many repeats a side of a task that breaks are as *holds* says."""

    def times(passed: int, passing: float) -> float:
        return math.comb(count, passed) * passing**passed * (1 - passing) ** (count - passed)

    return sum(
        times(before, 1 - flake) * times(after, BROKEN)
        for before in range(count + 1)
        for after in range(count + 1)
        if holds(Repeats(before, count, after, count))
    )


def regressions(
    newly_failing: Sequence[str],
    first: Mapping[str, Repeats],
    second: Mapping[str, Repeats] | None = None,
) -> Regressions:
    """
    Divide the newly failing tasks; each is in exactly one of the three parts.

    Args:
        first: the repeats of each.
        second: those of suspected tasks; without any, nothing that is suspected is confirmed.
    """
    second = second or {}
    doubted = suspected(newly_failing, first)
    tested = [task for task in doubted if task in second and second[task].made]
    shown = {task for task in tested if second[task].p <= LEVEL / len(tested)}
    rest = set(doubted) - set(tested)
    confirmed = shown | (rest if 2 * len(shown) > len(tested) else set())
    open_ = {task for task in newly_failing if task not in first or not first[task].made} | (rest - confirmed)
    return Regressions(
        tuple(task for task in newly_failing if task in confirmed),
        tuple(task for task in newly_failing if task not in confirmed and task not in open_),
        tuple(task for task in newly_failing if task in open_),
    )
