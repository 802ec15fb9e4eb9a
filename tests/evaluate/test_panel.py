"""A panel of judges: a majority decides, whoever of the others fails; and one judge is as before."""

import asyncio
import json
from typing import Any

import pytest

import beam_ray
from beam_ray.compare.compare_runs import compare_runs
from beam_ray.errors import BadDefinition, ModelRefused, ModelUnavailable
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.prices import Price
from beam_ray.run.plan import Lineage, load_workflow, make_plan
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.commands import run_command
from tests.conftest import Lab, drive_here
from tests.review.judged import verdict, workflow

TASKS = [f"question {number}" for number in range(6)]


def judge(*words: Any) -> ScriptedModel:
    """A judge that says so about t0, t1, … in turn; an exception is raised."""

    def answer(request: Request) -> Any:
        said = words[int(request.task_id[1:]) % len(words)]
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, str) else verdict(request, said, f"because {said}")

    return ScriptedModel(answer)


def panel_run(lab: Lab, text: str, judges: dict[str, ScriptedModel], **lineage: Any) -> Run:
    """A finished run whose model is 'm', judged by *judges*."""
    models = {"m": ScriptedModel(lambda request: f"reply {request.task_id}"), **judges}
    plan = make_plan(lab.workflow(text), lab.tasks(TASKS), models, lineage=Lineage(**lineage))
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))
    return Run(lab.objects, record.run_id)


def polite(run: Run) -> list[dict[str, Any]]:
    """What was decided of the criterion 'polite', task by task."""
    return [next(entry for entry in row["criteria"] if entry["id"] == "polite") for row in run.steps(["reply"]).to_pylist()]


def test_a_majority_decides_and_each_judges_word_is_kept(lab: Lab) -> None:
    """All, two and one of three; the reason is of one who was in the majority."""
    run = panel_run(lab, workflow("[a, b, c]"), {"a": judge(True, True, False), "b": judge(True, False, False), "c": judge(True, True, True)})

    found = polite(run)
    assert [entry["met"] for entry in found] == [True, True, False] * 2
    assert [entry["reason"] for entry in found[:3]] == ["3 of 3 judges: because True", "2 of 3 judges: because True", "2 of 3 judges: because False"]
    assert (found[1]["judge"], found[1]["judges"][1]) == ("a, b, c", {"judge": "b", "met": False, "reason": "because False"})
    assert [row["judge_calls"] for row in run.steps(["reply"]).to_pylist()] == [3] * 6


AWAY = ModelUnavailable("no answer within 1 s")


@pytest.mark.parametrize(
    ("words", "met", "score", "said"),
    [
        ((AWAY, True, True), True, 100.0, "2 of 3 judges: because True"),
        (("no JSON", False, False), False, 50.0, "2 of 3 judges: because False"),
        ((ModelRefused("the model declined"), True, False), None, None, "no majority: 1 of 3 judges say met, 1 not met; a: the judge declined"),
        ((AWAY, AWAY, True), None, None, "no majority: 1 of 3 judges say met, 0 not met; a: the judge gave no answer"),
        ((True, False), None, None, "no majority: 1 of 2 judges say met, 1 not met"),
        ((True, AWAY), None, None, "no majority: 1 of 2 judges say met, 0 not met; b: the judge gave no answer"),
        ((True, True, False, False), None, None, "no majority: 2 of 4 judges say met, 2 not met"),
    ],
)
def test_a_failed_judge_matters_only_where_it_takes_the_majority(lab: Lab, words: tuple[Any, ...], met: bool | None, score: float | None, said: str) -> None:
    """More than half of the panel must say the same; ties and lone voices leave the output unscored, with the reason."""
    names = "abcd"[: len(words)]
    run = panel_run(lab, workflow(f"[{', '.join(names)}]"), {name: judge(word) for name, word in zip(names, words, strict=True)})

    assert [(entry["met"]) for entry in polite(run)] == [met] * 6
    assert polite(run)[0]["reason"].startswith(said)
    row = run.steps(["reply"]).to_pylist()[0]
    assert (row["outcome"], row["score"], row["unscored"] is None) == ("done", score, score is not None)


def test_one_judge_is_as_it_was_before_panels(lab: Lab) -> None:
    """Digest of the definition, criteria's fingerprint and stored criteria; a list of one is that one."""
    alone, listed = load_workflow(lab.write("a.yaml", workflow("a")))[0], load_workflow(lab.write("b.yaml", workflow("[a]")))[0]
    run = panel_run(lab, workflow("a"), {"a": judge(True)})

    # as version 0.1 computed it
    assert alone.digest == listed.digest == "195d2a6b882521638734250f7c708e34"
    assert {row["criteria_fingerprint"] for row in run.steps(["reply"]).to_pylist()} == {"4ce1bb4fac91308e94f2c0c8fdd318b0"}
    assert (polite(run)[0]["judge"], polite(run)[0]["judges"]) == ("a", None)


def test_another_panel_scores_stored_outputs_anew(lab: Lab) -> None:
    """The criteria's fingerprint holds every judge, in order: with one more, outputs are borrowed and judged again; with the same, not."""
    judges = {name: judge(True) for name in "abc"}
    first = panel_run(lab, workflow("[a, b]"), judges)
    again, other = (panel_run(lab, workflow(text), judges, origin=first.run_id, borrow=True) for text in ("[a, b]", "[a, b, c]"))

    assert [(sum(run.steps()["calls"].to_pylist()), sum(run.steps()["judge_calls"].to_pylist())) for run in (first, again, other)] == [(6, 12), (0, 0), (0, 18)]


def test_plans_count_every_judge(lab: Lab) -> None:
    """Calls and dollars; a budget in dollars needs the price of each."""
    models = {"m": ScriptedModel(str, Price(1, 1)), **{name: ScriptedModel(str, Price(1, 1)) for name in "abc"}}
    plans = [make_plan(lab.workflow(workflow(text)), lab.tasks(TASKS), models) for text in ("a", "[a, b, c]")]

    assert [plan.nodes[0].judge_calls for plan in plans] == [6, 18]
    assert plans[1].nodes[0].judge_usd == pytest.approx(3 * (plans[0].nodes[0].judge_usd or 0))
    assert plans[1].workflow.models == ("m", "a", "b", "c")


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("[a, a]", "the panel of judges names 'a' twice; a model has one vote"),
        ("[]", "a judge must be a model's name or a list of names, not []"),
        ("[a, 3]", "a judge must be a model's name or a list of names, not ['a', 3]"),
        ("{a: b}", "a judge must be a model's name or a list of names, not {'a': 'b'}"),
        ("[a, b, c, d, e, f, g, h, i, j]", "a panel must have at most 9 judges, not 10"),
    ],
)
def test_a_malformed_panel_is_refused_with_its_place(lab: Lab, written: str, said: str) -> None:
    """One line with file, line and column."""
    with pytest.raises(BadDefinition) as caught:
        lab.workflow(workflow(written), "w.yaml")

    [problem] = caught.value.problems
    assert (problem.line, problem.text) == (4, said)


def test_an_even_panel_is_warned_of(lab: Lab) -> None:
    """Two judges tie whenever they disagree."""
    _, warnings = load_workflow(lab.write("w.yaml", workflow("[a, b]")))

    assert [warning.text for warning in warnings] == ["warning: a panel of 2 judges can tie, which leaves the output unscored; an odd number cannot"]


def test_a_report_says_how_often_the_judges_disagreed(lab: Lab) -> None:
    """Per criterion and side; nothing where single judges decide."""
    apart = panel_run(lab, workflow("[a, b, c]"), {"a": judge(True), "b": judge(True, False), "c": judge(True)})
    alike = panel_run(lab, workflow("[a, b, c]", "answer"), {name: judge(True) for name in "abc"})
    alone = panel_run(lab, workflow("a"), {"a": judge(True)})

    assert compare_runs(apart, alike, names=("v1", "v2")).judge_notes == (
        "reply/polite: the judges disagreed on 50.0% of 6 outputs (v1) and 0.0% of 6 outputs (v2).",
    )
    assert compare_runs(alone, alone, names=("v1", "v2")).judge_notes == ()


def test_a_task_shows_what_each_judge_said(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """In Python and in ``show --step``."""
    run = panel_run(lab, workflow("[a, b, c]"), {"a": judge(True), "b": judge(False), "c": judge(True)})
    step = beam_ray.open(lab.objects.uri, models={}).task(f"{run.run_id}/t0").step("reply")

    assert step.criteria[0].judges[1] == beam_ray.JudgeVerdict("b", False, "because False")
    shown = run_command(capsys, "show", f"{run.run_id}/t0", "--step", "reply", "--store", lab.objects.uri).out.splitlines()
    assert shown[2:6] == [
        "  met        The reply is polite.  (2 of 3 judges: because True)  judged by a, b, c",
        "             a: met (because True)",
        "             b: not met (because False)",
        "             c: met (because True)",
    ]
    queue = beam_ray.open(lab.objects.uri, models={}).review_queue("replies", sample=beam_ray.ReviewSample("disagreed"))
    assert len(queue.items) == 6 and json.dumps(queue.items[0].question("polite").judge) == '"a, b, c"'
