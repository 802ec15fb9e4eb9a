"""Where the scatter of scores comes from, and what to buy more of."""

import random
from pathlib import Path
from typing import Any

import pytest

from beam_ray.cli.judge_reports import show_variance
from beam_ray.improve.criteria import judged_runs, present_criteria
from beam_ray.improve.score_variance import node_variance
from beam_ray.llm import Request
from beam_ray.review.variance import VarianceComponents, components
from tests.conftest import Lab
from tests.golden import check_golden
from tests.improve.scripted import executor
from tests.review.judged import verdict, workflow


def scattered(tasks: int, trials: int, repeats: int, task: float, trial: float, judge: float, seed: int = 1) -> list[list[list[float]]]:
    """Scores with these standard deviations."""
    chance = random.Random(seed)
    found = []
    for _ in range(tasks):
        middle = 70 + chance.gauss(0, task)
        outputs = [middle + chance.gauss(0, trial) for _ in range(trials)]
        found.append([[output + chance.gauss(0, judge) for _ in range(repeats)] for output in outputs])
    return found


@pytest.mark.parametrize("parts", [(20, 10, 5), (0, 10, 5), (20, 0, 10), (5, 20, 0)])
def test_components_are_found_again(parts: tuple[float, float, float]) -> None:
    """Means over 40 experiments of the variances that were put in."""
    found = [components("n", scattered(60, 3, 3, *parts, seed=seed)) for seed in range(40)]
    means = [
        sum(value**2 for value in values) / len(values)
        for values in zip(*((each.between_tasks, each.between_trials, each.between_judgements) for each in found if each), strict=True)
    ]

    for mean, part in zip(means, parts, strict=True):
        # estimates below 0 are cut, which lifts the mean of a part that is not there
        assert mean == pytest.approx(part**2, rel=0.15, abs=6)


def test_the_standard_error_is_that_of_the_mean() -> None:
    """Over 300 experiments the means scatter as much as one experiment says on average."""
    means, errors = [], []
    for seed in range(300):
        scores = scattered(20, 2, 2, 10, 10, 10, seed=seed)
        found = components("n", scores)
        assert found
        errors.append(found.error)
        means.append(sum(output[0] for task in scores for output in task) / 40)
    middle = sum(means) / len(means)

    assert (sum((mean - middle) ** 2 for mean in means) / 299) ** 0.5 == pytest.approx(sum(errors) / 300, rel=0.12)


@pytest.mark.parametrize(
    ("parts", "costs", "best"),
    [
        ((20, 5, 5), (0.01, 0.01), "tasks"),
        # an output costs a hundred judgements, and the judge is what scatters
        ((2, 2, 30), (1.0, 0.01), "judge repeats"),
        # the same judge, as dear as the outputs: more tasks bring more outputs and judgements alike
        ((2, 2, 30), (0.01, 1.0), "tasks"),
    ],
)
def test_what_to_buy_depends_on_parts_and_prices(parts: tuple[float, float, float], costs: tuple[float, float], best: str) -> None:
    """The purchase that lowers the standard error most for a tenth of what was spent."""
    found = VarianceComponents("n", 50, 2, 50, 2, *parts, *costs)

    assert found.purchases()[0][0] == best
    assert all(error < found.error for _, error in found.purchases())
    assert not VarianceComponents("n", 50, 2, 50, 2, *parts, None, None).priced


def test_a_sample_of_half_failed_outputs_is_weighed() -> None:
    """Of 100 tasks 90 score 100 and 10 score 0; ten of each are judged: the tasks' part is that of all, 30 points, and not 50."""
    scores = [[[100.0, 100.0]]] * 10 + [[[0.0, 0.0]]] * 10
    found = components("n", scores, weights=[9.0] * 10 + [1.0] * 10, tasks=100)

    assert found and found.between_tasks == pytest.approx(30, rel=0.06)
    assert found.error == pytest.approx(3, rel=0.06)


def test_what_was_not_repeated_is_not_told() -> None:
    """One trial: its part lies in that of the tasks; and nothing is recommended that was not measured."""
    found = components("n", scattered(30, 1, 3, 10, 10, 3))
    assert found
    assert found.between_trials is None and found.between_judgements is not None
    assert "trials" not in [name for name, _ in found.purchases()]
    assert components("n", []) is None


def test_stored_outputs_judged_again_tell_trials_and_judge_apart(lab: Lab) -> None:
    """A judge that tosses a coin over outputs that are all alike: all of the scatter is the judge's, and only it is asked again."""
    calls: list[Request] = []

    def model(request: Request) -> Any:
        calls.append(request)
        if not request.judges:
            return "reply"
        return verdict(request, random.Random(f"{request.task_id} {request.trial} {request.seed}").random() < 0.5)

    run = lab.run(lab.workflow(workflow()), [f"question {number}" for number in range(30)], model, trials=2)
    calls.clear()
    again = judged_runs(
        executor(lab, model),
        run,
        "reply",
        present_criteria(run.record.plan, "reply"),
        [f"t{number}" for number in range(30)],
        source=run.record.plan,
        repeats=4,
    )
    found = node_variance("reply", run, again)

    assert found and (found.tasks, found.trials, found.outputs, found.judgements) == (30, 2, 30, 4)
    assert found.between_judgements == pytest.approx(25, rel=0.2)  # half of two criteria: 50 or 100
    assert (found.between_trials or 0) < 12 and (found.between_tasks or 0) < 12
    assert {request.judges for request in calls} == {True}
    assert len(calls) == 3 * 60


def test_the_screen_of_variance(capsys: pytest.CaptureFixture[str]) -> None:
    """Parts, standard errors and the advice, with what was not measured."""
    show_variance(VarianceComponents("reply", 200, 2, 50, 3, 20.0, 10.0, 5.0, 0.01, 0.001))
    show_variance(VarianceComponents("reply", 200, 1, 50, 3, 20.0, None, 5.0, None, None))

    check_golden(Path(__file__).parent / "golden", "variance.txt", capsys.readouterr().out)
