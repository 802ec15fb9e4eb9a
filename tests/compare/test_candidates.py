"""Several candidates: the correction of PASS, gains shrunk for having been chosen, and the front of score against cost."""

import numpy as np
import pytest
from sides import scored

from beam_ray.compare.candidates import overview
from beam_ray.compare.comparison import Comparison, compare
from beam_ray.compare.gate import Gate, Limit
from beam_ray.compare.html import html
from beam_ray.compare.markdown import markdown
from beam_ray.compare.multiplicity import correct, corrected_confidence, holm
from beam_ray.compare.pareto import Point, front
from beam_ray.compare.report import Result, document
from beam_ray.compare.shrinkage import covariance_of, shrunk
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge

UP = Gate(name="up", limits=(Limit(rule="score", kind="up_by", amount=0), Limit(rule="calls", kind="up_by_at_most", amount=0, level="warn")))
TASKS = 60


def scores(gained: int, lost: int = 0) -> list[float]:
    """Half of the tasks pass; so many of the others do too, and so many of the first no longer."""
    return [0.0] * lost + [100.0] * (30 - lost + gained) + [0.0] * (30 - gained)


def results(gains: dict[str, tuple[int, int]], gate: Gate = UP, **work: tuple[float, float]) -> tuple[list[Result], list[tuple[int, float]]]:
    """The corrected results of candidates that gain and lose so many tasks, and at which confidence which of them were compared again."""
    asked: list[tuple[int, float]] = []
    names = list(gains)

    def compared(index: int, confidence: float) -> Comparison:
        usd, seconds = work.get(names[index], (0.02, 2.0))
        candidate = scored(names[index], scores(*gains[names[index]]), work_usd=usd, work_seconds=seconds)
        return compare(scored("baseline", scores(0), work_usd=0.01, work_seconds=1.0), candidate, confidence=confidence)

    def again(index: int, confidence: float) -> Comparison:
        asked.append((index, confidence))
        return compared(index, confidence)

    alone = [Result(found, judge(found, gate)) for found in (compared(index, gate.confidence) for index in range(len(names)))]
    return correct(alone, gate, again), asked


def words(found: list[Result]) -> dict[str, tuple[str, str | None]]:
    """Each candidate's word, corrected and alone."""
    return {comparison.candidate.name: (verdict.word, verdict.own_word) for comparison, verdict in found}


def test_a_pass_must_hold_among_all_candidates() -> None:
    """
    A gain that passes alone, and not at the confidence that six candidates want, is INCONCLUSIVE, and a line says why.
    """
    found, _ = results({"strong": (14, 0), "weak": (6, 0), **{f"idle{number}": (3, 3) for number in range(4)}})
    line = found[1].verdict.lines[-1]

    assert words(found)["strong"] == ("PASS", "PASS")
    assert words(found)["weak"] == ("INCONCLUSIVE", "PASS")
    assert words(found)["idle0"] == ("INCONCLUSIVE", "INCONCLUSIVE")
    assert (line.rule, line.allowed, line.found) == ("candidates", "Holm, 6 candidates", "PASS alone")
    assert line.reason == "PASS by itself, but not at 99% confidence: with 6 candidates that can be chance."


def test_one_that_passes_makes_it_easier_for_the_next() -> None:
    """
    After a candidate has passed, the others are tested as if there were one fewer.
    """
    _, asked = results({"strong": (14, 0), "weak": (6, 0), "idle": (3, 3)})

    assert asked == [(0, 100 - 5 / 3), (1, 100 - 5 / 3), (1, 97.5)]


def test_holm_is_holm() -> None:
    """
    What holds is what Holm's method finds in the p-values, in any order.
    """
    chance = np.random.default_rng(3)
    for _ in range(200):
        p = chance.random(6) ** 4
        order = np.argsort(p)
        kept = next((rank for rank, index in enumerate(order) if p[index] > 0.05 / (6 - rank)), 6)
        found = holm(range(6), 6, 95.0, lambda index, confidence, p=p: p[index] <= 1 - confidence / 100)

        assert set(found.held) == set(order[:kept].tolist())


def test_one_candidate_is_not_corrected() -> None:
    """
    The verdict of a single candidate has no line for it, and its document no word without correction.
    """
    found, asked = results({"weak": (6, 0)})

    assert (found[0].verdict.word, found[0].verdict.own_word, asked) == ("PASS", None, [])
    assert "own_word" not in document(found)["candidates"][0]["verdict"]
    assert corrected_confidence(95, 1) == 95


def test_a_gate_that_is_not_strict_warns() -> None:
    """
    Under a gate that is not strict what only passes alone is a warning.
    """
    found, _ = results({"weak": (6, 0), **{f"idle{number}": (3, 3) for number in range(5)}}, UP.model_copy(update={"strict": False}))

    assert words(found)["weak"] == ("WARN", "PASS")


def test_a_warning_of_a_strict_gate_is_corrected_too() -> None:
    """
    A warning by a lesser line does not spare a strict gate's decisive lines the correction.
    """
    gate = UP.model_copy(update={"limits": (*UP.limits, Limit(rule="score", kind="up_by", amount=50, level="warn"))})
    found, _ = results({"weak": (6, 0), **{f"idle{number}": (3, 3) for number in range(5)}}, gate)

    assert words(found)["weak"] == ("INCONCLUSIVE", "WARN")


def test_gains_are_shrunk_towards_each_other() -> None:
    """
    Equal candidates keep what they have in common; the best one's advantage shrinks, and one that is far away hardly at all.
    """
    equal = shrunk([3.0, 3.0, 3.0], np.eye(3), 95)
    close = shrunk([2.0, 1.0, 0.0, -1.0, -2.0], np.eye(5), 95)
    outlier = shrunk([12.0, 0.5, 0.0, -0.5, 0.2], np.eye(5), 95)

    assert [each.gain for each in equal] == pytest.approx([3.0, 3.0, 3.0])
    assert 0 < close[0].gain < 1.2 and close[0].gain == pytest.approx(-close[4].gain)
    assert outlier[0].gain > 11
    assert all(each.interval.low < each.gain < each.interval.high for each in close)


def test_the_order_of_candidates_changes_nothing() -> None:
    """
    Gains in another order are shrunk to the same values.
    """
    gains, errors = [5.0, 1.0, -2.0, 0.5], [1.0, 2.0, 1.5, 1.0]
    there, back = (shrunk(values, np.diag(np.square(scale)), 95) for values, scale in ((gains, errors), (gains[::-1], errors[::-1])))

    assert [each.gain for each in there] == pytest.approx([each.gain for each in back[::-1]])


def test_what_candidates_have_in_common_shrinks_nothing() -> None:
    """
    Errors that all candidates share, such as the baseline's, widen the interval and leave the gains apart.
    """
    own, common = np.eye(3), np.full((3, 3), 8.0)
    alone, shared = shrunk([4.0, 0.0, -4.0], own, 95)[0], shrunk([4.0, 0.0, -4.0], own + common, 95)[0]

    assert shared.gain == pytest.approx(alone.gain)
    assert shared.interval.high - shared.interval.low > 2 * (alone.interval.high - alone.interval.low)


def test_candidates_that_do_the_same_count_once() -> None:
    """
    Further candidates that share the steps that are scored, and so have the same gain by the same chance, change nothing for the others.
    """
    groups = [0, 1, 2, *[2] * 9]
    same = np.equal.outer(groups, groups).astype(float)
    few, many = shrunk([6.0, 0.0, -3.0], np.eye(3) * 4 + 1, 95), shrunk([6.0, 0.0, *[-3.0] * 10], same * 4 + 1, 95)
    independent = shrunk([6.0, 0.0, *[-3.0] * 10], np.eye(12) * 4 + 1, 95)

    assert [each.gain for each in many[:3]] == pytest.approx([each.gain for each in few], abs=0.3)
    assert independent[1].gain < few[1].gain - 1


def test_the_covariance_follows_the_tasks() -> None:
    """
    Candidates whose tasks change alike have errors that go together, as far as they have tasks in common.
    """
    alike = covariance_of(np.array([[1.0, 1.0], [0.0, 0.0], [-1.0, -1.0]]), [2.0, 3.0])
    apart = covariance_of(np.array([[1.0, np.nan], [-1.0, np.nan], [np.nan, 1.0], [np.nan, -1.0]]), [2.0, 3.0])

    assert alike.tolist() == pytest.approx(np.array([[4.0, 6.0], [6.0, 9.0]]))
    assert apart.tolist() == pytest.approx(np.array([[4.0, 0.0], [0.0, 9.0]]))


def test_the_front() -> None:
    """
    A side is dominated by one that reaches at least as much for no more; equal sides do not dominate each other.
    """
    points = [Point("cheap", 70, 1), Point("twin", 70, 1), Point("dear", 90, 5), Point("poor", 69, 1), Point("worse", 80, 6), Point("slow", 90, 6)]

    assert {point.name: point.dominated_by for point in front(points)} == {
        "cheap": None,
        "twin": None,
        "dear": None,
        "poor": "cheap",
        "worse": "dear",
        "slow": "dear",
    }


@pytest.fixture(scope="module")
def several() -> list[Result]:
    """Three candidates: one dear and good, one cheap and weak, and one that is dominated."""
    gains = {"large": (14, 0), "small": (6, 0), "slow": (4, 1)}
    return results(gains, large=(0.05, 3.0), small=(0.004, 0.5), slow=(0.02, 4.0))[0]


def test_the_overview_in_the_terminal(several: list[Result], golden) -> None:
    """
    The terminal begins with all candidates: verdicts with and without correction, gains as found and shrunk, and the fronts.
    """
    golden("candidates.txt", terminal(several, "purchase-orders · sizes").partition("\n\npurchase-orders")[0] + "\n")


def test_the_overview_elsewhere(several: list[Result]) -> None:
    """
    Markdown and the page have the same overview, the page with a picture that names the candidates; JSON has its numbers.
    """
    comment, page, found = markdown(several), html(several), overview(several)
    assert found
    json = found.document()
    gain = next(each for each in json["gains"] if (each["name"], each["metric"]) == ("large", "score"))

    assert "| large | PASS | PASS |" in comment and "dominated by small" in comment
    assert page.count("<svg") == 1 + 3 * 3 and "grey ones are dominated" in page
    assert gain["found"] == pytest.approx(1400 / 60) and 0 < gain["shrunk"] < gain["found"]
    assert [(each["score"], each["cost"]) for each in json["fronts"]] == [("score", "usd"), ("score", "seconds")]
    assert {point["name"]: point["dominated_by"] for point in json["fronts"][0]["points"]} == {
        "baseline": "small",
        "large": None,
        "small": None,
        "slow": "small",
    }


def test_many_candidates_are_shown_briefly() -> None:
    """
    Of more than six candidates the terminal compares the best ones in full, and says where the others are.
    """
    found, _ = results({f"c{number}": (number, 0) for number in range(9)})
    text = terminal(found, "many")

    assert text.count("verdict: ") == 6 and "3 further candidates are compared in full in report.html" in text
