"""What the default gate promises, simulated: the table of docs/statistics.md in small."""

import pytest

from beam_ray.compare.comparison import compare
from beam_ray.compare.regressions import Repeats
from beam_ray.compare.verdict import judge
from benchmarks.gates import GATE, broken, improved, simulate, unchanged, word
from tests.compare.sides import scored

BACKTESTS = 1_000


@pytest.mark.parametrize("truth", [unchanged(0.0), unchanged(0.05), unchanged(0.10), unchanged(0.0, 0.10)])
@pytest.mark.parametrize("tasks", [20, 200, 1_319])
def test_an_unchanged_workflow_is_rarely_blocked(truth, tasks):
    """
    However flaky it is, and however many tasks there are, at most 2 of 100 backtests without any change block.
    """
    assert simulate(truth, tasks, BACKTESTS).blocked <= 2.0


def test_more_tasks_pass_what_is_unchanged():
    """
    A loss of more than 5 points is excluded by 500 tasks nearly always, and by 20 never: these warn.
    """
    few, many = (simulate(unchanged(0.02), tasks, BACKTESTS) for tasks in (20, 500))

    assert few.warned >= 99
    assert many.passed >= 98


def test_a_broken_task_of_fifty_is_caught():
    """
    A task that passes in 95 % of its runs and now in 5 % blocks at least 85 of 100 backtests; the others mostly did not see it fail, or it failed before.
    """
    assert simulate(broken(0.05), 50, BACKTESTS).blocked >= 85


@pytest.mark.parametrize("tasks", [50, 200])
def test_an_improvement_that_breaks_nothing_passes(tasks):
    """
    From 78 to 93 % with nothing broken, at least 99 of 100 backtests of 50 tasks or more pass.
    """
    assert simulate(improved(), tasks, BACKTESTS).passed >= 99


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (8, 1), (2, 9), (0, 12), (1, 3)])
def test_the_simulation_is_judged_as_a_comparison_is(gained, lost):
    """
    The word of so many newly passing and failing tasks is that of a comparison in which these flip, with repeats that call them noise.
    """
    before = [0.0] * gained + [100.0] * (60 - gained)
    after = [100.0] * gained + [0.0] * lost + [100.0] * (60 - gained - lost)
    found = compare(scored("a", before), scored("b", after))
    noise = {task: Repeats(3, 3, 3, 3) for task in found.newly_failing}

    assert word(60, gained, lost, 0) == judge(found.confirmed(noise), GATE).word
