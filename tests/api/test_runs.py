"""Runs, tasks and steps through the public API."""

from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest

import beam_ray
from beam_ray.errors import BadDefinition, BudgetReached, Unusable
from tests.api.conftest import TASKS


def test_plan(store: beam_ray.Store) -> None:
    """
    A plan counts calls per node, and creates no run.
    """
    plan = store.plan("sums.yaml", TASKS)

    assert [(node.node, node.run, node.calls) for node in plan.nodes] == [("read", 9, 9), ("say", 9, 9)]
    assert plan.calls == 18
    assert store.runs() == []


def test_run(store: beam_ray.Store) -> None:
    """
    A run over a list of dicts is finished when it returns, with its numbers.
    """
    run = store.run("sums.yaml", TASKS)

    assert run.finished
    assert (run.passed, run.below, run.failed, run.calls) == (3, 6, 0, 18)
    assert run.score == pytest.approx(100 / 3, abs=0.01)
    assert store.get_run("last") == run


def test_connected(store: beam_ray.Store) -> None:
    """
    Calls within the block share one connection, which ends with the block.
    """
    with beam_ray.open(store.uri, models=store.models).connected() as connected:
        assert connected.connection
        opened = connected.connection.cluster
        runs = [connected.run("sums.yaml", TASKS[:count]) for count in (1, 2)]

        assert opened is not None
        assert connected.connection.cluster is opened
        assert all(run.finished for run in runs)
    assert connected.connection.cluster is None


def test_task_and_step(store: beam_ray.Store) -> None:
    """
    A task leads to its steps, their criteria and attempts.
    """
    task = store.run("sums.yaml", TASKS).task("n1")
    step = task.step("read")

    assert (task.status, task.score, [each.node for each in task.steps]) == ("below", 0.0, ["read", "say"])
    assert (step.output, step.passed, step.criteria[0].met, step.attempts[0].output) == ({"n": -1}, False, False, {"n": -1})


def test_tasks_of_a_run_as_a_table(store: beam_ray.Store) -> None:
    """
    Tasks are filtered by status, label and expression, and come as Arrow.
    """
    run = store.run("sums.yaml", TASKS)

    assert sorted(run.tasks(status="passed")["task_id"].to_pylist()) == ["n0", "n3", "n6"]
    assert sorted(run.tasks(labels=["even"], where="score < 50").to_pandas()["task_id"]) == ["n2", "n4", "n8"]


@pytest.mark.parametrize("kind", ["arrow", "pandas", "tasks"])
def test_forms_of_tasks(store: beam_ray.Store, kind: str) -> None:
    """
    The same tasks as a table, a data frame or a list with options give the same run.
    """
    rows = [{key: value for key, value in task.items() if key != "labels"} for task in TASKS]
    forms = {"arrow": pa.Table.from_pylist(rows), "pandas": pd.DataFrame(rows), "tasks": beam_ray.Tasks(rows, limit=9)}

    given = store.plan("sums.yaml", forms[kind])

    assert given.tasks["inputs"].to_pylist() == store.plan("sums.yaml", rows).tasks["inputs"].to_pylist()


def test_tasks_with_other_columns(store: beam_ray.Store) -> None:
    """
    Columns of other names are read through a mapping.
    """
    plan = store.plan("sums.yaml", beam_ray.Tasks([{"body": "7"}], columns={"task_query": "body"}))

    assert plan.tasks["task_query"].to_pylist() == ["7"]


def test_a_wrong_row_is_named(store: beam_ray.Store) -> None:
    """
    A wrong row in memory is reported by its number.
    """
    with pytest.raises(BadDefinition, match="tasks, row 2: the id 'a' stands here and in row 1"):
        store.plan("sums.yaml", [{"id": "a", "task_query": "1"}, {"id": "a", "task_query": "2"}])


def test_something_else_is_no_source(store: beam_ray.Store) -> None:
    """
    A value that holds no tasks is refused with what may be given.
    """
    with pytest.raises(Unusable, match="cannot be read from a int"):
        store.plan("sums.yaml", 7)


def test_a_workflow_built_in_python(store: beam_ray.Store) -> None:
    """
    A workflow built in Python runs as one from a file.
    """
    workflow = beam_ray.Workflow.model_validate({"workflow": "one", "model": "m", "nodes": {"say": {"llm": {"prompt": "say {{ task_query }}"}}}})

    run = store.run(workflow, [{"task_query": "4"}])

    assert run.task("task-00001").step("say").output == {"text": "it is 4"}


def test_progress_and_messages(store: beam_ray.Store) -> None:
    """
    A callback receives counts that end with every step done.
    """
    seen: list[beam_ray.Progress] = []

    store.run("sums.yaml", TASKS, progress=seen.append)

    assert [(each.steps_done, each.steps) for each in seen if not each.message][-1] == (18, 18)


def test_a_budget_stops_and_resumes(store: beam_ray.Store) -> None:
    """
    A run that reached its budget shows how to resume it, and resumes with another budget.
    """
    with pytest.raises(BudgetReached) as stopped:
        store.run("sums.yaml", TASKS, budget={"max_calls": 5})
    run = store.resume("last", budget={"max_calls": 1_000})

    assert f"beam-ray resume {run.id}" in stopped.value.resume
    assert run.finished
    assert run.calls == 18


def test_a_budget_of_no_dollars_stops_nothing_that_is_free(store: beam_ray.Store) -> None:
    """
    Where all models cost nothing, a limit of 0 dollars is never reached.
    """
    run = store.run("sums.yaml", TASKS, budget={"max_usd": 0.0})

    assert (run.finished, run.usd) == (True, 0.0)


@pytest.mark.parametrize(
    ("budget", "says"), [({"max_dollars": 1}, "unknown limit 'max_dollars'"), ({"max_usd": float("nan")}, "at least 0"), ({"max_usd": -1}, "at least 0")]
)
def test_budgets_that_limit_nothing(store: beam_ray.Store, budget: dict[str, float], says: str) -> None:
    """
    A limit that is unknown, negative or not a number is refused before anything runs.
    """
    with pytest.raises(Unusable, match=says):
        store.run("sums.yaml", TASKS, budget=budget)

    assert store.runs() == []


def test_nothing_is_printed(store: beam_ray.Store, capfd: pytest.CaptureFixture[str]) -> None:
    """
    Without progress, planning and running print nothing.
    """
    store.plan("sums.yaml", TASKS)
    store.run("sums.yaml", TASKS)

    assert capfd.readouterr().out == ""


def test_values_show_themselves(store: beam_ray.Store) -> None:
    """
    A run, a plan and a task have a line for the terminal and a table for notebooks, with texts escaped.
    """
    run = store.run("sums.yaml", [{"id": "a", "task_query": "3 <b>", "expected": {"n": 3}}])

    assert repr(run) == f"<Run {run.id}: workflow sums, tasks 1, passed 1, below threshold 0, failed 0, mean score 100.0, model calls 2, cost $0.0000>"
    assert "<table>" in run._repr_html_()
    assert "&lt;b&gt;" in run.task("a")._repr_html_()


def test_no_store(tmp_path: Path) -> None:
    """
    Reading from a folder without a store is refused and creates nothing.
    """
    with pytest.raises(Unusable, match="there is no store"):
        beam_ray.open(tmp_path / "nothing").runs()

    assert not (tmp_path / "nothing").exists()


def test_check(store: beam_ray.Store) -> None:
    """
    A file with two problems is refused with both places.
    """
    Path("bad.yaml").write_text("workflow: bad\nmodel: m\nnodes:\n  a: {after: d, llm: {prompt: x}}\n  b: {after: c, llm: {prompt: x}}\n")

    with pytest.raises(BadDefinition) as caught:
        beam_ray.check("bad.yaml")

    assert len(caught.value.problems) == 2
    assert beam_ray.check("sums.yaml").workflow == beam_ray.load("sums.yaml") == store.check("sums.yaml").workflow
