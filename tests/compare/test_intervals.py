"""Intervals hold what is true, never close for want of a change, and never leave what can be."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from sides import scored, side, step, task

from beam_ray.compare.comparison import compare
from beam_ray.compare.intervals import change, deviations, level, p_of_change, quantiles, relative, sample, wilson
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Quantity
from beam_ray.compare.terminal import part_word
from benchmarks.coverage.intervals import coverage
from benchmarks.coverage.scenarios import SCENARIOS

ONCE = Confidence()
scores = st.one_of(st.none(), st.sampled_from([0.0, 50.0, 100.0]), st.floats(0, 100))


def sampled(before, after, *, trials=1, largest=100.0):
    """Both sides as a sample."""
    sides = Quantity(np.array(before, dtype=float), np.array(after, dtype=float))
    return sample(sides, np.arange(len(before)) // trials, largest=largest)


def test_a_difference_of_proportions_is_bonett_and_prices():
    """
    Of 30 tasks 5 got better and 2 worse: their formula, with Student's quantile.
    """
    before, after = [0] * 5 + [100] * 2 + [100] * 23, [100] * 5 + [0] * 2 + [100] * 23
    better, worse = 6 / 32, 3 / 32
    reach = stats.t.ppf(0.975, 29) * math.sqrt((better + worse - (better - worse) ** 2) / 32)

    found = change(sampled(before, after), ONCE)

    assert found == pytest.approx((100 * (better - worse - reach), 100 * (better - worse + reach)))


@pytest.mark.parametrize("tasks", [10, 20, 50, 200])
@pytest.mark.parametrize("score", [0.0, 60.0, 100.0])
def test_pairs_that_are_all_equal_do_not_close_the_interval(tasks, score):
    """
    Every number of a bounded metric leaves room for what so few tasks cannot show (W1): at least one task's change and at most 6 of them.
    """
    found = compare(scored("a", [score] * tasks), scored("b", [score] * tasks))

    for name in ("success_rate", "score", "unscored", "answer_errors"):
        metric = found.metric(name)
        assert 100 / tasks <= metric.high == -metric.low <= 600 / tasks
        assert metric.after_interval.low < metric.after_interval.high
    for part in found.of_kind("node"):
        assert part.high == -part.low == found.metric("score").high


@pytest.mark.parametrize("tasks", [20, 50, 200])
@pytest.mark.parametrize("name", ["improved", "rare_loss", "three", "perfect", "trials", "breaking", "correlated", "lognormal"])
def test_a_change_is_covered(name, tasks, monkeypatch):
    """
    At least 92.5 of 100 simulated samples, drawn with a fixed seed, hold the true change; docs/statistics.md has the long simulation.
    """
    monkeypatch.setattr("benchmarks.coverage.intervals.SIZES", (tasks,))

    for kind, _, percent, _ in coverage(SCENARIOS[name], ("change", "relative", "level"), 400):
        assert percent >= 92.5, kind


def test_quantiles_are_covered(monkeypatch):
    """
    So are changes of the median and of the 95th percentile, which has an interval from 72 tasks on.
    """
    monkeypatch.setattr("benchmarks.coverage.intervals.SIZES", (71, 72, 200))

    found = {(kind, tasks): percent for kind, tasks, percent, _ in coverage(SCENARIOS["lognormal"], ("median", "p95"), 300)}

    assert found["p95", 71] is None
    assert min(found["median", 72], found["p95", 72], found["median", 200], found["p95", 200]) >= 92.5


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=2, max_size=30), st.sampled_from([80.0, 95.0, 99.0]))
def test_the_interval_leaves_out_0_exactly_when_p_is_small(pairs, percent):
    """
    Interval and p-value of a change are of one test.
    """
    found = sampled(*zip(*pairs, strict=True))
    interval, p = change(found, Confidence(percent)), p_of_change(found, Confidence(percent))

    assert (interval.low > 0 or interval.high < 0) == (p < 1 - percent / 100) or p == pytest.approx(1 - percent / 100)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(scores, scores), min_size=2, max_size=40), st.sampled_from([0, 400]))
def test_no_interval_leaves_what_can_be(pairs, planned):
    """
    Changes, relative changes and levels stay within their scale and hold what was found, in a single analysis and in many.
    """
    found = compare(scored("a", [one for one, _ in pairs]), scored("b", [other for _, other in pairs]), planned=planned)

    for metric in found.metrics:
        most = {"%": 100.0, "points": 100.0, "tasks": float(found.tasks)}.get(metric.unit, math.inf)
        if metric.low is not None:
            assert -most - 1e-9 <= metric.low <= metric.change + 1e-9
            assert metric.change - 1e-9 <= metric.high <= most + 1e-9
        if metric.relative_interval:
            assert -100 <= metric.relative_interval.low <= metric.relative + 1e-6
            assert metric.relative - 1e-6 <= metric.relative_interval.high
        if metric.after_interval:
            assert 0 <= metric.after_interval.low <= metric.after + 1e-9
            assert metric.after - 1e-9 <= metric.after_interval.high <= most + 1e-9


@given(st.integers(1, 100_000), st.floats(0, 1), st.floats(50, 99.9999))
def test_wilson_is_the_interval_of_scipy(count, share, confidence):
    """
    The interval of a share is Wilson's as scipy.stats has it, with 0 and 1 as exact ends.
    """
    passed = round(share * count)
    reference = stats.binomtest(passed, count).proportion_ci(confidence / 100, "wilson")

    assert wilson(passed / count, count, float(special.ndtri(0.5 + confidence / 200))) == pytest.approx(tuple(reference), rel=1e-9, abs=1e-15)


def test_the_level_of_a_share_is_wilsons():
    """
    27 of 30 tasks: Wilson's interval with Student's quantile.
    """
    found = level(np.array([100.0] * 27 + [0.0] * 3), ONCE, largest=100)

    assert found == pytest.approx([100 * end for end in wilson(0.9, 30, stats.t.ppf(0.975, 29))])


def test_several_trials_are_not_rounded_to_whole_tasks():
    """
    105, 104, 103 … 97 of 105 trials of 35 tasks are nine levels, each lower than the one before (W5).
    """
    found = []
    for failing in range(9):
        passes = np.ones(105)
        passes[: 3 * failing : 3] = 0
        found.append(level(sampled(passes, passes, trials=3, largest=1.0).after, ONCE, largest=1.0))

    assert [interval.low for interval in found] == sorted((interval.low for interval in found), reverse=True)
    assert len({interval.low for interval in found}) == len({interval.high for interval in found[1:]}) + 1 == 9


def test_trials_that_are_alike_prove_no_more_than_one():
    """
    The change and the level of a criterion over 20 tasks are the same whether each task ran once, or five times with the same result (W4).
    """

    def found(trials):
        def made(name, passing):
            rows = [(f"t{index:02d}", trial, index >= 20 - passing) for index in range(20) for trial in range(1, trials + 1)]
            outcome = [task(id_, 100 if met else 0, trial=trial) for id_, trial, met in rows]
            return side(name, outcome, [step(id_, 100 if met else 0, trial=trial, met={"vendor": met}) for id_, trial, met in rows])

        [part] = compare(made("a", 14), made("b", 18)).of_kind("criterion")
        return [*part.after_interval, part.low, part.high, *part.relative_interval, part.p]

    assert found(5) == pytest.approx(found(1))


def test_the_level_of_a_node_is_that_of_its_scores():
    """
    A node whose scores are the workflow's has the workflow's level, also where no pair differs (W3).
    """
    values = list(np.linspace(50, 100, 30))
    found = compare(scored("a", values), scored("b", values))
    [node] = found.of_kind("node")
    student = stats.t.interval(0.95, 29, loc=75, scale=np.std(values, ddof=1) / math.sqrt(30))

    assert node.after_interval == found.metric("score").after_interval
    assert node.after_interval == pytest.approx(student, abs=0.8)


def test_small_slices_have_numbers_and_no_interval():
    """
    A label of four tasks shows its change alone and takes no part in Holm's correction; one of five has an interval (W13).
    """
    outcome = [[task(f"t{index}", score, labels=["few" if index < 4 else "more"]) for index, score in enumerate(row)] for row in ([0] * 9, [100] * 9)]

    few, more = sorted(compare(side("a", outcome[0]), side("b", outcome[1])).of_kind("label"), key=lambda part: part.name)

    assert (4, 100.0, None, None, None, 1.0) == (few.pairs, few.change, few.low, few.high, few.after_interval, few.p)
    assert -5 < more.low < more.high == 100
    assert more.p_adjusted == more.p


def test_the_word_beside_a_slice_is_of_the_test_whose_p_it_shows():
    """
    32 tasks one point better and 8 tasks 40 points worse: worse on average, and neither better nor worse beyond chance with that p (W12).
    """
    before = [50.0] * 40
    [node] = compare(scored("a", before), scored("b", [51.0] * 32 + [10.0] * 8)).of_kind("node")
    [much] = compare(scored("a", before), scored("b", [51.0] * 20 + [10.0] * 20)).of_kind("node")

    assert (32, 8) == (node.better_tasks, node.worse_tasks)
    assert node.change < 0
    assert (part_word(node) == "WORSE") == (node.high < 0) == (node.p_adjusted <= 0.05)
    assert "WORSE" == part_word(much)


def test_a_relative_change_has_no_interval_from_nothing():
    """
    Of a baseline of 0 nothing is a share.
    """
    assert relative(sampled([0, 0, 0], [1, 2, 3], largest=None), ONCE) is None


def test_a_standard_deviation_of_equal_scores_is_open_too():
    """
    20 scores of 100 on both sides may hide a spread; what is found is exact.
    """
    sides = Quantity(np.full(20, 100.0), np.full(20, 100.0))

    found = deviations(sides, np.arange(20), sample(sides, np.arange(20), largest=100), ONCE)

    assert (0.0, 0.0) == (found.before, found.after)
    assert found.change.high > 5


def test_the_median_of_trials_is_not_surer_than_that_of_tasks():
    """
    Three equal trials of a task widen nothing and narrow nothing.
    """
    chance = np.random.default_rng(3)
    before, after = chance.lognormal(size=60), chance.lognormal(size=60)
    once = quantiles(Quantity(before, after), np.arange(60), 50, ONCE)

    thrice = quantiles(Quantity(np.repeat(before, 3), np.repeat(after, 3)), np.repeat(np.arange(60), 3), 50, ONCE)

    assert thrice.change == pytest.approx(once.change, rel=0.15)


@pytest.mark.parametrize("tasks", [10, 20])
def test_the_level_of_skewed_scores_holds_with_few_tasks(tasks):
    """
    Losses with a long tail, such as exponential ones from 100: the level holds in 93 of 100 samples of ten tasks and more, on the side of the tail too.
    """
    chance = np.random.default_rng(6)
    truth = 100 - 16 * (1 - np.exp(-100 / 16))
    found = [level(np.maximum(100 - chance.exponential(16, tasks), 0), ONCE, largest=100) for _ in range(2_000)]

    assert np.mean([ends.low <= truth <= ends.high for ends in found]) >= 0.93
