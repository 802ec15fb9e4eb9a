"""
When is a newly failing task a regression? When repeats say so.

One repeat of a workflow in which every twentieth answer is a flake finds a "regression" in
92 of 100 backtests of 50 tasks without any change. So each newly failing task is repeated
on both sides, and it is confirmed when the candidate fails most of its repeats while the
baseline passes at least half of its own. With three repeats and 5 % of flakes an unchanged
workflow is blocked in 2 of 100 backtests, and a task that broke is confirmed in 98 of 100.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

DEFAULT_REPEATS = 3


class Repeats(NamedTuple):
    """How often a task passed when it was repeated on both sides."""

    baseline_passed: int
    baseline_repeats: int
    candidate_passed: int
    candidate_repeats: int

    @property
    def confirms(self) -> bool:
        """Whether the repeats make a newly failing task a regression."""
        candidate_fails = 2 * self.candidate_passed < self.candidate_repeats
        return candidate_fails and self.baseline_repeats > 0 and 2 * self.baseline_passed >= self.baseline_repeats

    @property
    def made(self) -> bool:
        """Whether both sides were repeated at all."""
        return self.baseline_repeats > 0 and self.candidate_repeats > 0


class Regressions(NamedTuple):
    """The newly failing tasks, divided by what their repeats say."""

    confirmed: tuple[str, ...]
    noise: tuple[str, ...]
    """Repeated, and not confirmed."""
    unrepeated: tuple[str, ...]


def regressions(newly_failing: Sequence[str], confirmations: Mapping[str, tuple[int, int, int, int]]) -> Regressions:
    """Divide the newly failing tasks; each is in exactly one of the three parts."""
    repeats = {task: Repeats(*confirmations.get(task, (0, 0, 0, 0))) for task in newly_failing}
    return Regressions(
        tuple(task for task, found in repeats.items() if found.made and found.confirms),
        tuple(task for task, found in repeats.items() if found.made and not found.confirms),
        tuple(task for task, found in repeats.items() if not found.made),
    )
