"""What waits for a person, and when enough is reviewed."""

from collections.abc import Callable
from functools import partial

import pytest

from beam_ray import ReviewSample
from beam_ray.review.correction import Strata, corrected_rate, reviews_needed
from tests.commands import CommandResult, run_command
from tests.conftest import Lab
from tests.evaluate.test_panel import judge, panel_run
from tests.review.judged import judged_run, model, opened, workflow

FLAGGED = workflow().rstrip() + "\n    auto_rerun: {max: 1, on_exhausted: review}\n"


def test_flagged_outputs_wait_until_somebody_reviews_them(lab: Lab) -> None:
    """Each flagged task counts until one person has answered; a run whose workflow flags nothing waits for nobody."""
    judged_run(lab, 3, lambda number: False)
    run = lab.run(lab.workflow(FLAGGED), [f"question {number}" for number in range(6)], model(lambda number: number % 3 > 0))
    store = opened(lab)
    before = store.tasks_to_review()
    flagged, random = store.review_sources()
    queue = store.review_queue("replies", run=run.run_id, sample=ReviewSample("flagged"))
    store.record_review(queue.items[0], {"polite": True}, reviewer="ann")

    assert (before, store.tasks_to_review()) == (2, 1)
    assert (flagged.how, flagged.outputs, flagged.reviewed, flagged.criteria) == ("flagged", 2, 0, ("polite",))
    assert (random.how, random.run_id, random.outputs) == ("random", run.run_id, 6)
    assert [(each.how, each.reviewed, each.waiting) for each in store.review_sources()] == [("flagged", 1, 1), ("random", 1, 5)]


def test_a_panel_that_disagrees_waits_for_a_person(lab: Lab) -> None:
    """Outputs of which the judges of a panel say different things are a source of their own."""
    run = panel_run(lab, workflow("[a, b]"), {"a": judge(True, True, False), "b": judge(True)})
    sources = opened(lab).review_sources()

    assert [(each.how, each.run_id, each.outputs) for each in sources] == [("disagreed", run.run_id, 2), ("random", run.run_id, 6)]


@pytest.mark.parametrize("strata", [Strata((50, 350), (10, 30), (2, 27)), Strata((200, 200), (20, 20), (4, 15))])
def test_reviews_needed_are_the_fewest_that_reach_it(strata: Strata) -> None:
    """With so many of the same kind the interval is narrow enough, with one fewer it is not."""
    needed = reviews_needed(strata, 0.05)

    assert needed is not None
    assert needed > sum(strata.reviewed)
    assert _half(strata, needed) <= 0.05 < _half(strata, needed - 1)


def test_too_few_tasks_are_never_enough() -> None:
    """Where the tasks themselves scatter by more than that, no number of reviews reaches it."""
    assert reviews_needed(Strata((10, 17), (5, 5), (1, 4)), 0.05) is None


def _half(strata: Strata, count: int) -> float:
    factor = count / sum(strata.reviewed)
    found = corrected_rate(Strata(strata.judged, (strata.reviewed[0] * factor, strata.reviewed[1] * factor), (strata.met[0] * factor, strata.met[1] * factor)))
    return (found.high - found.low) / 2


@pytest.fixture
def give(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives commands in a folder whose store has a run of 12 judged tasks."""
    judged_run(lab, 12, lambda number: number % 3 > 0)
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    return partial(run_command, capsys)


def test_one_answer_is_recorded_by_a_command(give: Callable[..., CommandResult], lab: Lab) -> None:
    """What the console's buttons do can be typed: the answer has its sample's probability, and whether the judge was seen."""
    [source] = give("review", "waiting", "--json").json
    item = opened(lab).review_queue("replies", sample=None).items[0]
    first = give("review", "record", "replies", "--output", item.address, "--met", "polite=no", "--comment", "curt", "--reviewer", "ann")
    again = give("review", "record", "replies", "--output", item.address, "--met", "polite=?", "--reviewer", "ann", "--judge-seen")
    wrong = give("review", "record", "replies", "--output", item.address, "--met", "polite=maybe")
    rows = opened(lab).reviews().to_pylist()

    assert (source["how"], source["outputs"], source["reviewed"]) == ("random", 12, 0)
    assert (first.code, again.code, wrong.code) == (0, 0, 2)
    assert "yes, no or ?" in wrong.err
    assert [(row["met"], row["comment"], row["hidden"], row["probability"]) for row in rows] == [(False, "curt", True, 1.0), (None, None, False, 1.0)]
