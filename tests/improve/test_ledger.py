"""The rerun ledger: what had failed, what had changed, what was solved, and what a dollar totals."""

import asyncio
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from beam_ray.errors import ModelUnavailable, Unusable
from beam_ray.improve.failure_groups import without_task_details
from beam_ray.improve.ledger import Ledger, ledger
from beam_ray.improve.ledger_report import figures, html, markdown, summary
from beam_ray.llm import Answer, ScriptedModel
from beam_ray.llm.prices import Price
from beam_ray.rerun import make_rerun
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.golden import check_golden

HOSTILE = "<script>alert(1)</script>\"'>{{ 7*7 }}|[a](http://evil.example) @all\x1b[31m\u202e"

SUMS = """
workflow: sums
model: m
nodes:
  read:
    llm: {prompt: "%s {{ task_query }}", returns: {n: int}}
    evaluate: {criteria: [{equals: {n: expected.n}}, {check: read.n >= 0, id: positive}]}
"""


def answer(request):
    """Reads 0 rightly, and with a better prompt all but 7; the model is away for 5 unless the prompt is better."""
    word, number = request.messages[-1]["content"].split()
    if number == "5" and word == "read":
        raise ModelUnavailable("no answer within 120 s")
    if number == "7":
        return "no JSON"
    return {"n": int(number) if word == "better" or number == "0" else -1}


def numbers(*chosen: int) -> list[dict[str, object]]:
    """Tasks that ask for these numbers."""
    return [{"id": f"n{number}", "task_query": str(number), "expected": {"n": number}} for number in chosen]


def first_run(lab: Lab, *chosen: int) -> Run:
    """The first prompt over tasks with these numbers."""
    return lab.run(SUMS % "read", numbers(*chosen), answer)


def paid(usd: float):
    """Each answer for so many dollars, at a price of a dollar for a million tokens."""

    def said(request):
        found = answer(request)
        return Answer(found if isinstance(found, str) else json.dumps(found), int(usd * 1_000_000), 0)

    return said


@pytest.fixture
def redone(lab: Lab) -> tuple[Ledger, Run]:
    """Two tasks tried again with nothing changed, then all with a better prompt."""
    run = first_run(lab, 0, 1, 2, 5, 7)
    lab.rerun(run, ["n1", "n2"], run.record.plan, answer, because="perhaps chance")
    lab.rerun(run, ["n0", "n1", "n2", "n5", "n7"], lab.workflow(SUMS % "better"), answer, because="asked more plainly")
    return ledger(lab.objects, "sums"), run


def test_which_tasks_were_redone_and_why_and_what_had_changed(redone):
    """Each rerun has its reason, the changed fields with their diff, and each task before and after."""
    found, run = redone
    first, second = found.reruns

    assert [(rerun.because, [change.name for change in rerun.changed]) for rerun in found.reruns] == [
        ("perhaps chance", []),
        ("asked more plainly", ["read.llm.prompt"]),
    ]
    assert "-read {{ task_query }}\n+better {{ task_query }}" in second.changed[0].diff
    assert {task.origin: task.word for task in first.tasks} == dict.fromkeys([f"{run.run_id}/n1", f"{run.run_id}/n2"], "not solved")
    assert {task.key[0]: task.word for task in second.tasks} == {"n0": "still passes", "n1": "solved", "n2": "solved", "n5": "solved", "n7": "not solved"}
    assert [(task.before.score, task.after.score) for task in second.tasks if task.key[0] == "n1"] == [(0.0, 100.0)]


def test_failures_are_grouped_by_step_and_criterion_or_error(redone):
    """Tasks that failed alike are one pattern, the biggest first, each task once; with how many pass now."""
    found, run = redone

    assert [(each.failure.kind, each.failure.what, len(each.tasks), each.passing) for each in found.patterns] == [
        ("criterion", "n", 2, 2),
        ("criterion", "positive", 2, 2),
        ("error", "BadAnswer", 1, 0),
        ("model away", "ModelUnavailable", 1, 1),
    ]
    assert found.patterns[0].tasks == (f"{run.run_id}/n1", f"{run.run_id}/n2")


def test_messages_that_differ_in_numbers_ids_and_quotes_are_alike():
    """What differs from task to task is taken out, words are not."""
    assert (
        without_task_details("no answer within 120 s for 'inv-17'")
        == without_task_details('no answer within 30.5 s for "inv-18"')
        == "no answer within # s for '…'"
    )
    assert without_task_details("row 261123-a3f19c is not there") == without_task_details("row 261124-bb0e11 is not there")
    assert without_task_details("the tool's answer") != without_task_details("the model's answer")


def test_each_task_counts_once_however_often_it_is_redone(lab: Lab):
    """A rerun of a rerun of a rerun: the task as it was first, and as it is now; all the calls."""
    run = first_run(lab, 1, 2)
    again = lab.rerun(run, ["n1", "n2"], run.record.plan, answer)
    better = lab.rerun(again, ["n1"], lab.workflow(SUMS % "better"), answer)
    lab.rerun(better, ["n1"], better.record.plan, answer)
    totals = ledger(lab.objects, "sums").totals

    assert (totals.tasks, totals.solved, totals.points, totals.scored) == (2, 1, 100.0, 2)
    assert totals.calls == 4


def test_what_a_dollar_bought(lab: Lab):
    """Two tasks solved with two calls of 75 cents each: 1.33 tasks and 133 points for a dollar."""
    run = first_run(lab, 1, 2)
    priced(lab, run, ["n1", "n2"], usd=0.75)
    totals = ledger(lab.objects, "sums").totals

    assert (totals.solved, totals.points, totals.usd) == (2, 200.0, 1.5)
    assert totals.solved_per_usd == pytest.approx(2 / 1.5)
    assert totals.points_per_usd == pytest.approx(200 / 1.5)


def priced(lab: Lab, origin: Run, tasks: list[str], *, usd: float | None) -> Run:
    """A rerun with the better prompt whose calls cost so much, or nobody knows what."""
    models = {"m": ScriptedModel(paid(usd or 0.0), price=None if usd is None else Price(input=1.0, output=0.0))}
    plan = make_rerun(lab.objects, origin, tasks, lab.workflow(SUMS % "better"), models)
    record = begin(lab.objects, plan.record, plan.tasks)
    asyncio.run(drive_here(lab.objects, record, models))
    return Run(lab.objects, record.run_id)


def test_unpriced_is_a_word_and_free_is_not_infinitely_good(lab: Lab):
    """With one unpriced rerun there is no total and nothing per dollar; for free reruns nothing per dollar is shown."""
    run = first_run(lab, 1, 2)
    lab.rerun(run, ["n1"], lab.workflow(SUMS % "better"), answer)
    free = ledger(lab.objects, "sums").totals
    priced(lab, run, ["n2"], usd=None)
    unpriced = ledger(lab.objects, "sums").totals

    assert (free.usd, free.solved_per_usd) == (0.0, None)
    assert list(dict(figures(free))) == ["cost", "points gained"]
    assert (unpriced.usd, unpriced.unpriced, unpriced.solved, unpriced.points_per_usd) == (None, 1, 2, None)
    assert dict(figures(unpriced))["solved per dollar"] == "unpriced"
    assert dict(figures(unpriced))["cost"].startswith("unpriced: 1 rerun used a model without a price")


def test_a_model_that_was_away_neither_solves_nor_harms(lab: Lab):
    """A passing task that a rerun's model leaves without an answer is not newly failing, and its score is no loss."""
    run = first_run(lab, 0, 1)
    lab.rerun(run, ["n0", "n1"], lab.workflow(SUMS % "better"), lambda request: (_ for _ in ()).throw(ModelUnavailable("no answer")))
    found = ledger(lab.objects, "sums")

    assert [task.word for task in found.reruns[0].tasks] == ["model away", "model away"]
    assert (found.totals.solved, found.totals.newly_failing, found.totals.away, found.totals.points) == (0, 0, 2, None)


def test_a_task_that_only_missed_its_model_is_solved_without_points(lab: Lab):
    """What a rerun brings back was lost to the endpoint: that is said, and the score of the half that was done is no score before."""
    text = (
        SUMS % "better"
    ) + '  say: {after: read, llm: {prompt: "%s {{ read.n }}", returns: {n: int}}, evaluate: {criteria: [{check: say.n < 0, id: less}]}}\n'
    run = lab.run(text % "read", numbers(5), answer)
    lab.rerun(run, ["n5"], lab.workflow(text % "better"), lambda request: {"n": 5 if request.node == "read" else -5})
    found = ledger(lab.objects, "sums")

    assert run.outcome()["score"].to_pylist() == [100.0]
    assert (found.totals.solved, found.totals.recovered, found.totals.points) == (1, 1, None)
    assert "1 of the solved tasks had failed only because a model did not answer" in summary(found)


def test_a_rerun_that_changed_nothing_claims_nothing(lab: Lab):
    """Solved by repetition is distinguished from solved by a change."""
    run = first_run(lab, 1)
    lab.rerun(run, ["n1"], run.record.plan, lambda request: {"n": 1})
    totals = ledger(lab.objects, "sums").totals

    assert (totals.solved, totals.unchanged) == (1, 1)


def test_other_criteria_are_another_ruler(lab: Lab):
    """A task that passes because a criterion is gone counts neither as solved nor in the points."""
    run = first_run(lab, 1)
    easier = lab.workflow((SUMS % "read").replace("{equals: {n: expected.n}}, {check: read.n >= 0, id: positive}", "{check: read.n < 0, id: any}"))
    lab.rerun(run, ["n1"], easier, answer)
    found = ledger(lab.objects, "sums")

    assert (found.reruns[0].tasks[0].word, found.reruns[0].same_criteria) == ("solved", False)
    assert (found.totals.solved, found.totals.points, found.totals.other_criteria) == (0, None, 1)


def test_a_rerun_that_goes_on_and_one_whose_origin_is_gone(lab: Lab):
    """What is not known is a word: running, or unknown."""
    run = first_run(lab, 1, 2)
    better = lab.workflow(SUMS % "better")
    lab.rerun(run, ["n1"], better, answer)
    models = {"m": ScriptedModel(answer)}
    plan = make_rerun(lab.objects, run, ["n2"], better, models)
    begin(lab.objects, plan.record, plan.tasks)
    for key, _ in list(lab.objects.keys(f"runs/{run.run_id}/")):
        lab.objects.delete(key)
    found = ledger(lab.objects, "sums")

    assert [task.word for rerun in found.reruns for task in rerun.tasks] == ["unknown", "running"]
    assert (found.totals.tasks, found.totals.solved, found.totals.points) == (1, 0, None)
    assert "1 task still running" in summary(found)
    assert [change.name for change in found.reruns[0].changed] == ["read.llm.prompt"]


def test_a_rerun_that_was_never_begun_is_no_rerun(lab: Lab):
    """A run whose planner died before its tasks were stored does not hide the others."""
    run = first_run(lab, 1)
    better = lab.workflow(SUMS % "better")
    done = lab.rerun(run, ["n1"], better, answer)
    plan = make_rerun(lab.objects, run, ["n1"], better, {"m": ScriptedModel(answer)})
    begin(lab.objects, plan.record, plan.tasks)
    lab.objects.delete(f"runs/{plan.record.run_id}/tasks.parquet")

    assert [rerun.run_id for rerun in ledger(lab.objects, "sums").reruns] == [done.run_id]


def test_a_workflow_that_never_ran_is_refused_with_those_that_did(lab: Lab):
    """The nearest name is offered."""
    first_run(lab, 1)

    with pytest.raises(Unusable, match=r"no run of a workflow 'sum' in .*\n  workflows with runs: sums\n  did you mean 'sums'"):
        ledger(lab.objects, "sum")


class _Tags(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_foreign_text_stays_text_on_every_page(lab: Lab):
    """Reasons, prompts and errors cannot become markup, links or terminal commands; the page needs nothing else."""
    run = first_run(lab, 1)
    text = json.dumps(f"better {{{{ task_query }}}} {{# #}}{HOSTILE.replace('{{ 7*7 }}', '')}", ensure_ascii=True)
    lab.rerun(run, ["n1"], lab.workflow((SUMS % "read").replace('"read {{ task_query }}"', text)), lambda request: {"n": 1}, because=HOSTILE)
    found = ledger(lab.objects, "sums")
    shown, said = html(found), markdown(found)
    tags = _Tags(shown).seen

    assert {"script", "a", "img", "link", "iframe"}.isdisjoint(tag for tag, _ in tags)
    assert not [name for _, attributes in tags for name in attributes if name.startswith("on") or name in ("src", "href")]
    assert "&lt;script&gt;" in shown and "{{ 7*7 }}" in shown and "\x1b" not in shown + said and "\u202e" not in shown + said
    assert not re.search(r"(?<!\\)<script|(?<!\\)\[a\]|://evil|@all", said)


def test_the_pages_say_the_same_as_the_document(redone):
    """Both pages have each task, pattern, reason and figure; the document is plain JSON."""
    found, run = redone
    shown, said, document = html(found), markdown(found), json.loads(json.dumps(found.document(), allow_nan=False))

    for text in (f"{run.run_id}/n1", "asked more plainly", "read.llm.prompt", "a model did not answer", "+200.0 over 3 tasks"):
        assert text in shown and text in said
    assert (document["bought"]["solved"], document["reruns"][1]["tasks"][0]["key"]["task_id"]) == (3, "n0")


@pytest.mark.parametrize("kind", ["md", "html"])
def test_golden_reports(redone, kind: str):
    """What the Markdown and HTML reports say is kept in golden files."""
    found, _ = redone
    text = markdown(found) if kind == "md" else re.sub(r"(?s)<style>.*?</style>", "<style></style>", html(found))

    check_golden(Path(__file__).parent / "golden", f"ledger.{kind}", text)


def test_json_fields_keep_the_names_of_0_1(redone):
    """Names in code may change; those that scripts read do not."""
    document = redone[0].document()

    assert {"workflow", "reruns", "patterns", "bought"} == set(document)
    assert {"run_id", "started", "origin", "start", "version", "because", "changed", "same_ruler", "tasks", "usd"} == set(document["reruns"][0])
