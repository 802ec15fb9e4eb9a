"""What earlier runs tell of tasks that fail by chance, and how repeats are sized by it."""

from beam_ray.backtest.flakiness import USUAL, flakiness
from tests.conftest import Lab

WORKFLOW = "workflow: w\nmodel: m\nnodes: {a: {llm: {prompt: '{{ task_query }}'}, evaluate: {criteria: [check: a.text == 'x']}}}"


def run(lab: Lab, failing: set[int], **how: object) -> object:
    """A run of twenty tasks in which these fail."""
    return lab.run(WORKFLOW, ["q"] * 20, lambda request: "y" if int(request.task_id[1:]) in failing else "x", **how)


def test_nothing_is_known_without_two_runs_of_one_definition(lab: Lab):
    """
    One run tells nothing of chance: the usual 5% is assumed, for each task too.
    """
    run(lab, {1})

    found = flakiness(lab.objects, "w")

    assert (None, ()) == (found.known, found.runs)
    assert USUAL == found.share == found.of("t1")


def test_repeated_runs_tell_of_the_workflow_and_of_each_task(lab: Lab):
    """
    Three runs in which four of twenty tasks fail, other ones each time but for one: about a fifth of the runs fail by chance, and that task's more often.
    """
    runs = [run(lab, failing) for failing in ({0, 1, 2, 3}, {0, 4, 5, 6}, {0, 7, 8, 9})]
    definition = runs[0].record.definition_digest

    found = flakiness(lab.objects, "w", definition, tasks={"t0", "t19"})

    assert 0.1 < found.known < 0.35
    assert ({"t0": 3, "t19": 0}, {"t0": 3, "t19": 3}) == (found.failed, found.tried)
    assert found.of("t19") < found.share < found.of("t0")


def test_runs_of_the_backtest_itself_do_not_count(lab: Lab):
    """
    A resumed backtest repeats as often as it began to, whatever its own runs found since.
    """
    runs = [run(lab, failing, backtest="w-12345678") for failing in ({0, 1}, {2, 3})]

    found = flakiness(lab.objects, "w", runs[0].record.definition_digest, "w-12345678", {"t0"})

    assert (None, {}) == (found.known, found.tried)
    assert flakiness(lab.objects, "w").known
