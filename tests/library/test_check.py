"""Checking a library: what it covers, what it lacks, and which past tasks fill that."""

import datetime
import json

import pytest

from beam_ray.library.check import check_library
from beam_ray.library.coverage import size_class
from beam_ray.store.libraries import library_at, used, uses, write_library
from beam_ray.store.parquet import encode
from beam_ray.store.tables import TASKS
from tests.conftest import Lab
from tests.library.conftest import ORDERS, orders, past_run

GOOD = [
    *orders(8, expected={"vendor": "Ace"}),
    {"id": "large", "task_query": "big", "amount": 500, "labels": ["edge"]},
    {"id": "bad", "task_query": "odd", "ok": False},
]


def checked(cli, *arguments: object, name: str = "orders"):
    """The check's document."""
    said = cli("library", "check", name, "--workflow", "workflow.yaml", *arguments, "--json")
    assert said.code == 0, said.err
    return said.json


def test_a_good_set_has_no_gap(lab: Lab, cli):
    """Ten recent tasks over both routes, with a failure, an edge case and successes."""
    past_run(lab, "261001-aaaaaa", GOOD, days=3)
    cli("library", "add", "orders", "--from-run", "last")
    told = checked(cli)

    assert (told["good"], told["gaps"], told["size_class"]) == (True, [], "minimum")
    assert told["routes"] == {"covered": {"small order": [*(f"o{number:02d}" for number in range(8)), "bad"], "large order": ["large"]}, "not_covered": []}
    assert told["decided"] == {"extract/positive": {"met": 9, "not_met": 1}, "extract/vendor": {"met": 8, "not_met": 0}}
    assert (told["failures"], told["edge_cases"]["tasks"], len(told["successes"]["tasks"])) == ({"tasks": ["bad"], "share": 0.1}, ["large"], 9)
    assert (told["newest_task_days"], told["refreshed_days"], told["last_used"]) == (3, 0, None)
    assert "no gaps: a good set" in cli("library", "check", "orders", "--workflow", "workflow.yaml").out


def test_each_gap_names_past_tasks_that_fill_it_and_the_commands_close_them_all(lab: Lab, cli):
    """What the check says to type makes the library good."""
    past_run(lab, "261001-aaaaaa", GOOD, days=3)
    cli("library", "add", "orders", "o00", "o01", "--expect", "{}")
    past_run(lab, "261002-bbbbbb", [{"id": "o00", "task_query": "order 0"}, {"id": "o01", "task_query": "order 1"}], days=2)
    told = checked(cli)
    fills = {gap["name"] or gap["kind"]: gap["fill"] for gap in told["gaps"]}

    assert {name: fill for name, fill in fills.items() if name != "size"} == {
        "large order": ["261001-aaaaaa/large"],
        "escalate": ["261001-aaaaaa/large"],
        "extract/vendor": ["261001-aaaaaa/o02", "261001-aaaaaa/o03", "261001-aaaaaa/o04"],
        "failures": ["261001-aaaaaa/bad"],
        "edge cases": ["261001-aaaaaa/large"],
    }
    assert len(fills["size"]) == 8
    assert next(gap["command"] for gap in told["gaps"] if gap["name"] == "large order") == "beam-ray library add orders 261001-aaaaaa/large --store store"
    assert cli(*told["all_at_once"].split()[1:]).code == 0
    assert checked(cli)["gaps"] == []


def test_people_read_the_same(lab: Lab, cli):
    """The screen, as a whole."""
    past_run(lab, "261001-aaaaaa", GOOD, days=3)
    cli("library", "add", "orders", "o00")
    used(lab.objects, "library:orders@1", "bt-1")
    today = uses(lab.objects, "orders")[0].at[:10]

    assert (
        cli("library", "check", "orders", "--workflow", "workflow.yaml").out
        == f"""\
orders@1 for orders (workflow.yaml) · 1 task, 1 of them run before
  measure        value
  size           too small                        at least 10 tasks; 20 to 30 are good, 50 for major changes
  routes         1 of 2                           not covered: large order
  nodes          2 of 3                           not covered: escalate
  criteria       2 of 2                           all covered
  failures       0 of 1                           no task failed in a past run
  edge cases     0 of 1                           no task is labelled edge or hard
  successes      1 of 1                           100% passed in their newest run
  recent data    3 days                           age of the newest task, o00; last task added 0 days ago
  last backtest  bt-1 with version 1, {today}

4 gaps
  only 1 task; at least 10 are needed
      beam-ray library add orders 261001-aaaaaa/o01 261001-aaaaaa/large 261001-aaaaaa/bad 261001-aaaaaa/o02 261001-aaaaaa/o03 261001-aaaaaa/o04 261001-aaaaaa/o05 261001-aaaaaa/o06 261001-aaaaaa/o07 --store store
  no task takes the route 'large order'; no task reaches the node 'escalate'
      beam-ray library add orders 261001-aaaaaa/large --store store
  no task ever failed or fell below a threshold
      beam-ray library add orders 261001-aaaaaa/bad --store store
  no task has the label edge or hard
      beam-ray library add orders 261001-aaaaaa/large --store store
add past tasks for all gaps at once:
  beam-ray library add orders 261001-aaaaaa/large 261001-aaaaaa/bad 261001-aaaaaa/o01 261001-aaaaaa/o02 261001-aaaaaa/o03 261001-aaaaaa/o04 261001-aaaaaa/o05 261001-aaaaaa/o06 261001-aaaaaa/o07 --store store
"""
    )


@pytest.mark.parametrize(
    ("tasks", "word", "lacking"),
    [
        (0, "too small", 10),
        (1, "too small", 9),
        (9, "too small", 1),
        (10, "minimum", 0),
        (19, "minimum", 0),
        (20, "good", 0),
        (30, "good", 0),
        (31, "more than good", 0),
        (49, "more than good", 0),
        (50, "for major changes", 0),
    ],
)
def test_the_size_is_told_exactly_at_its_limits(lab: Lab, cli, tasks, word, lacking):
    """Ten are the minimum, 20 to 30 good, 50 for major changes."""
    past_run(lab, "261001-aaaaaa", orders(60))
    write_library(lab.objects, "orders", lab.tasks(orders(60)).slice(0, tasks), 0)
    told = checked(cli)

    assert (told["size_class"], size_class(tasks)) == (word, word)
    assert [(gap["needed"], len(gap["fill"])) for gap in told["gaps"] if gap["kind"] == "size"] == ([(lacking, lacking)] if lacking else [])


@pytest.mark.parametrize(
    ("seconds", "days", "stale"), [(89 * 86_400, 89, False), (90 * 86_400 - 1, 89, False), (90 * 86_400, 90, True), (91 * 86_400, 91, True)]
)
def test_a_library_is_stale_from_the_ninetieth_day(lab: Lab, seconds, days, stale):
    """To the second: 90 days without a new task are too long."""
    workflow = lab.workflow(ORDERS)
    write_library(lab.objects, "orders", lab.tasks(["x"]), 0)
    moment = datetime.datetime.fromisoformat(library_at(lab.objects, "orders").saved_at) + datetime.timedelta(seconds=seconds)
    check = check_library(lab.objects, library_at(lab.objects, "orders"), workflow, now=moment)

    assert check.coverage.newest[1].days == days
    assert [gap.text for gap in check.gaps if gap.kind == "recent"] == (
        [f"the newest task is {days} days old, and no task was added for {days} days"] if stale else []
    )


def test_a_task_is_as_old_as_the_first_run_of_its_inputs(lab: Lab, cli):
    """Saving an old task, or a rerun of one, makes nothing recent; the newer past task is offered."""
    old = past_run(lab, "260101-aaaaaa", [{"id": "old", "task_query": "x"}], days=200)
    again = lab.tasks([{"id": "old", "task_query": "x"}]).to_pylist()
    redone = lab.tasks([{"id": "old", "task_query": "x"}]).from_pylist([{**again[0], "origin": "260101-aaaaaa/old"}], schema=old.tasks().schema)
    past_run(lab, "261001-bbbbbb", [{"id": "old", "task_query": "x"}], days=1, tasks=redone, origin="260101-aaaaaa", mode="rerun")
    past_run(lab, "261001-cccccc", [{"id": "new", "task_query": "y"}], days=2)
    past_run(lab, "261001-dddddd", [{"id": "older", "task_query": "z"}], days=90)
    cli("library", "add", "orders", "261001-bbbbbb/old")
    told = checked(cli)

    assert (told["newest_task_days"], told["refreshed_days"]) == (200, 0)
    assert [(gap["text"], gap["fill"]) for gap in told["gaps"] if gap["kind"] == "recent"] == [("the newest task is 200 days old", ["261001-cccccc/new"])]


def test_the_newest_run_of_the_very_task_tells_what_it_covers(lab: Lab, cli):
    """An older run, other inputs under the same id, and an untrusted candidate tell nothing; an earlier failure is remembered."""
    past_run(lab, "261001-aaaaaa", [{"id": "t", "task_query": "x", "amount": 500, "ok": False}], days=9)
    past_run(lab, "261002-bbbbbb", [{"id": "t", "task_query": "x"}], days=8)
    past_run(lab, "261003-cccccc", [{"id": "t", "task_query": "other", "amount": 500}], days=7)
    draft = ORDERS.replace("prompt: confirm", "prompt: draft")
    past_run(lab, "261004-dddddd", [{"id": "t", "task_query": "x", "amount": 500}], days=6, text=draft, mode="candidate")
    past_run(lab, "261005-eeeeee", [{"id": "t", "task_query": "x", "amount": 500}], days=5, text=ORDERS.replace("workflow: orders", "workflow: another"))
    lab.write("workflow.yaml", ORDERS)
    cli("library", "add", "orders", "261002-bbbbbb/t")
    told = checked(cli)
    lab.write("workflow.yaml", draft)

    assert list(told["routes"]["covered"]) == ["small order"]
    assert (told["failures"]["tasks"], told["successes"]["tasks"]) == (["t"], ["t"])
    assert [gap["fill"] for gap in told["gaps"] if gap["kind"] == "route"] == [[]]
    assert list(checked(cli)["routes"]["covered"]) == ["large order"]


def test_each_task_tells_what_it_covers_by_its_own_newest_run(lab: Lab, cli):
    """Of a run only the rows count whose task no newer run has, whatever else the run has between them."""
    past_run(lab, "261001-aaaaaa", [*orders(5), {"id": "large", "task_query": "big", "amount": 500}, {"id": "odd", "task_query": "odd", "ok": False}], days=3)
    past_run(lab, "261002-bbbbbb", [{"id": "odd", "task_query": "odd"}, {"id": "o03", "task_query": "order 3", "amount": 500}], days=2)
    cli("library", "add", "orders", "261001-aaaaaa/large", "odd", "o03", "o01")
    told = checked(cli)

    assert told["routes"]["covered"] == {"small order": ["o01", "odd"], "large order": ["large", "o03"]}
    assert told["decided"]["extract/positive"] == {"met": 4, "not_met": 0}
    assert (told["failures"]["tasks"], told["successes"]["tasks"]) == (["odd"], ["large", "o01", "odd", "o03"])


def test_a_route_that_the_newest_definition_has_anew_is_a_gap(lab: Lab, cli):
    """Coverage is measured against the workflow that is named, not against the one that ran."""
    past_run(lab, "261001-aaaaaa", GOOD)
    cli("library", "add", "orders", "--from-run", "last")
    lab.write("workflow.yaml", ORDERS + "  gift: {after: extract, when: \"'gift' in task_query\", llm: {prompt: wrap}}\n")
    told = checked(cli)

    assert told["routes"]["not_covered"] == ["gift: 'gift' in task_query"]
    assert {gap["kind"]: (gap["fill"], gap["remedy"]) for gap in told["gaps"]} == {
        kind: ([], "no past task did either: run a task that does, then add it") for kind in ("route", "node")
    }


def test_a_criterion_that_needs_what_is_expected_says_so(lab: Lab, cli):
    """The tasks that reach it but do not say what is expected are named."""
    past_run(lab, "261001-aaaaaa", orders(2))
    cli("library", "add", "orders", "--from-run", "last")

    assert next(gap["remedy"] for gap in checked(cli)["gaps"] if gap["name"] == "extract/vendor") == (
        "it compares with the expected outcome, which o00, o01 do not have: add them again with --expect JSON --replace"
    )


def test_a_step_that_failed_was_reached(lab: Lab, cli):
    """A task whose node breaks covers that node, and is an earlier failure."""
    past_run(lab, "261001-aaaaaa", [{"id": "t", "task_query": "x", "broken": True}])
    cli("library", "add", "orders", "t")
    told = checked(cli)

    assert (list(told["nodes"]["covered"]), told["failures"]["tasks"], told["successes"]["share"]) == (["extract"], ["t"], 0)


def test_tasks_that_never_ran_are_a_gap_with_the_command_that_runs_them(lab: Lab, cli):
    """Of them nothing is known, whatever they are said to test."""
    lab.write("workflow.yaml", ORDERS)
    lab.write("tasks.jsonl", json.dumps({"id": "t", "task_query": "x", "tests": "large order"}) + "\n")
    cli("library", "import", "orders", "tasks.jsonl")
    told = checked(cli)

    assert (told["never_run"], told["routes"]["covered"], told["misplaced"]) == (["t"], {}, {})
    assert next(gap["command"] for gap in told["gaps"] if gap["kind"] == "runs") == "beam-ray run workflow.yaml --tasks library:orders@1 --store store"


def test_a_task_that_misses_what_it_is_there_to_test_is_named(lab: Lab, cli):
    """Its newest run did not get there, or there is no such place."""
    past_run(lab, "261001-aaaaaa", orders(3))
    cli("library", "add", "orders", "o00", "--tests", "large order")
    cli("library", "add", "orders", "o01", "--tests", "confirm")
    advised = cli("library", "add", "orders", "o02", "--tests", "large")

    assert checked(cli)["misplaced"] == {
        "o00": "is meant to test 'large order', which its newest run did not reach",
        "o02": "is meant to test 'large', which the workflow does not have",
    }
    assert "note: the workflow of run 261001-aaaaaa has no node or route 'large'" in advised.err


def test_other_words_may_mark_an_edge_case(lab: Lab, cli):
    """The labels are the user's own."""
    past_run(lab, "261001-aaaaaa", [{"id": "t", "task_query": "x", "labels": ["odd"]}, {"id": "u", "task_query": "y", "labels": ["rare"]}])
    cli("library", "add", "orders", "t")

    assert checked(cli)["edge_cases"]["tasks"] == []
    assert checked(cli, "--edge-label", "odd")["edge_cases"]["tasks"] == ["t"]
    assert [gap["fill"] for gap in checked(cli, "--edge-label", "rare")["gaps"] if gap["kind"] == "edge cases"] == [["261001-aaaaaa/u"]]


def test_a_candidate_for_two_inputs_of_one_id_is_offered_once(lab: Lab, cli):
    """A library can hold only one of them, so the command that is printed works."""
    past_run(lab, "261001-aaaaaa", [{"id": "task-00001", "task_query": "x", "ok": False}], days=2)
    past_run(lab, "261002-bbbbbb", [{"id": "task-00001", "task_query": "y", "amount": 500}, {"id": "mine", "task_query": "z"}], days=1)
    cli("library", "add", "orders", "mine")
    told = checked(cli)

    assert cli(*told["all_at_once"].split()[1:]).code == 0
    assert {address for gap in told["gaps"] for address in gap["fill"]} == {"261002-bbbbbb/task-00001"}


def test_a_check_reads_and_never_writes(lab: Lab, cli):
    """An older version is checked as it was."""
    past_run(lab, "261001-aaaaaa", GOOD)
    cli("library", "add", "orders", "o00")
    cli("library", "add", "orders", "--from-run", "last")
    before = {path: path.read_bytes() for path in (lab.folder / "store").rglob("*") if path.is_file()}
    told = [checked(cli, name=name)["tasks"] for name in ("orders@1", "orders@2", "orders")]

    assert told == [1, 10, 10]
    assert before == {path: path.read_bytes() for path in (lab.folder / "store").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none", "there is no task library 'none'\n  libraries: orders\n"),
        ("orders@7", "the library 'orders' has no version '7'; it has 1 to 1\n"),
        ("../x", "there is no task library '../x'"),
    ],
)
def test_a_library_that_is_not_there_is_said_to_be_not_there(lab: Lab, cli, name, said):
    """With what is there instead."""
    past_run(lab, "261001-aaaaaa", orders(1))
    cli("library", "add", "orders", "o00")
    found = cli("library", "check", name, "--workflow", "workflow.yaml")

    assert found.code == 2
    assert found.err.startswith(said)


def test_where_no_age_is_known_there_is_a_word_and_no_number(lab: Lab, cli):
    """A file without times is of unknown age, not new, and an empty library has no shares."""
    lab.write("workflow.yaml", ORDERS)
    lab.objects.create("libraries/plain/000001.parquet", encode(TASKS, lab.tasks(["x"])))
    write_library(lab.objects, "empty", TASKS.empty_table(), 0)
    plain, empty = checked(cli, name="plain"), checked(cli, name="empty")

    assert (plain["newest_task"], plain["newest_task_days"], plain["refreshed_days"]) == (None, None, None)
    assert (empty["tasks"], empty["failures"]["share"], empty["newest_task"]) == (0, None, None)
    assert "recent data unknown no task's age is known" in " ".join(cli("library", "check", "plain", "--workflow", "workflow.yaml").out.split())
