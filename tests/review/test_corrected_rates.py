"""Rates of two sides, corrected for what the judge gets wrong, by reviews of exactly this judge and criterion."""

import pytest

import beam_ray
from beam_ray.review.corrected_rates import CorrectedRate, corrected_rates
from beam_ray.review.reviewed import ReviewedOutput, strata_of
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.review.judged import answer_all, model, opened, workflow

TASKS = [f"question {number}" for number in range(60)]


def truth(side: str, number: int) -> bool:
    """30 of 60 replies of the baseline are polite, 42 of the candidate's."""
    return number % 10 < (5 if side == "before" else 7)


def judge(side: str, number: int) -> bool:
    """The judge passes every reply whose number ends in 9 or is polite, and fails t0, t10, …"""
    return number % 10 == 9 or (truth(side, number) and number % 10 > 0)


@pytest.fixture
def sides(lab: Lab) -> tuple[Run, Run]:
    """The runs of baseline and candidate."""
    before, after = (
        lab.run(
            lab.workflow(workflow(prompt=prompt)),
            TASKS,
            model(lambda number, side=side: judge(side, number), replies=lambda number, side=side: f"{side} {number}"),
        )
        for side, prompt in (("before", "reply to"), ("after", "answer"))
    )
    return before, after


def review(lab: Lab, run: Run, side: str, count: int, how: str = "random") -> None:
    """Answer a sample of a run's outputs truly."""
    store = opened(lab)
    queue = store.review_queue("replies", run=run.run_id, sample=beam_ray.ReviewSample(how, count))  # type: ignore[arg-type]
    answer_all(store, lab.folder, queue, lambda number: truth(side, number))


def by_name(lab: Lab, sides: tuple[Run, Run]) -> dict[str, CorrectedRate]:
    return {rate.name: rate for rate in corrected_rates(lab.objects, *sides)}


def test_each_side_is_corrected_by_reviews_of_its_own_outputs(lab: Lab, sides: tuple[Run, Run]) -> None:
    """With all outputs reviewed the corrected rates are the true ones; success counts the rule beside the judge."""
    review(lab, sides[0], "before", 60)
    review(lab, sides[1], "after", 60)

    found = by_name(lab, sides)
    assert list(found) == ["success_rate", "reply/polite"]
    for rate in found.values():
        assert (rate.judged_before.value, rate.judged_after.value) == (pytest.approx(0.5), pytest.approx(0.7))
        assert (rate.before.value, rate.after.value, rate.change.value) == (pytest.approx(0.5), pytest.approx(0.7), pytest.approx(0.2))
        assert rate.before.low < rate.before.value < rate.before.high and rate.change.low < 0.2 < rate.change.high
        assert (rate.by, rate.reviews, rate.tasks) == ("own reviews", (60, 60), 60)


def test_a_judge_that_hides_a_difference_is_corrected(lab: Lab) -> None:
    """It passes everything of the candidate: the corrected change is the true one, and the judged one is not in its interval."""
    before = lab.run(lab.workflow(workflow()), TASKS, model(lambda number: truth("before", number), replies=lambda number: f"before {number}"))
    after = lab.run(lab.workflow(workflow(prompt="answer")), TASKS, model(lambda number: True, replies=lambda number: f"after {number}"))
    review(lab, before, "before", 40)
    review(lab, after, "before", 40)

    rate = by_name(lab, (before, after))["reply/polite"]
    assert rate.judged_after.value - rate.judged_before.value == pytest.approx(0.5)
    assert rate.change.value == pytest.approx(0.0, abs=0.12) and rate.change.high < 0.5


def test_reviews_elsewhere_lend_sensitivity_and_specificity(lab: Lab, sides: tuple[Run, Run]) -> None:
    """Only the baseline was reviewed: both sides are corrected by the judge's errors there, and the success rate is not."""
    review(lab, sides[0], "before", 60)

    found = by_name(lab, sides)
    # sensitivity 24 of 30, specificity 24 of 30
    assert list(found) == ["reply/polite"]
    assert found["reply/polite"].by == "reviews elsewhere"
    assert found["reply/polite"].after.value == pytest.approx((0.7 + 0.8 - 1) / 0.6)


@pytest.mark.parametrize("case", ["none", "few", "chosen", "another judge", "another wording"])
def test_nothing_else_corrects_a_rate(lab: Lab, sides: tuple[Run, Run], case: str) -> None:
    """No reviews, too few, outputs that somebody chose, reviews of another judge, and of another wording."""
    if case == "few":
        review(lab, sides[0], "before", 9)
        review(lab, sides[1], "after", 9)
    if case == "chosen":
        store = opened(lab)
        for run in sides:
            queue = store.review_queue("replies", run=run.run_id, sample=beam_ray.ReviewSample("chosen", tasks=tuple(f"t{n}" for n in range(60))))
            answer_all(store, lab.folder, queue, lambda number: True)
    if case.startswith("another"):
        text = (
            workflow().replace("- check:", "- The reply is short.\n        - check:")
            if case == "another judge"
            else workflow().replace("polite.", "very polite.")
        )
        other = lab.run(lab.workflow(text), TASKS, model(lambda number: judge("before", number)))
        review(lab, other, "before", 60)

    assert by_name(lab, sides) == {}


def test_borrowed_outputs_keep_their_reviews(lab: Lab, sides: tuple[Run, Run]) -> None:
    """A baseline whose outputs are all borrowed from a reviewed run is corrected by the reviews of that run."""
    review(lab, sides[0], "before", 60)
    review(lab, sides[1], "after", 60)
    borrowed = lab.run(sides[0].record.plan, sides[0].tasks(), model(lambda number: judge("before", number)), origin=sides[0].run_id, borrow=True)

    assert by_name(lab, (borrowed, sides[1]))["reply/polite"].by == "own reviews"


def test_sentences_and_documents_say_what_it_stands_on(lab: Lab, sides: tuple[Run, Run]) -> None:
    """Rates as judged beside corrected ones, the change with its interval, and how many reviews."""
    review(lab, sides[0], "before", 60)
    review(lab, sides[1], "after", 60)
    rate = by_name(lab, sides)["reply/polite"]

    words = rate.words(("v1", "v2"))
    assert words.startswith("reply/polite corrected for the judge's errors: v1 50.0% (") and "as judged 70.0%" in words
    assert words.endswith("from 60 and 60 reviewed outputs.")
    assert rate.document()["before"]["value"] == 0.5


def test_a_run_that_shares_some_outputs_is_not_the_side(lab: Lab, sides: tuple[Run, Run]) -> None:
    """A random sample of a run with half of the baseline's outputs is no random sample of the baseline's."""
    half = lab.run(
        sides[0].record.plan,
        sides[0].tasks(),
        model(lambda number: judge("before", number), replies=lambda number: f"{'before' if number % 2 else 'other'} {number}"),
    )
    review(lab, half, "before", 60)
    review(lab, sides[1], "after", 60)

    assert {rate.by for rate in corrected_rates(lab.objects, *sides)} == {"reviews elsewhere"}


TWO_NODES = """
workflow: replies
model: m
nodes:
  reply:
    llm: {prompt: "PROMPT {{ task_query }}"}
    evaluate: {threshold: 100, criteria: [{id: polite, text: The reply is polite.}]}
  tag:
    after: reply
    llm: {prompt: "tag {{ reply.text }}"}
    evaluate: {criteria: [{check: "tag.text.endswith('0') or tag.text.endswith('2')"}]}
"""


def test_other_steps_keep_their_say_in_the_success_rate(lab: Lab) -> None:
    """People pass every reply that the judge fails, but a task whose other step fails does not pass by that."""
    runs = [lab.run(lab.workflow(TWO_NODES.replace("PROMPT", word)), TASKS, model(lambda number: False, replies=str)) for word in ("reply to", "answer")]
    store = opened(lab)
    for run in runs:
        answer_all(store, lab.folder, store.review_queue("replies", run=run.run_id, sample=beam_ray.ReviewSample(count=60)), lambda number: True)

    success, polite = corrected_rates(lab.objects, *runs)
    assert (success.name, success.judged_before.value, success.before.value, polite.before.value) == ("success_rate", 0, pytest.approx(0.2), 1)


def test_outputs_of_a_balanced_sample_weigh_by_their_chance() -> None:
    """Two outputs with the judge's same word stand for as many outputs as their chance says."""

    def one(number: int, people: bool, weight: float) -> ReviewedOutput:
        return ReviewedOutput(f"r/t{number}/reply", "x", True, people, ("ann",), "", True, "balanced", weight)

    found = strata_of([one(1, True, 9.0), one(2, False, 1.0)], (0, 100))

    assert found is not None and found.truth(1) == pytest.approx(0.9)
    assert found.reviewed[1] == pytest.approx(100 / 82)
