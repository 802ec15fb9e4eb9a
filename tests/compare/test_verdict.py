"""The words of the gate, at their boundaries."""

import json
from dataclasses import replace

import numpy as np
import pytest
from sides import scored, side, step, task

from beam_ray.compare.comparison import compare
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.gate_file import default_gate, load_gate
from beam_ray.compare.intervals import wilson
from beam_ray.compare.metrics import Metric
from beam_ray.compare.regressions import Repeats, regressions
from beam_ray.compare.sequential import Confidence
from beam_ray.compare.statistics import Interval
from beam_ray.compare.verdict import judge
from beam_ray.errors import Unusable


def _gate(rule, kind, amount, **more):
    return Gate(name="g", limits=(Limit(rule=rule, kind=kind, amount=amount, **more),))


def _found(low, change, high, *, before=50.0, tasks=60, name="score", unit="points", better="up"):
    """A comparison whose metric changed as given."""
    after = before + change
    ends = Interval(100 * low / before, 100 * high / before) if before else None
    share = 100 * change / before if before else None
    metric = Metric(name, name, unit, better, before, after, change, share, low, high, ends, Interval(before + low, before + high), tasks)
    base = compare(scored("a", [50]), scored("b", [50]))
    return replace(base, tasks=tasks, metrics=tuple(metric if entry.name == name else entry for entry in base.metrics))


def _word(comparison, gate):
    [line] = judge(comparison, gate).lines
    return line.word, line.tasks_needed


@pytest.mark.parametrize(
    ("low", "change", "high", "word"),
    [
        (27, 35, 43, "PASS"),
        (1, 10, 19, "PASS"),
        (0, 10, 20, "INCONCLUSIVE"),
        (-5, 12, 29, "INCONCLUSIVE"),
        (2, 8, 14, "INCONCLUSIVE"),
        (1, 5, 9.9, "BLOCK"),
        (-20, -10, -1, "BLOCK"),
    ],
)
def test_a_target(low, change, high, word):
    """
    A target passes when it is reached and the improvement is beyond doubt, and blocks when all of the interval falls short.
    """
    assert word == _word(_found(low, change, high), _gate("score", "up_by", 10))[0]
    assert word == _word(_found(-high, -change, -low), _gate("score", "down_by", 10))[0]


@pytest.mark.parametrize(
    ("low", "change", "high", "word"),
    [(-3, 0, 3, "PASS"), (-30, -1, 28, "PASS"), (-8, -2, 4, "INCONCLUSIVE"), (-8, -2, -1, "INCONCLUSIVE"), (-9, -5, -1.1, "BLOCK"), (1, 2, 3, "PASS")],
)
def test_a_guard(low, change, high, word):
    """
    A guard passes while the change found keeps it, and blocks when all of the interval breaks it.
    """
    assert word == _word(_found(low, change, high), _gate("score", "down_by_at_most", 1))[0]
    assert word == _word(_found(-high, -change, -low), _gate("score", "up_by_at_most", 1))[0]


@pytest.mark.parametrize(
    ("low", "change", "high", "word"),
    [
        (-4.9, -1, 3, "PASS"),
        (-4.9, -3, -1, "PASS"),
        (-5.1, 0, 5, "INCONCLUSIVE"),
        (-12, -6, 0.5, "INCONCLUSIVE"),
        (-12, -8, -4.9, "INCONCLUSIVE"),
        (-12, -8, -5.1, "BLOCK"),
    ],
)
def test_not_worse_than(low, change, high, word):
    """
    It passes when a loss beyond the limit is excluded, and blocks when all of the interval lies beyond it; a guard would pass what it only fails to see.
    """
    assert word == _word(_found(low, change, high), _gate("score", "not_worse_than", 5))[0]


def test_not_worse_than_follows_what_is_better():
    """
    Of cost, worse is more: an interval that ends at +4 % of the baseline keeps a limit of 5 %, and one that ends at +6 % does not.
    """
    gate = _gate("usd", "not_worse_than", 5, percent=True)

    assert ["PASS", "INCONCLUSIVE"] == [_word(_found(-2, 1, high, before=100, name="usd", better="down"), gate)[0] for high in (4, 6)]


@pytest.mark.parametrize(("high", "word"), [(-0.8, "BLOCK"), (-0.4, "PASS")])
def test_any_loss_blocks_when_it_is_beyond_doubt(high, word):
    """
    Within the margin a loss of 3 blocks when its interval, a third wider, still excludes none.
    """
    assert word == _word(_found(-4.9, -3, high), _gate("score", "not_worse_than", 5, any_loss="block"))[0]
    assert "PASS" == _word(_found(-4.9, -3, high), _gate("score", "not_worse_than", 5))[0]


def test_a_gate_that_is_not_strict_warns_of_an_open_question():
    """
    What the interval leaves open is WARN with exit code 0, and INCONCLUSIVE in a strict gate; the tasks that would decide are named in both.
    """
    limits = (Limit(rule="score", kind="not_worse_than", amount=5),)
    open_, strict = (judge(_found(-8, 0, 8), Gate(name="g", limits=limits, strict=strict)) for strict in (False, True))

    assert [("WARN", 0), ("INCONCLUSIVE", 5)] == [(found.word, found.exit_code) for found in (open_, strict)]
    assert open_.lines[0].tasks_needed == strict.lines[0].tasks_needed


def test_missing_tasks_are_no_mere_warning():
    """
    Too few compared tasks leave nothing to go by, whether the gate is strict or not.
    """
    verdict = judge(compare(scored("a", [100] * 20), scored("b", [100] * 18)), default_gate())

    assert "INCONCLUSIVE" == verdict.word


def test_targets_never_decide():
    """
    An unchanged workflow of 400 tasks passes the default gate: none of the targets is met, and each is shown.
    """
    chance = np.random.default_rng(8)
    unchanged = [scored(name, (100.0 * (chance.random(400) < 0.99)).tolist()) for name in ("a", "b")]
    verdict = judge(compare(*unchanged).confirmed({f"t{index:05d}": Repeats(3, 3, 3, 3) for index in range(400)}), default_gate())
    targets = {line.rule: line.word for line in verdict.lines if line.level == "target"}

    assert ("PASS", 0) == (verdict.word, verdict.exit_code)
    assert {"success_rate": "PASS", "score": "WARN", "failing": "WARN"} == {rule: targets[rule] for rule in ("success_rate", "score", "failing")}


def test_an_optional_number_that_neither_side_has_makes_no_line():
    """
    An unpriced model has no line about its cost; a price on one side only is an open question.
    """
    gate = Gate(
        name="g", limits=(Limit(rule="usd", kind="up_by_at_most", amount=25, percent=True, optional=True), Limit(rule="compared", kind="at_least", amount=95))
    )
    unpriced, priced = scored("a", [1] * 20, work_usd=None), scored("b", [1] * 20)

    assert ["compared"] == [line.rule for line in judge(compare(unpriced, unpriced), gate).lines]
    assert ["usd", "compared"] == [line.rule for line in judge(compare(unpriced, priced), gate).lines]


def test_the_gate_none_gives_no_verdict():
    """
    Its word is NONE and its exit code 0, whatever happened.
    """
    verdict = judge(compare(scored("a", [100] * 20), scored("b", [0] * 20)), load_gate("none"))

    assert ("NONE", 0, ()) == (verdict.word, verdict.exit_code, verdict.lines)


@pytest.mark.parametrize(
    ("low", "change", "high", "word"), [(40, 45, 48, "PASS"), (30, 42, 48, "INCONCLUSIVE"), (20, 30, 41, "INCONCLUSIVE"), (10, 20, 39, "BLOCK")]
)
def test_a_level(low, change, high, word):
    """
    A level passes when the whole interval keeps it, and blocks when all of it breaks it.
    """
    assert word == _word(_found(low, change, high), _gate("score", "at_least", 90))[0]


def test_percent_of_the_baseline():
    """
    Half of 40 seconds is reached by 15 and not by 25.
    """
    gate = _gate("seconds", "down_by", 50, percent=True)

    assert "PASS" == _word(_found(-30, -25, -20, before=40, name="seconds"), gate)[0]
    assert "BLOCK" == _word(_found(-18, -15, -12, before=40, name="seconds"), gate)[0]


def test_nothing_to_remove_is_no_failure():
    """
    When no task failed before and none fails now, half of the failing tasks are gone.
    """
    comparison = compare(scored("a", [100] * 20), scored("b", [100] * 20))

    assert "PASS" == _word(comparison, _gate("failing", "down_by", 50, percent=True))[0]


def test_the_estimate_may_decide_alone():
    """
    Under ``by: estimate`` no interval is asked.
    """
    assert "PASS" == _word(_found(-5, 12, 29), _gate("score", "up_by", 10, by="estimate"))[0]
    assert "BLOCK" == _word(_found(-5, 9, 29), _gate("score", "up_by", 10, by="estimate"))[0]


def test_few_tasks_pass_nothing():
    """
    Nine tasks are too few to pass, and enough to block.
    """
    assert ("INCONCLUSIVE", 10) == _word(_found(27, 35, 43, tasks=9), _gate("score", "up_by", 10))
    assert "BLOCK" == _word(_found(-43, -35, -27, tasks=9), _gate("score", "up_by", 10))[0]


def test_the_tasks_that_would_decide():
    """
    An interval that reaches twice too far needs four times the tasks to touch the limit, and twice as many again to clear it with 80% power.
    """
    assert ("INCONCLUSIVE", 490) == _word(_found(-12, 12, 36), _gate("score", "up_by", 10))
    assert ("INCONCLUSIVE", 490) == _word(_found(-8, 0, 20), _gate("score", "up_by", 10))
    assert ("INCONCLUSIVE", None) == _word(_found(-10, 9.999, 30), _gate("score", "up_by", 10))


@pytest.mark.parametrize(("kind", "amount", "found"), [("up_by", 0, 4.0), ("not_worse_than", 5, -1.0), ("up_by", 10, 6.0)])
def test_the_tasks_that_would_decide_have_80_percent_power(kind, amount, found):
    """
    If the truth is what was found, that many tasks decide in about 80 of 100 backtests.
    """
    chance, spread = np.random.default_rng(6), 20.0
    reach = 1.96 * spread / np.sqrt(60)
    _, needed = _word(_found(found - reach, found, found + reach), _gate("score", kind, amount))
    drawn = chance.normal(found, spread, (4_000, needed))
    means, errors = drawn.mean(axis=1), 1.96 * drawn.std(axis=1, ddof=1) / np.sqrt(needed)
    bound = {"not_worse_than": -5.0}.get(kind, float(amount))

    assert np.mean((means - errors > bound) | (means + errors < bound)) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(("passing", "tasks"), [(57, 60), (93, 100), (86, 100)])
def test_the_tasks_that_would_decide_a_level_have_80_percent_power(passing, tasks):
    """
    The same of a success rate against a level, whose interval is Wilson's.
    """
    scores = [100.0] * passing + [0.0] * (tasks - passing)
    _, needed = _word(compare(scored("a", scores), scored("b", scores)), _gate("success_rate", "at_least", 90))
    drawn = np.random.default_rng(6).binomial(needed, passing / tasks, 4_000)
    levels = {int(count): wilson(count / needed, needed, Confidence().quantile(needed)) for count in set(drawn.tolist())}
    decided = {count: found.low >= 0.9 or found.high < 0.9 for count, found in levels.items()}

    assert np.mean([decided[int(count)] for count in drawn]) == pytest.approx(0.8, abs=0.06)


def test_as_many_tasks_as_it_says_do_decide():
    """
    A success rate found with the number of tasks that was named is decided.
    """
    gate = _gate("success_rate", "at_least", 90)
    few = compare(scored("a", [0] * 20), scored("b", [100] * 20))

    word, needed = _word(few, gate)

    assert ("INCONCLUSIVE", 40) == (word, needed)
    assert "PASS" == _word(compare(scored("a", [0] * 40), scored("b", [100] * 40)), gate)[0]


def test_a_clear_improvement_passes_and_a_clear_drop_blocks():
    """
    From half right to all right 60 tasks pass the default gate and that for improvements, the other way they block.
    """
    chance = np.random.default_rng(5)
    half, all_right = scored("a", (100.0 * (chance.random(60) < 0.5)).tolist()), scored("b", [100.0] * 60)

    for gate in (default_gate(), load_gate("improve")):
        assert ("PASS", 0) == _verdict(compare(half, all_right), gate)
        assert ("BLOCK", 4) == _verdict(compare(all_right, half), gate)
    assert ("INCONCLUSIVE", 5) == _verdict(compare(half, half), _gate("success_rate", "at_least", 50))


def test_no_tasks_are_inconclusive():
    """
    Without any pair every measured line is inconclusive, and the document is JSON.
    """
    verdict = judge(compare(scored("a", []), scored("b", [])), default_gate())

    assert ("INCONCLUSIVE", 5) == (verdict.word, verdict.exit_code)
    json.dumps(verdict.document(), allow_nan=False)


def test_an_unpriced_model_is_inconclusive():
    """
    A rule about money cannot be judged without a price, and says so.
    """
    [line] = judge(compare(scored("a", [1] * 20), scored("b", [1] * 20, work_usd=None)), _gate("usd", "up_by_at_most", 0)).lines

    assert "INCONCLUSIVE" == line.word
    assert "has no price" in line.reason


@pytest.mark.parametrize(
    ("first", "second", "word", "code"),
    [
        ({}, {}, "WARN", 0),
        ({"t00000": Repeats(3, 3, 3, 3)}, {}, "PASS", 0),
        ({"t00000": Repeats(3, 3, 0, 3)}, {"t00000": Repeats(8, 8, 7, 8)}, "PASS", 0),
        ({"t00000": Repeats(3, 3, 0, 3)}, {"t00000": Repeats(8, 8, 0, 8)}, "BLOCK", 4),
    ],
)
def test_only_confirmed_regressions_block(first, second, word, code):
    """
    A newly failing task blocks when its repeats confirm it twice, warns when nobody repeated it, and is noise otherwise.
    """
    comparison = compare(scored("a", [100] * 20), scored("b", [0] + [100] * 19)).confirmed(first, second)
    verdict = judge(comparison, _gate("regressions", "at_most", 0))

    assert (word, code) == (verdict.word, verdict.exit_code)
    assert ("confirm: 3" in verdict.lines[0].reason) == (word == "WARN")


def test_a_share_of_the_tasks_may_regress():
    """
    ``regressions: {at_most: 5 %}`` of 60 tasks allows 3 and not 4.
    """
    base = compare(scored("a", [100] * 60), scored("b", [100] * 60))
    gate = _gate("regressions", "at_most", 5, percent=True)

    def regressed(count):
        tasks = [str(index) for index in range(count)]
        return replace(base, regressions=regressions(tasks, dict.fromkeys(tasks, Repeats(3, 3, 0, 3)), dict.fromkeys(tasks, Repeats(10, 10, 0, 10))))

    words = [_word(regressed(count), gate)[0] for count in (3, 4)]

    assert ["PASS", "BLOCK"] == words


def test_missing_tasks_are_neither_pass_nor_failure():
    """
    When too few tasks could be compared, the verdict is inconclusive.
    """
    comparison = compare(scored("a", [100] * 20), scored("b", [100] * 18))

    assert "INCONCLUSIVE" == _word(comparison, _gate("compared", "at_least", 95))[0]
    assert "PASS" == _word(comparison, _gate("compared", "at_least", 90))[0]


@pytest.mark.parametrize(("change", "word"), [((1, 2, 3), "PASS"), ((-20, -15, -10), "WARN"), ((-20, -5, 10), "WARN")])
def test_a_warning_never_blocks(change, word):
    """
    Under ``level: warn`` neither a broken limit nor an open question changes the exit code.
    """
    verdict = judge(_found(*change), _gate("score", "down_by_at_most", 0, level="warn"))

    assert (word, 0) == (verdict.word, verdict.exit_code)


def test_the_worst_line_is_the_verdict():
    """
    BLOCK outweighs INCONCLUSIVE, which outweighs WARN.
    """
    limits = {
        "BLOCK": Limit(rule="score", kind="at_least", amount=99),
        "INCONCLUSIVE": Limit(rule="score", kind="up_by", amount=12),
        "WARN": Limit(rule="score", kind="at_least", amount=99, level="warn"),
        "PASS": Limit(rule="score", kind="up_by", amount=1),
    }
    found, words = _found(5, 11, 17), list(limits)

    for start in range(4):
        assert words[start] == judge(found, Gate(name="g", limits=tuple(limits[word] for word in reversed(words[start:])))).word


def _with_criteria(losses, count, among):
    tasks = [task(f"t{index}", 50) for index in range(count)]

    def steps(lost):
        return [step(f"t{index}", 50.0, met={f"c{number}": not (number == 0 and index < lost) for number in range(among)}) for index in range(count)]

    return compare(side("a", tasks, steps(0)), side("b", tasks, steps(losses)))


def test_a_guard_among_many_criteria_blocks_only_beyond_chance():
    """
    Six tasks lost on one criterion block when it is the only one, and are chance among twenty.
    """
    gate = _gate("extract/c0", "down_by_at_most", 0)

    assert "BLOCK" == _word(_with_criteria(6, 40, 1), gate)[0]
    assert "INCONCLUSIVE" == _word(_with_criteria(6, 40, 20), gate)[0]
    assert "BLOCK" == _word(_with_criteria(15, 40, 20), gate)[0]


def test_a_node_or_criterion_that_nobody_has_is_refused():
    """
    A gate for another workflow is an error and no verdict.
    """
    with pytest.raises(Unusable, match="did you mean 'extract/c0'"):
        judge(_with_criteria(0, 10, 1), _gate("extract/c_0", "up_by", 1))


def _verdict(comparison, gate):
    verdict = judge(comparison, gate)
    return verdict.word, verdict.exit_code
