"""Judges beside people: figures with intervals from random samples, and every disagreement one by one."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

import beam_ray
from beam_ray.improve.execute_plan import PlanExecutor
from beam_ray.improve.reviewed_criteria import reports_of, reviews_of
from beam_ray.llm import ScriptedModel
from beam_ray.review.correction import Strata, corrected_change, corrected_rate, errors, judged_rate, transported_change, transported_rate
from beam_ray.review.judge_report import JudgeReport
from beam_ray.review.reviewed import resolved
from beam_ray.store.reviews import newest_reviews
from benchmarks.coverage.judges import TRUTHS, measure
from tests.conftest import Lab
from tests.improve.scripted import here
from tests.review.judged import answer_all, judged_run, opened, verdict, workflow


def says(number: int) -> bool:
    """The judge passes four of five."""
    return number % 5 > 0


def truth(number: int) -> bool:
    """Right about most: it passes t1, t11, t21, … falsely and fails t10, t20, … falsely."""
    return says(number) if number % 10 > 1 or number == 0 else not says(number)


def review(store: beam_ray.Store, people: Callable[[int], bool | None], reviewer: str = "ann", **how) -> list[str]:
    """Answer a sample; the addresses."""
    queue = store.review_queue("replies", sample=beam_ray.ReviewSample(**how))
    answer_all(store, Path(store.uri).parent, queue, people, reviewer)
    return [item.address for item in queue.items]


def test_figures_are_those_of_the_table(lab: Lab) -> None:
    """All 60 outputs reviewed: kappa as scikit-learn computes it, sensitivity and specificity as counted, the constant judge beside them."""
    judged_run(lab, 60, says)
    store = opened(lab)
    review(store, truth, count=60)

    [report] = store.review_agreement("replies")
    words, people = [says(number) for number in range(60)], [truth(number) for number in range(60)]
    right, false_pass, false_failure, unmet = report.counts
    assert (right, false_pass, false_failure, unmet) == tuple(
        sum(pair == wanted for pair in zip(words, people, strict=True)) for wanted in ((True, True), (True, False), (False, True), (False, False))
    )
    assert report.errors is not None and report.errors.kappa is not None and report.errors.sensitivity is not None and report.errors.specificity is not None
    assert report.errors.kappa.value == pytest.approx(cohen_kappa_score(words, people))
    assert report.errors.agreement.value == pytest.approx((right + unmet) / 60)
    assert report.errors.sensitivity.value == pytest.approx(right / (right + false_failure))
    assert report.errors.specificity.value == pytest.approx(unmet / (unmet + false_pass))
    assert report.errors.constant == pytest.approx(max(sum(people), 60 - sum(people)) / 60)
    for figure in (report.errors.kappa, report.errors.agreement, report.errors.sensitivity, report.errors.specificity):
        assert figure.low < figure.value < figure.high


def test_disagreements_are_listed_one_by_one(lab: Lab) -> None:
    """False passes and false failures with address, reviewer and comment; chosen outputs are listed but give no rates."""
    run = judged_run(lab, 60, says)
    store = opened(lab)
    review(store, truth, how="chosen", tasks=("t1", "t10", "t3"))

    [report] = store.review_agreement("replies")
    assert [(each.address, each.reviewers, each.comment, each.drawn) for each in report.false_passes] == [
        (f"{run.run_id}/t1/reply", ("ann",), "look again", False)
    ]
    assert [each.address for each in report.false_failures] == [f"{run.run_id}/t10/reply"]
    assert (report.outputs, report.drawn, report.errors) == (3, 0, None)


def test_a_balanced_sample_gives_the_rates_of_all_outputs(lab: Lab) -> None:
    """Half of the reviewed outputs are failed by the judge, a fifth of all are: agreement and corrected rate are those of all."""
    judged_run(lab, 100, says)
    store = opened(lab)
    review(store, lambda number: number % 10 > 0, how="balanced", count=40)

    [report] = store.review_agreement("replies")
    assert report.errors is not None and report.errors.sensitivity is not None and report.corrected_rate is not None and report.judged_rate is not None
    # of the twenty that the judge fails ten are met, all reviewed; all that it passes are met
    assert report.strata is not None and [*map(pytest.approx, report.strata)] == [(20, 80), (20, 20), (10, 20)]
    assert {each.weight for each in resolved(newest_reviews(lab.objects, "replies")).outputs} == {1.0, 4.0}
    assert report.errors.agreement.value == pytest.approx(0.9)
    assert report.errors.sensitivity.value == pytest.approx(80 / 90)
    assert (report.judged_rate.value, report.corrected_rate.value) == (pytest.approx(0.8), pytest.approx(0.9))


def test_what_people_cannot_decide_is_left_out_and_said(lab: Lab) -> None:
    """Nobody could tell, reviewers tie: counted, and in no rate; of three people two decide."""
    judged_run(lab, 10, says)
    store = opened(lab)
    review(store, lambda number: None if number == 2 else True, "ann", count=10)
    review(store, lambda number: None if number == 2 else number != 3, "bob", count=10)
    review(store, lambda number: False, "cem", how="chosen", tasks=("t4",))

    [report] = store.review_agreement("replies")
    assert (report.outputs, report.unsure, report.tied) == (8, 1, 1)
    assert report.reviewers == (("ann", 10), ("bob", 10), ("cem", 1))
    assert {(pair.one, pair.other): (pair.same, pair.outputs) for pair in report.between} == {
        ("ann", "bob"): (8, 9),
        ("ann", "cem"): (0, 1),
        ("bob", "cem"): (0, 1),
    }
    assert [(sample.how, sample.reviewed, sample.population) for sample in report.samples] == [("random", 10, 10), ("chosen", 1, None)]


def test_each_version_and_judge_is_reported_by_itself(lab: Lab) -> None:
    """A reworded criterion is another question; reviews of the old one say nothing of it."""
    judged_run(lab, 20, says)
    store = opened(lab)
    review(store, truth, count=20)
    lab.run(lab.workflow(REWORDED), [f"question {number}" for number in range(20)], model_of_reworded)
    review(store, lambda number: True, count=5)

    reports = store.review_agreement("replies")
    assert [(report.text, report.answers) for report in reports] == [("The reply is polite.", 20), ("The reply is polite and short.", 5)]
    assert len({report.version for report in reports}) == len({report.judge_version for report in reports}) == 2


REWORDED = """
workflow: replies
model: m
nodes:
  reply:
    llm: {prompt: "reply to {{ task_query }}"}
    evaluate: {criteria: [{id: polite, text: The reply is polite and short.}]}
"""


def model_of_reworded(request: beam_ray.Request) -> object:
    return {"criterion_1": {"reason": "", "met": True}} if request.judges else "reply"


def test_intervals_never_close_and_stay_where_they_can_be() -> None:
    """With no error seen, and with a stratum that nobody reviewed."""
    perfect = errors(Strata((10, 40), (10, 40), (0, 40)))
    assert perfect.kappa is not None and perfect.sensitivity is not None
    assert (perfect.kappa.value, perfect.kappa.high) == (1, 1) and 0.7 < perfect.kappa.low < 0.99
    assert perfect.sensitivity.low < 0.97 and perfect.sensitivity.high == 1
    unseen = corrected_rate(Strata((100, 100), (0, 50), (0, 50)))
    assert unseen.low < 0.52 and unseen.high > 0.97
    alike = errors(Strata((0, 50), (0, 50), (0, 50)))
    assert alike.kappa is None and alike.specificity is None


def test_equal_arguments_give_equal_intervals() -> None:
    """No random numbers: a report can be reproduced to its last digit."""
    strata = Strata((200, 800), (20, 80), (5, 70))

    assert corrected_rate(strata) == corrected_rate(Strata(*strata))
    assert errors(strata) == errors(Strata(*strata))


def test_a_perfect_judge_corrects_nothing_and_costs_little() -> None:
    """With many reviews and no error, the corrected rate is the judged one with its interval."""
    strata, judged = Strata((200, 800), (2_000, 8_000), (0, 8_000)), judged_rate((200, 800))
    corrected, taken = corrected_rate(strata), transported_rate((200, 800), strata)

    assert taken is not None
    for figure in (corrected, taken):
        assert figure.value == pytest.approx(0.8, abs=0.002)
        assert (figure.low, figure.high) == (pytest.approx(judged.low, abs=0.004), pytest.approx(judged.high, abs=0.004))


def test_a_rate_is_taken_over_by_sensitivity_and_specificity() -> None:
    """Rogan and Gladen's estimate, whatever share was met where the judge was measured; none where it is no better than chance."""
    # sensitivity 0.9, specificity 0.8, measured where half are met
    reference = Strata((450, 550), (450, 550), (50, 450))
    found = transported_rate((195, 805), reference)
    change = transported_change((150, 200, 50, 600), reference)

    assert found is not None and found.value == pytest.approx((0.805 + 0.8 - 1) / 0.7)
    assert change is not None and change.value == pytest.approx(0.15 / 0.7)
    assert transported_rate((50, 50), Strata((50, 50), (50, 50), (40, 20))) is None


def test_a_change_corrects_both_sides() -> None:
    """Each by its own reviews; the interval holds tasks and reviews of both."""
    before, after = Strata((220, 780), (22, 78), (4, 70)), Strata((120, 880), (12, 88), (5, 86))
    change = corrected_change(before, after, (100, 120, 20, 760))

    assert change.value == pytest.approx(corrected_rate(after).value - corrected_rate(before).value)
    assert change.low < change.value < change.high and not math.isnan(change.low)


@pytest.mark.parametrize("balanced", [False, True])
def test_intervals_hold_the_truth(balanced: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 120 samples of 1,000 tasks with 50 reviews; the judged rate itself does not. The table is in docs/statistics.md."""
    monkeypatch.setattr("beam_ray.review.correction.POINTS", 256)  # coarse, and quick
    found = {name: held for name, (held, _) in measure(TRUTHS[0], 1_000, 50, balanced, 120, seed=3).items()}

    assert all(found[name] >= 89 for name in ("corrected", "taken over", "change, corrected", "change, taken over", "kappa", "sensitivity", "specificity")), (
        found
    )
    assert found["as judged"] < 70


def test_a_check_asks_todays_judge_about_what_people_reviewed(lab: Lab) -> None:
    """With the judge that had judged nothing is asked and all outputs count; another judge is asked about the reviewed ones, and is reported by itself."""
    run = judged_run(lab, 40, says)
    store = opened(lab)
    addresses = review(store, truth, count=20)
    asked: list[beam_ray.Request] = []

    def stricter(request: beam_ray.Request) -> object:
        asked.append(request)
        return verdict(request, truth(int(request.task_id[1:])))

    def check(definition: beam_ray.Workflow) -> JudgeReport:
        executes = PlanExecutor(lab.objects, {"m": ScriptedModel(stricter), "strict": ScriptedModel(stricter, identity="strict")}, here)
        [report] = reports_of(executes, definition, "reply", reviews_of(lab.objects, definition, "reply"))
        return report

    same, other = check(run.record.plan), check(lab.workflow(workflow("strict"), "strict.yaml"))

    [so_far] = store.review_agreement("replies")
    assert same == so_far and same.judged_rate is not None
    assert (other.judge, other.drawn, other.counts[1:3], other.judged_rate) == ("strict", 20, (0, 0), None)
    assert {f"{run.run_id}/{request.task_id}/reply" for request in asked} == set(addresses) and len(asked) == 20
    reworded = lab.workflow(REWORDED, "reworded.yaml")
    assert reviews_of(lab.objects, reworded, "reply") == {}
