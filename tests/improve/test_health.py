"""Warning signs: where each begins, what is set aside, and what the rules file may say."""

from pathlib import Path

import pytest

from beam_ray.errors import BadDefinition, Unusable
from beam_ray.improve.health import Finding, Health, health
from beam_ray.improve.health_rules import DEFAULT_RULES, load_rules
from beam_ray.publish import publish, rollback
from beam_ray.store.lookup import find_task
from tests.commands import run_command
from tests.conftest import Lab
from tests.improve.past_runs import RETRIED, away, queries, timed_run, tries

PLAIN = 'workflow: timed\nmodel: m\nnodes:\n  say: {llm: {prompt: "%s {{ task_query }}"}}\n'


def sign(found: Health, rule: str, node: str = "") -> Finding:
    """The one sign of that rule."""
    [one] = [entry for entry in found.signs if (entry.rule, entry.node) == (rule, node)]
    return one


@pytest.mark.parametrize(("count", "word"), [(29, "ok"), (30, "ok"), (31, "WARNING")])
def test_auto_reruns_on_more_than_30_percent_of_tasks(lab: Lab, count, word):
    """30 of 100 tasks are not more than 30 %, and 31 are; the tasks are named."""
    run = lab.run(RETRIED, queries(100), tries((count, 2), (100 - count, 1)))
    found = sign(health(lab.objects, run.record.plan), "auto_reruns")

    assert found.word == word
    assert (found.figures["with_auto_reruns"], found.figures["tasks"], found.figures["percent"]) == (count, 100, count)
    assert found.tasks == (tuple(f"{run.run_id}/t{number}" for number in range(31)) if count == 31 else ())


@pytest.mark.parametrize(("count", "word"), [(9, "ok"), (10, "WARNING"), (11, "WARNING")])
def test_a_step_that_uses_all_its_auto_reruns_on_10_percent_of_tasks(lab: Lab, count, word):
    """Second of two auto-reruns: used up whether it then passes or not, and those in vain are named first."""
    run = lab.run(RETRIED, queries(100), tries((5, 3), (count - 5, 0), (100 - count, 2)))
    found = sign(health(lab.objects, run.record.plan), "used_up", "say")

    assert (found.word, found.figures["used_up"], found.figures["in_vain"]) == (word, count, count - 5)
    if found.word == "WARNING":
        assert found.tasks[0] == f"{run.run_id}/t5/say"
        assert find_task(lab.objects, found.tasks[0]).task == "t5"
        assert found.commands[-1] == f"beam-ray optimise {run.run_id}/t5 --step say"


@pytest.mark.parametrize(("helped", "word"), [(0, "WARNING"), (1, "WARNING"), (20, "ok")])
def test_auto_reruns_that_rarely_improve_scores(lab: Lab, helped, word):
    """The uplift of 20 steps that were tried again: of none or one of them its interval contains 0, of all of them it does not."""
    run = lab.run(RETRIED, queries(60), tries((helped, 2), (20 - helped, 0), (40, 1)))
    found = sign(health(lab.objects, run.record.plan), "uplift", "say")

    assert (found.word, found.figures["auto_rerun_steps"], found.figures["better"]) == (word, 20, helped)
    assert found.figures["uplift"] == 5 * helped
    assert len(found.tasks) == (20 - helped if found.word == "WARNING" else 0)


@pytest.mark.parametrize(("after", "word"), [(1.24, "ok"), (1.25, "ok"), (1.26, "WARNING")])
def test_execution_time_up_by_more_than_25_percent(lab: Lab, after, word):
    """Exactly a quarter more is allowed; the tasks that both versions ran are compared, and no others."""
    old, new = (lab.workflow(PLAIN % text) for text in ("old", "new"))
    publish(lab.objects, old, reason="first")
    publish(lab.objects, new, reason="second")
    names = [f"t{number}" for number in range(12)]
    timed_run(lab, old, "before", {**dict.fromkeys(names, 1.0), "other": 100.0})
    timed_run(lab, new, "after", dict.fromkeys(names, after))
    found = sign(health(lab.objects, new, 2), "seconds")

    assert (found.word, found.figures["seconds_before"], found.figures["seconds"], found.figures["same_tasks"]) == (word, 1.0, pytest.approx(after), True)
    if word == "WARNING":
        assert found.commands[0] == "beam-ray compare before after"


def test_execution_time_over_other_tasks_says_so(lab: Lab):
    """Without ten tasks in common all tasks of each version count, the words say it, and the slowest are named first."""
    old, new = (lab.workflow(PLAIN % text) for text in ("old", "new"))
    publish(lab.objects, old, reason="first")
    publish(lab.objects, new, reason="second")
    timed_run(lab, old, "before", {f"a{number}": 1.0 for number in range(10)})
    timed_run(lab, new, "after", {f"b{number}": 1.0 + number for number in range(10)})
    found = sign(health(lab.objects, new, 2), "seconds")

    assert (found.word, found.figures["same_tasks"], found.figures["interval"]) == ("WARNING", False, None)
    assert "which may differ in difficulty" in found.found
    assert found.tasks[0] == "after/b9"
    assert found.commands[0] == "beam-ray diff timed@1 timed@2"


def test_a_rollback_is_compared_with_what_it_replaced(lab: Lab):
    """The previous version is the newest one of another definition."""
    old, new = (lab.workflow(PLAIN % text) for text in ("old", "new"))
    publish(lab.objects, old, reason="first")
    publish(lab.objects, new, reason="second")
    rollback(lab.objects, "timed", 1)
    timed_run(lab, old, "before", {"a": 1.0})

    assert health(lab.objects, old, 3).previous == health(lab.objects, old).previous == 2
    assert health(lab.objects, old, 1).previous is None


def test_a_model_that_was_away_is_no_sign_of_anything(lab: Lab):
    """Of 20 tasks the model left 8 without an answer: the other 12 are all that is counted."""
    good = tries((4, 2), (16, 1))
    run = lab.run(RETRIED, queries(20), lambda request: away(request) if int(request.task_id[1:]) >= 12 else good(request))
    found = health(lab.objects, run.record.plan)

    assert (found.tasks, found.model_away) == (20, 8)
    assert sign(found, "auto_reruns").figures == {"tasks": 12, "with_auto_reruns": 4, "percent": 33.3333, "by_node": {"say": 4}, "left_out": 8}
    assert sign(found, "used_up", "say").figures["steps"] == 12


def test_what_could_not_be_scored_is_left_out_and_never_0(lab: Lab):
    """Where the judge gave no answer nobody knows whether a second try was needed, or what it brought."""
    text = RETRIED.replace("{check: \"say.text == 'good'\", id: good}", "It is good.")

    def answer(request):
        number = int(request.task_id[1:])
        if not request.judges:
            return f"answer {request.attempt}"
        if number >= 24 or (number < 12 and request.attempt == 2):
            raise TimeoutError("the judge is away")
        return {"criterion_1": {"reason": "so it is", "met": number >= 12 and request.attempt == 2}}

    run = lab.run(text, queries(36), answer)
    found = health(lab.objects, run.record.plan)

    assert sign(found, "auto_reruns").figures == {"tasks": 24, "with_auto_reruns": 24, "percent": 100.0, "by_node": {"say": 24}, "left_out": 12}
    uplift = sign(found, "uplift", "say").figures
    assert (uplift["auto_rerun_steps"], uplift["left_out"], uplift["uplift"]) == (12, 12, 100.0)


def test_few_tasks_warn_of_nothing(lab: Lab):
    """Nine tasks that all need a second try are too few, and the sign says so."""
    run = lab.run(RETRIED, queries(9), tries((9, 0)))
    found = health(lab.objects, run.record.plan)

    assert {entry.word for entry in found.signs} == {"unknown"}
    assert sign(found, "auto_reruns").found == "too few tasks: 9 of 10"


def test_reruns_do_not_count_and_borrowed_work_counts_once(lab: Lab):
    """A rerun is of tasks that were chosen because they failed; a run that borrows everything executes nothing."""
    run = lab.run(RETRIED, queries(20), tries((2, 0), (18, 1)))
    lab.rerun(run, ["t0", "t1"], run.record.plan, tries((2, 0)))
    lab.run(run.record.plan, run.tasks(), tries((20, 1)), origin=run.run_id, borrow=True)
    found = health(lab.objects, run.record.plan)

    assert (found.tasks, len(found.runs)) == (20, 2)
    assert sign(found, "used_up", "say").figures["steps"] == 20
    assert sign(found, "auto_reruns").figures["percent"] == 10


def test_tasks_that_two_runs_execute_count_as_executions(lab: Lab):
    """Of 20 tasks that are executed twice each, the sign says 40 executions and not 40 tasks."""
    for _ in range(2):
        run = lab.run(RETRIED, queries(20), tries((15, 0), (5, 1)))
    found = health(lab.objects, run.record.plan)
    signs = [sign(found, "auto_reruns"), sign(found, "used_up", "say")]

    assert [entry.found.partition(" (")[0] for entry in signs] == ["30 of 40 executions"] * 2
    assert [entry.allowed for entry in signs] == ["at most 30% of executions", "under 10% of executions"]


def test_the_newest_runs_and_those_since_a_day(lab: Lab):
    """--last counts runs, --since days; another definition's runs never count."""
    workflow = lab.workflow(PLAIN % "x")
    for day in (18, 19, 20):
        timed_run(lab, workflow, f"r{day}", {"a": 1.0}, created_at=f"2026-11-{day}T12:00:00")
    timed_run(lab, lab.workflow(PLAIN % "y"), "other", {"a": 1.0})

    assert health(lab.objects, workflow).runs == ("r20", "r19", "r18")
    assert health(lab.objects, workflow, last=2).runs == ("r20", "r19")
    assert health(lab.objects, workflow, since="2026-11-19").runs == ("r20", "r19")
    with pytest.raises(Unusable, match="no finished run of this definition of 'timed' since 2026-11-21"):
        health(lab.objects, workflow, since="2026-11-21")


def test_the_default_rules_are_their_file():
    """What holds without a file is what people can read."""
    assert load_rules(Path(__file__).parents[2] / "configs" / "health.yaml") == DEFAULT_RULES


def test_a_rules_file_decides_what_is_checked_and_where_it_begins(lab: Lab):
    """A rule that is left out is not checked, and limits may have decimals."""
    run = lab.run(RETRIED, queries(100), tries((29, 2), (71, 1)))
    rules = load_rules(lab.write("mine.yaml", "health: mine\nmin_tasks: 20\nrules: {auto_reruns: {more_than: 28.9 %}}\n"))

    assert [(entry.rule, entry.word) for entry in health(lab.objects, run.record.plan, rules=rules).signs] == [("auto_reruns", "WARNING")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a", "rules.yaml:1:1: a health rules file starts with 'health: NAME'"),
        ("health: x\nrules: {}", "rules.yaml:2:1: no rule given"),
        ("health: x\nrules:\n  auto_reruns: 30", "rules.yaml:3:3: 'auto_reruns' must be a mapping such as {more_than: 20}"),
        ("health: x\nrules:\n  auto_rerun: {more_than: 30}", "rules.yaml:3:3: unknown key 'auto_rerun'"),
        ("health: x\nrules:\n  uplift: {confidence: 100}", "rules.yaml:3:12: "),
        ("health: x\nrules:\n  used_up: {at_least: .nan}", "rules.yaml:3:"),
        ("health: x\nrules:\n  used_up: {at_least: 101 %}", "rules.yaml:3:13: "),
        ("health: x\nrules:\n  used_up: {at_least: often}", "rules.yaml:3:13: "),
        ("health: x\nrules:\n  seconds: {up_by_more_than: true}", "rules.yaml:3:13: "),
        ("health: x\nmin_tasks: 1\nrules:\n  seconds: {}", "rules.yaml:2:1: "),
        ("rules:\n  seconds: {}", "rules.yaml:1:1: "),
    ],
)
def test_a_bad_rules_file_is_refused_with_its_place(lab: Lab, text, said):
    """Every fault has file, line and column."""
    with pytest.raises(BadDefinition) as refused:
        load_rules(lab.write("rules.yaml", text))

    assert said in str(refused.value)


def test_the_command_shows_signs_tasks_and_what_to_do_next(lab: Lab, monkeypatch, capsys):
    """The command exits with code 0 whatever it finds, and with 2 for invalid rules."""
    run = lab.run(RETRIED, queries(100), tries((31, 0), (69, 1)))
    publish(lab.objects, run.record.plan, reason="first")
    lab.write("bad.yaml", "health: x\nrules: {auto_reruns: {more_than: x}}\n")
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("BEAM_RAY_STORE", "store")

    found = run_command(capsys, "health", "retried")
    out = found.out
    assert found.code == 0
    assert out.startswith("retried version 1 · 100 tasks in 1 run, 69 passed · rules default")
    assert "tasks with auto-reruns 31 of 100 tasks (31.0 %) at most 30% of tasks WARNING" in " ".join(out.split())
    assert f"tasks: {run.run_id}/t0, {run.run_id}/t1" in out
    assert f"beam-ray show {run.run_id}/t0 --step say --store store" in out

    refused = run_command(capsys, "health", "retried", "--rules", "bad.yaml")
    assert (refused.code, refused.err.splitlines()[0][:14]) == (2, "bad.yaml:2:23:")
