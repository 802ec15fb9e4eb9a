"""What-if: tasks of an earlier run with another input."""

import json
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.errors import BadDefinition, Unusable
from beam_ray.store.opening import open_objects

WORKFLOW = """
workflow: mails
model: m
nodes:
  sort:
    llm: {prompt: "sort {{ task_query }}"}
  greet:
    llm: {prompt: "greet {{ variables.customer }}"}
    evaluate: {criteria: [{check: "greet.text == expected.greeting"}]}
  reply:
    after: [sort, greet]
    llm: {prompt: "reply {{ sort.text }} {{ greet.text }} {{ variables.tone }}"}
"""
TASKS = [
    {"id": "a", "task_query": "one", "variables": {"customer": "Ace", "tone": "plain"}, "expected": {"greeting": "did greet Ace"}},
    {"id": "b", "task_query": "two", "variables": {"customer": "Bow", "tone": "plain"}, "expected": {"greeting": "did greet Bow"}},
]


def answer(request: beam_ray.Request) -> str:
    return f"did {request.messages[-1]['content']}"


@pytest.fixture
def mails(store: beam_ray.Store) -> beam_ray.Store:
    """The store with a scripted model that repeats what it is asked."""
    Path("mails.yaml").write_text(WORKFLOW)
    return type(store)(store.uri, {"m": beam_ray.ScriptedModel(answer)}, store.address, store.connection)


@pytest.fixture
def run(mails: beam_ray.Store) -> beam_ray.Run:
    """A run of two tasks."""
    return mails.run("mails.yaml", TASKS)


def test_only_what_sees_the_change_is_executed(mails: beam_ray.Store, run: beam_ray.Run) -> None:
    """
    The new task names its origin and what was changed; a step that uses none of it is borrowed, and the original stays as it was.
    """
    (plan,) = mails.plan_rerun(f"{run.id}/a", using="original", inputs={"variables.customer": "Zed"})
    (again,) = mails.what_if(f"{run.id}/a", {"variables.customer": "Zed"}, using="original", because="another customer")
    task = again.run.task("a")

    assert [(node.node, node.run, node.borrow, node.why) for node in plan.nodes] == [
        ("sort", 0, 1, ()),
        ("greet", 1, 0, ("task input",)),
        ("reply", 1, 0, ("upstream output",)),
    ]
    assert [(step.node, step.outcome) for step in task.steps] == [("sort", "borrowed"), ("greet", "done"), ("reply", "done")]
    assert task.step("reply").output == {"text": "did reply did sort one did greet Zed plain"}
    assert (task.origin, task.changed_inputs) == (f"{run.id}/a", {"variables.customer": {"before": "Ace", "after": "Zed"}})
    assert [each["word"] for each in again.changes] == ["what-if"]
    assert (again.solved, again.newly_failing) == (0, 0)
    assert run.task("a").changed_inputs == {}
    assert run.task("a").step("greet").output == {"text": "did greet Ace"}


def test_another_expected_outcome_only_scores_again(mails: beam_ray.Store, run: beam_ray.Run) -> None:
    """
    No model is called when only what is expected changes.
    """
    (again,) = mails.what_if(f"{run.id}/a", {"expected": {"greeting": "hello"}}, using="original")

    assert again.run.calls == 0
    assert again.run.task("a").step("greet").passed is False


def test_a_file_of_changes_and_several_tasks(mails: beam_ray.Store, run: beam_ray.Run) -> None:
    """
    A YAML or JSON file says the same as a mapping, for each of the tasks.
    """
    Path("change.yaml").write_text("task_query: three\nvariables: {tone: kind}\n")
    Path("change.json").write_text('{\n\t"task_query": "three", "variables.tone": "kind"}')
    made = [
        mails.what_if(beam_ray.Selection(run=run.id), inputs, using="original")[0]
        for inputs in ("change.yaml", Path("change.json"), {"task_query": "three", "variables": {"tone": "kind"}})
    ]
    given = [[{name: row[name] for name in ("task_query", "variables", "changed_inputs", "inputs")} for row in each.run.inputs().to_pylist()] for each in made]

    assert given[0] == given[1] == given[2]
    assert [json.loads(row["variables"]) for row in given[0]] == [{"customer": "Ace", "tone": "kind"}, {"customer": "Bow", "tone": "kind"}]
    assert json.loads(given[0][1]["changed_inputs"]) == {
        "task_query": {"before": "two", "after": "three"},
        "variables.tone": {"before": "plain", "after": "kind"},
    }


def test_a_rerun_of_a_what_if_changes_nothing_more(mails: beam_ray.Store, run: beam_ray.Run) -> None:
    """
    It has the input of the task that it redoes, and says of no change.
    """
    (changed,) = mails.what_if(f"{run.id}/a", {"task_query": "three"}, using="original")
    (again,) = mails.rerun(f"{changed.id}/a", using="original")

    assert again.run.task("a").given["task_query"] == "three"
    assert again.run.task("a").changed_inputs == {}


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            {"variables.custmer": "x"},
            "the task's input has no 'variables.custmer'\n  it has: task_query, variables.customer, variables.tone, expected.greeting\n  did you mean 'variables.customer'?",
        ),
        (
            {"task_qery": "x"},
            "the task's input has no 'task_qery'\n  it has: task_query, variables.customer, variables.tone, expected.greeting\n  did you mean 'task_query'?",
        ),
        ({"variables.tone.deep": "x"}, "'variables.tone.deep' cannot be set: 'tone' is 'plain', which has no parts"),
        ({"task_query": " "}, "'task_query' is a text or an object, not ' '"),
        ({"task_query": {"a": 1}}, "the task query is JSON, but the workflow takes text"),
        ({"variables.tone": float("nan")}, "the changed task 'a' holds a value that JSON cannot"),
    ],
)
def test_what_cannot_be_changed_is_refused(mails: beam_ray.Store, run: beam_ray.Run, inputs: dict[str, Any], said: str) -> None:
    """
    One line names what is there instead, and no run is begun.
    """
    with pytest.raises(Unusable) as caught:
        mails.what_if(f"{run.id}/a", inputs, using="original")

    assert said in str(caught.value)
    assert [each.id for each in mails.runs()] == [run.id]


def test_a_start_node_and_a_file_without_an_object_are_refused(mails: beam_ray.Store, run: beam_ray.Run) -> None:
    """
    A start node would keep steps that see the change.
    """
    Path("change.yaml").write_text("- task_query\n")

    with pytest.raises(Unusable, match="a rerun with changed input has no start node"):
        mails.plan_rerun(f"{run.id}/a", using="original", from_node="reply", inputs={"task_query": "x"})
    with pytest.raises(BadDefinition, match=r"change.yaml:1:1: changes of the input are an object"):
        mails.what_if(f"{run.id}/a", "change.yaml", using="original")


def test_lost_tasks_of_a_what_if_are_restored(mails: beam_ray.Store, run: beam_ray.Run) -> None:
    """
    A repair makes them again from the origin and the changes in the record.
    """
    (changed,) = mails.what_if(f"{run.id}/a", {"task_query": "three"}, using="original")
    open_objects(mails.uri).delete(f"runs/{changed.id}/tasks.parquet")
    mails.repair(changed.id)

    assert mails.get_run(changed.id).inputs()["task_query"].to_pylist() == ["three"]
