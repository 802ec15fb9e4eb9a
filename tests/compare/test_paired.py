"""What a comparison says of two sides."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sides import scored, side, step, task

from beam_ray.compare.comparison import compare, size_advice
from beam_ray.compare.power import noise_floor
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval

scores = st.one_of(st.none(), st.sampled_from([0.0, 50.0, 90.0, 100.0]), st.floats(0, 100))


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(scores, scores), max_size=25))
def test_swapping_the_sides_turns_every_sign(pairs):
    """
    What was gained is lost when the sides change places, interval and all.
    """
    before, after = scored("a", [one for one, _ in pairs]), scored("b", [other for _, other in pairs])

    there, back = compare(before, after), compare(after, before)

    for one, other in zip(there.metrics, back.metrics, strict=True):
        assert (one.before, one.after) == (other.after, other.before)
        assert _opposite(one.change, other.change)
        assert _opposite(one.low, other.high)
    assert there.newly_passing == back.newly_failing
    assert there.newly_failing == back.newly_passing
    assert there.p == back.p


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(scores, scores), max_size=12))
def test_a_document_is_plain_json(pairs):
    """
    No comparison, however degenerate, holds a number that JSON does not have.
    """
    document = compare(scored("a", [one for one, _ in pairs]), scored("b", [other for _, other in pairs])).document()

    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_equal_arguments_give_equal_values():
    """
    Comparing twice gives the same document.
    """
    sides = scored("a", [10, 50, 90] * 10), scored("b", [50, 90, 90] * 10)

    assert compare(*sides).document() == compare(*sides).document()


def test_numbers_of_a_small_example():
    """
    Success, score, failing tasks and standard deviation are what one computes by hand.
    """
    found = compare(scored("a", [0, 50, 100, 100]), scored("b", [100, 100, 100, 0]))

    assert (50.0, 75.0, 25.0, 50.0) == _four(found.metric("success_rate"))
    assert (62.5, 75.0, 12.5, 20.0) == _four(found.metric("score"))
    assert (2.0, 1.0, -1.0, -50.0) == _four(found.metric("failing"))
    assert math.sqrt(6875 / 3) == pytest.approx(found.metric("score_sd").before)
    assert ("t00000", "t00001") == found.newly_passing
    assert ("t00003",) == found.newly_failing
    assert 1.0 == found.p


def test_unpaired_tasks_are_named():
    """
    A task of one side only, or with other inputs, is in no pair and is listed.
    """
    before = side("a", [task("both", 100), task("only-a", 0), task("changed", 50, inputs="old")])
    after = side("b", [task("both", 100), task("only-b", 0), task("changed", 50, inputs="new")])

    found = compare(before, after)

    assert 1 == found.pairs
    assert (("only-a",), ("only-b",), ("changed",)) == (found.unpaired.baseline_only, found.unpaired.candidate_only, found.unpaired.inputs_differ)
    assert 3 == found.unpaired.count


def test_a_model_that_was_unavailable_is_no_failure():
    """
    A task without an answer from the model is not judged; a task whose tool failed is.
    """
    before = scored("a", [100, 100, 100])
    outcome = [task("t00000", None, outcome="failed", passed=False), task("t00001", None, outcome="failed", passed=False), task("t00002", 100)]
    steps = [
        step("t00000", None, outcome="failed", error_type="ModelUnavailable", output=None),
        step("t00001", None, outcome="failed", error_type="ToolFailed", output=None),
        step("t00002", 100),
    ]

    found = compare(before, side("b", outcome, steps))

    assert ("t00000",) == found.unpaired.not_judged
    assert ("t00001",) == found.newly_failing
    assert 2 == found.pairs
    assert 50.0 == found.metric("success_rate").after
    assert 66.6666666667 == found.metric("infrastructure_errors").after
    assert 33.3333333333 == found.metric("tool_errors").after
    assert 0.0 == found.metric("answer_errors").after


def test_unscored_tasks_are_counted_and_never_averaged():
    """
    A task without a score leaves the mean alone and is counted.
    """
    found = compare(scored("a", [80, 80, None]), scored("b", [100, None, None]))

    assert (80.0, 100.0, 1) == (found.metric("score").before, found.metric("score").after, found.metric("score").pairs)
    assert 66.6666666667 == found.metric("unscored").after
    assert "1 on the baseline, 2 on the candidate" in found.metric("score").note


def test_a_missing_price_is_a_word():
    """
    When a model has no price, the cost is a word and not 0.
    """
    found = compare(scored("a", [100] * 3), scored("b", [100] * 3, work_usd=None)).metric("usd")

    assert (None, None) == (found.before, found.after)
    assert "unpriced: a model of the candidate has no price" == found.note


def test_of_several_trials_the_majority_decides():
    """
    A task passes when most of its trials pass; a tie is a failure.
    """
    before = side("a", [task(name, 100, trial=trial) for name in ("most", "tie", "none") for trial in (1, 2, 3, 4)])
    passes = {"most": 3, "tie": 2, "none": 0}
    after = side("b", [task(name, 100 if trial <= count else 0, trial=trial) for name, count in passes.items() for trial in (1, 2, 3, 4)])

    found = compare(before, after)

    assert (12, 3, 4) == (found.pairs, found.tasks, found.trials)
    assert ("none", "tie") == found.newly_failing
    assert (0.0, 2.0) == (found.metric("failing").before, found.metric("failing").after)
    assert 41.6666666667 == found.metric("success_rate").after


def test_criteria_and_fields():
    """
    Each criterion is compared where both sides decided it, and a field's errors are counted.
    """
    count = 10
    before = [step(f"t{index:05d}", 50.0, met={"vendor": index >= 5, "polite": None if index == 0 else True}) for index in range(count)]
    after = [step(f"t{index:05d}", 50.0, met={"vendor": index >= 2, "polite": True}) for index in range(count)]
    tasks = [task(f"t{index:05d}", 50.0) for index in range(count)]

    polite, vendor = sorted(compare(side("a", tasks, before), side("b", tasks, after)).of_kind("criterion"), key=lambda entry: entry.name)

    assert ("extract/vendor", True, 60.0) == (vendor.name, vendor.field, vendor.errors_removed)
    assert (50.0, 80.0, 30.0, 3, 0) == (vendor.before, vendor.after, vendor.change, vendor.better_tasks, vendor.worse_tasks)
    assert (9, 1, 0, False, None) == (polite.pairs, polite.unscored_before, polite.unscored_after, polite.field, polite.errors_removed)
    assert vendor.p_adjusted == pytest.approx(min(1.0, 2 * vendor.p))


def test_labels_and_routes():
    """
    Labels and routes have their own scores, and the matrix counts who took another way.
    """
    before = side("a", [task("x", 50, labels=["edge"], routes=["found"]), task("y", 100, labels=["edge", "new"], routes=["found"])])
    after = side("b", [task("x", 100, labels=["edge"], routes=["not found"]), task("y", 100, labels=["edge", "new"], routes=["found"])])

    found = compare(before, after)

    assert [("edge", 2, 75.0, 100.0), ("new", 1, 100.0, 100.0)] == [(part.name, part.pairs, part.before, part.after) for part in found.of_kind("label")]
    routes = {part.name: (part.before_count, part.after_count) for part in found.of_kind("route")}
    assert {"found": (2, 1), "not found": (0, 1)} == routes
    assert 1 == found.route_changes
    assert {(("found",), ("found",), 1), (("found",), ("not found",), 1)} == {(flip.before, flip.after, flip.pairs) for flip in found.route_flips}


def test_a_changed_task_shows_where_it_first_diverges():
    """
    The first node in the workflow's order whose outputs differ is named, with both outputs.
    """

    def steps(vendor, answer):
        return [
            step("x", None, node="answer", output=answer),
            step("x", None, node="read", output='{"text": "same"}'),
            step("x", None, node="extract", output=vendor),
        ]

    found = compare(
        side("a", [task("x", 0)], steps('{"vendor": "A"}', '{"text": "no"}')),
        side("b", [task("x", 100)], steps('{"vendor": "B"}', '{"text": "yes"}')),
        order=["read", "extract", "answer"],
    )

    [change] = found.changes
    assert ("newly passing", "extract", '{"vendor": "A"}', '{"vendor": "B"}') == (change.flip, change.diverges_at, change.before_there, change.after_there)


def test_a_node_that_only_one_side_ran_is_a_divergence():
    """
    A route not taken on one side counts as a different output.
    """
    before = side("a", [task("x", 0)], [step("x", 0, node="confirm"), step("x", None, node="escalate", outcome="skipped", output=None)])
    after = side("b", [task("x", 100)], [step("x", None, node="confirm", outcome="skipped", output=None), step("x", 100, node="escalate")])

    [change] = compare(before, after, order=["confirm", "escalate"]).changes

    assert ("confirm", None) == (change.diverges_at, change.after_there)


def test_order_of_rows_does_not_matter():
    """
    A side whose rows come in another order gives the same comparison.
    """
    before, after = scored("a", [0, 50, 100, 90]), scored("b", [100, 50, 0, 90])
    turned = replace(after, outcome=after.outcome.take([2, 0, 3, 1]), steps=after.steps.take([3, 1, 0, 2]))

    assert compare(before, turned).document() == compare(before, after).document()


@pytest.mark.parametrize(
    ("count", "able", "words"),
    [
        (0, None, "0 tasks: too few"),
        (1, None, "1 task: too few"),
        (9, 5.0, "too few"),
        (10, 40.0, "basic check; 10 points of success rate need about 160 (80% power)"),
        (20, 20.0, "good size for a first answer; 10 points of success rate need about 80 (80% power)"),
        (50, 10.0, "enough to judge a major change (10 points with 80% power)"),
        (200, 20.0, "too few to judge a major change; 10 points of success rate need about 800 (80% power)"),
    ],
)
def test_size_advice(count, able, words):
    """
    The number alone says only whether there are enough to judge at all; what they can show depends on how much the results scatter.
    """
    assert words in size_advice(count, able)


@pytest.mark.parametrize(("gained", "lost"), [(8, 1), (5, 5), (0, 0)])
def test_one_figure_says_what_can_be_detected(gained, lost):
    """
    Of the same 0/100 data, score and success rate have the same detectable change: it follows from how many tasks flip, both ways.
    """
    before = [0.0] * gained + [100.0] * lost + [100.0] * (60 - gained - lost)
    after = [100.0] * gained + [0.0] * lost + [100.0] * (60 - gained - lost)
    found = compare(scored("a", before), scored("b", after))

    assert found.detectable_rate == pytest.approx(found.detectable_score)


@pytest.mark.parametrize("tasks", [50, 200])
def test_the_noise_floor_is_1_96_standard_errors(tasks):
    """
    Of an A/A test the floor is that of the true scatter, whatever difference was found: a tenth of the tasks flip either way.
    """
    chance, floors, found = np.random.default_rng(4), [], []
    for _ in range(60):
        flips = chance.multinomial(1, [0.05, 0.05, 0.9], tasks)
        before, after = 100.0 * (1 - flips[:, 0]), 100.0 * (1 - flips[:, 1])
        metric = compare(scored("a", before.tolist()), scored("b", after.tolist()), same=True).metric("score")
        floors.append(noise_floor(Interval(metric.low, metric.high), Confidence(95, 0, tasks).quantile(tasks)))
        found.append(abs(metric.change))

    true = 1.96 * 100 * math.sqrt(0.1 / tasks)
    assert np.mean(floors) == pytest.approx(true, rel=0.2 if tasks == 50 else 0.06)
    assert np.corrcoef(floors, found)[0, 1] < 0.5


def _opposite(one, other):
    return other is None if one is None else one == pytest.approx(-other, abs=1e-6)


def _four(metric):
    return metric.before, metric.after, metric.change, metric.relative


def test_each_pair_names_the_criteria_that_changed():
    """Those that are met on one side and not on the other, over all nodes; one that is undecided on a side has not changed."""
    outcome = [task("t1", 100.0), task("t2", 50.0), task("t3", 0.0)]
    before = [
        step("t1", 100.0, met={"a": True, "b": True}),
        step("t2", 50.0, met={"a": True, "b": False}),
        step("t3", 0.0, met={"a": False, "b": None}),
    ]
    after = [
        step("t1", 0.0, met={"a": False, "b": False}),
        step("t2", 50.0, met={"a": True, "b": False}),
        step("t3", 100.0, met={"a": True, "b": True}),
    ]
    found = compare(side("before", outcome, before), side("after", outcome, after)).table

    node = before[0]["node"]
    assert dict(zip(found["task_id"].to_pylist(), found["changed_criteria"].to_pylist(), strict=True)) == {
        "t1": [f"{node}/a", f"{node}/b"],
        "t2": [],
        "t3": [f"{node}/a"],
    }
