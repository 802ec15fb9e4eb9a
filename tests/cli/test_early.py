"""Backtests that end as soon as their verdict is settled."""

import json

import pytest

from beam_ray.compare.sequential import interim_analyses
from tests.cli.conftest import SPEC, Desk

TASKS = 160


@pytest.fixture
def early(desk: Desk) -> Desk:
    """A backtest of 160 tasks that may stop early; the baseline has no run yet."""
    rows = ({"id": f"n{index}", "task_query": str(index), "expected": {"n": index}} for index in range(TASKS))
    desk.lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    desk.lab.write("gate.yaml", "gate: g\nrules: {score: {up_by: 10}, success_rate: {at_least: 50}, regressions: {at_most: 0}}\n")
    desk.lab.write("spec.yaml", SPEC + "gate: gate.yaml\nstop: early\n")
    desk("publish", "sums.yaml", "--without-evidence", "first")
    return desk


def candidate(desk: Desk, prompt: str) -> None:
    """Let the spec's candidate use another prompt."""
    text = (desk.lab.folder / "spec.yaml").read_text()
    desk.lab.write("spec.yaml", text.replace("better {{ task_query }}", prompt))


def test_a_clear_gain_ends_the_backtest_early(early: Desk):
    """Both sides end at the look that settled it, at least 30 % of the tasks are never asked for, and the numbers are those of the tasks done."""
    done = early("backtest", "spec.yaml", "--json")
    comparison = done.json["candidates"][0]["comparison"]

    assert (done.code, done.json["word"]) == (0, "PASS")
    assert comparison["tasks"] in interim_analyses(TASKS)
    assert comparison["tasks"] <= 0.7 * TASKS
    assert sum(call.said.startswith("read") for call in early.model.journal) == comparison["tasks"]
    assert sum(call.said.startswith("better") for call in early.model.journal) == comparison["tasks"]
    assert early("reproduce", done.json["backtest_id"]).code == 0
    assert f"Stopped early after {comparison['tasks']} of {TASKS} tasks" in early("backtest", "spec.yaml").out


def test_a_candidate_that_changes_nothing_is_blocked_early(early: Desk):
    """A gain of 10 points is asked for, and none is there: that is as clear."""
    candidate(early, "read  {{ task_query }}")
    done = early("backtest", "spec.yaml", "--json")

    assert done.code == 4
    assert done.json["candidates"][0]["comparison"]["tasks"] < TASKS


def test_several_candidates_stop_early_and_the_best_one_is_run_again(early: Desk):
    """Of two candidates each stops when its verdict holds among both; the rerun on fresh tasks stops early too, and borrows nothing from the comparison."""
    text = (early.lab.folder / "spec.yaml").read_text()
    early.lab.write("spec.yaml", text.replace("candidates:", 'candidates:\n  v1: {nodes.read.llm.prompt: "read  {{ task_query }}"}') + "rerun: fresh\n")
    plan = early("backtest", "spec.yaml", "--plan", "--json").json
    done = early("backtest", "spec.yaml", "--json")
    rerun = done.json["rerun"]["candidate"]

    assert [side["side"] for side in plan["sides"]] == ["baseline", "v1", "v2", "baseline on fresh tasks", "v1 on fresh tasks"]
    assert plan["calls"] == 5 * TASKS
    assert (done.code, done.json["word"], done.json["best"]) == (0, "PASS", "v2")
    assert [(entry["verdict"]["word"], entry["comparison"]["tasks"] < TASKS // 2) for entry in (*done.json["candidates"], rerun)] == [
        ("BLOCK", True),
        ("PASS", True),
        ("PASS", True),
    ]
    assert early("reproduce", done.json["backtest_id"]).code == 0
    assert [line for line in early("backtest", "spec.yaml").out.splitlines() if line.startswith("verdict:")] == [
        "verdict: BLOCK",
        "verdict: PASS",
        "verdict: PASS",
    ]


def test_what_is_not_settled_goes_on_to_the_last_task(early: Desk):
    """A limit that the truth lies on is never settled; then all tasks are run."""
    early.lab.write("gate.yaml", "gate: g\nrules: {success_rate: {at_least: 100}}\n")
    done = early("backtest", "spec.yaml", "--json")

    assert done.json["candidates"][0]["comparison"]["tasks"] == TASKS


def test_a_baseline_that_was_run_in_another_order_is_not_run_again(early: Desk):
    """Each backtest has its own order of tasks; the second candidate's asks nothing of the baseline that the first one's did."""
    early.lab.write("gate.yaml", "gate: g\nrules: {success_rate: {at_least: 100}}\n")
    first = early("backtest", "spec.yaml", "--json").json["candidates"][0]["run_id"]
    asked = sum(call.said.startswith("read") for call in early.model.journal)
    early.lab.write("other.yaml", (early.lab.folder / "spec.yaml").read_text().replace("better {{ task_query }}", "better  {{ task_query }}"))
    second = early("backtest", "other.yaml", "--json").json["candidates"][0]["run_id"]
    orders = [[task["task_id"] for task in early("tasks", "--run", run, "--limit", "0", "--json").json] for run in (first, second)]

    assert sum(call.said.startswith("read") for call in early.model.journal) == asked == TASKS
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]


def test_tasks_are_looked_at_in_random_order(early: Desk):
    """A file is often sorted; its first tasks say nothing about the rest."""
    run = early("backtest", "spec.yaml", "--json").json["candidates"][0]["run_id"]
    ids = [int(task["task_id"][1:]) for task in early("tasks", "--run", run, "--json").json]

    assert len(ids) < TASKS
    assert max(ids) > len(ids) + 20


def test_a_shortened_run_is_no_baseline_for_others(early: Desk):
    """A backtest over all tasks needs them all, and borrows those that the shortened run has."""
    early("backtest", "spec.yaml")
    early.lab.write("full.yaml", (early.lab.folder / "spec.yaml").read_text().replace("stop: early\n", "").replace("sums-v2", "full"))
    done = early("backtest", "full.yaml", "--json").json

    assert done["candidates"][0]["comparison"]["tasks"] == TASKS
    assert sum(call.said.startswith("read") for call in early.model.journal) == TASKS


def test_a_stopped_early_backtest_decides_as_if_it_had_not_been_stopped(early: Desk):
    """A budget ends it between two looks; raised, it ends at the same look and asks nothing again."""
    early("publish", "sums.yaml", "--without-evidence", "first", "--store", "other")
    undisturbed = early("backtest", "spec.yaml", "--json", "--store", "other")
    asked = len(early.model.journal)
    early.model.latency_s = 0.2
    stopped = early("backtest", "spec.yaml", "--budget", "max_calls=50")
    early.model.latency_s = 0.0
    done = early("backtest", "spec.yaml", "--json")

    assert stopped.code == 3
    tasks = [entry.json["candidates"][0]["comparison"]["tasks"] for entry in (undisturbed, done)]
    assert tasks[0] == tasks[1]
    assert len(early.model.journal) - asked <= asked + 32
