"""A workflow over time: what a day's numbers are made of, and when a canary set has changed."""

import random
from collections.abc import Callable
from typing import Any, get_type_hints

import pytest

import beam_ray
from beam_ray.errors import Unusable
from beam_ray.improve.trend import CanarySet, Trend, trend
from beam_ray.publish import publish
from beam_ray.store.checksummed_json import seal
from beam_ray.store.runs import Run
from tests.commands import run_command
from tests.conftest import Lab
from tests.improve.past_runs import away, queries
from tests.shapes import misfits

JUDGED = """
workflow: judged
model: m
nodes:
  say:
    llm: {prompt: "%s {{ task_query }}"}
    evaluate: {criteria: [{check: "say.text == 'good'", id: good}]}
"""


def good(chance: float, seed: int) -> Callable[[beam_ray.Request], str]:
    """A model that is right on so large a part of the tasks, drawn at random."""
    return lambda request: "good" if random.Random(f"{seed}/{request.task_id}").random() < chance else "bad"


def dated(lab: Lab, run: Run, day: str) -> Run:
    """The run, begun on another day."""
    lab.objects.put(f"{run.prefix}/run.json", seal({**run.written, "created_at": f"{day}T08:00:00"}))
    return Run(lab.objects, run.run_id)


def judged(lab: Lab, day: str, answer: Callable[[beam_ray.Request], Any], *, prompt: str = "read", tasks: int = 40, **how: Any) -> Run:
    """A run of that day."""
    return dated(lab, lab.run(JUDGED % prompt, queries(tasks), answer, **how), day)


def test_numbers_per_version_and_day(lab: Lab) -> None:
    """
    Runs of one day and version are one point whose tasks count once; a draft that was published later has the version's number.
    """
    first = judged(lab, "2026-11-01", good(1, 0), tasks=4)
    judged(lab, "2026-11-01", good(0, 0), tasks=2)
    judged(lab, "2026-11-02", good(1, 0), tasks=4)
    judged(lab, "2026-11-02", good(0, 0), prompt="write", tasks=4)
    publish(lab.objects, first.record.plan, reason="the first")

    points = trend(lab.objects, "judged").points

    assert [(one.day, one.version, one.tasks, one.executions) for one in points] == [
        ("2026-11-01", 1, 4, 6),
        ("2026-11-02", None, 4, 4),
        ("2026-11-02", 1, 4, 4),
    ]
    # two tasks passed in one run of two, and two in their only run
    assert [one.success and one.success["value"] for one in points] == [75, 0, 100]
    assert [one.score and (one.score["value"], one.score["low"]) for one in points][1] == (0, 0)
    success = points[2].success
    assert success is not None
    assert 25 < (success["low"] or 0) < success["high"] == 100
    assert [one.day for one in trend(lab.objects, "judged", since="2026-11-02").points] == ["2026-11-02", "2026-11-02"]


def test_what_does_not_count(lab: Lab) -> None:
    """
    Reruns of selected tasks, tasks that a run only borrowed, and tasks without an answer are no evidence of a day.
    """
    first = judged(lab, "2026-11-01", good(0.5, 0), tasks=6)
    dated(lab, lab.rerun(first, ["t0", "t1"], first.record.plan, good(0, 0)), "2026-11-02")
    judged(lab, "2026-11-03", good(0, 0), tasks=6, origin=first.run_id, borrow=True, mode="candidate")
    judged(lab, "2026-11-04", away, tasks=6)

    points = trend(lab.objects, "judged").points

    assert [(one.day, one.executions, one.unanswered) for one in points] == [("2026-11-01", 6, 0), ("2026-11-04", 0, 6)]
    assert points[1].success is None


def canary(found: Trend) -> CanarySet:
    """The one canary set."""
    [one] = found.canaries
    return one


def test_a_model_that_changed_under_its_name(lab: Lab) -> None:
    """
    The newest of three runs of the same tasks is compared with the first, and what fell from 95 to 50 % is a change with its p.
    """
    runs = [judged(lab, f"2026-11-0{day}", good(chance, day)) for day, chance in ((1, 0.95), (2, 0.95), (3, 0.5))]

    found = canary(trend(lab.objects, "judged"))

    assert [one.run_id for one in found.runs] == [run.run_id for run in runs]
    assert (found.word, found.tasks, len(found.newly_failing) > 10) == ("CHANGED", 40, True)
    assert found.p < 0.001
    assert found.p == pytest.approx(2 * min(found.p_success, found.p_score))
    assert found.outputs_differ == len(found.newly_failing) + len(found.newly_passing)


def test_a_flaky_model_that_did_not_change(lab: Lab) -> None:
    """
    Of ten canary sets of a model that is right in 80 % of its answers, each time on other tasks, none is said to have changed.
    """
    for number in range(10):
        for day in (1, 2):
            judged(lab, f"2026-11-0{day}", good(0.8, 100 * day + number), prompt=f"read{number}", tasks=30)

    found = trend(lab.objects, "judged")

    assert [one.word for one in found.canaries] == ["no change shown"] * 10
    assert all(one.outputs_differ for one in found.canaries)


@pytest.mark.parametrize("other", ["tasks", "definition", "trials"])
def test_what_is_no_canary_set(lab: Lab, other: str) -> None:
    """
    Runs of other tasks, another definition or other trials are not compared.
    """
    judged(lab, "2026-11-01", good(1, 0), tasks=5)
    judged(
        lab,
        "2026-11-02",
        good(0, 0),
        tasks=6 if other == "tasks" else 5,
        prompt="other" if other == "definition" else "read",
        trials=2 if other == "trials" else 1,
    )

    assert trend(lab.objects, "judged").canaries == ()


def test_the_command_and_its_pages(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The command says that a model changed and which command shows it; the page has plots and no script or address, the document its declared shape.
    """
    first, last = (judged(lab, f"2026-11-0{day}", good(chance, day)) for day, chance in ((1, 1.0), (2, 0.5)))
    page, text = lab.folder / "trend.html", lab.folder / "trend.md"
    store = str(lab.folder / "store")

    said = run_command(capsys, "trend", "judged", "--store", store, "--html", page, "--markdown", text)
    document = run_command(capsys, "trend", "judged", "--store", store, "--json").json
    made = beam_ray.open(store).trend("judged")

    assert said.code == 0
    assert "CHANGED: answers of m are not what they were" in said.out
    assert f"beam-ray compare {first.run_id} {last.run_id} --store {store}" in said.out
    assert page.read_text().count("<svg") == 2
    assert not any(word in page.read_text() for word in ("<script", "http://", "https://"))
    assert text.read_text().startswith("# judged over time")
    assert document["canaries"][0]["word"] == "CHANGED"
    assert misfits(made.document(), get_type_hints(type(made).document)["return"]) == []


def test_no_run(lab: Lab) -> None:
    """
    A name without finished runs is refused with those that have some.
    """
    judged(lab, "2026-11-01", good(1, 0), tasks=2)

    with pytest.raises(Unusable, match="no finished run of a workflow 'judge'.*\n.*judged\n  did you mean 'judged'"):
        trend(lab.objects, "judge")
    with pytest.raises(Unusable, match="since 2027-01-01"):
        trend(lab.objects, "judged", since="2027-01-01")
