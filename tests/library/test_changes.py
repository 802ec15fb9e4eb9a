"""Adding, removing and racing: what the next version of a library holds."""

import json
import threading

import pytest

from beam_ray.errors import Unusable
from beam_ray.library.versions import add
from beam_ray.store.libraries import library_at, library_versions, newest_library, read_library, used, uses, write_library
from beam_ray.store.runs import Run
from tests.conftest import Lab
from tests.library.conftest import orders, past_run


def test_a_saved_task_is_the_original_byte_for_byte(lab: Lab, cli):
    """Query, variables and attachments stay, and the address it was saved from is kept."""
    lab.write("a.txt", "attached")
    past_run(lab, "261001-aaaaaa", [{"id": "t", "task_query": {"b": "é \u2028", "a": [1.5, None]}, "variables": {"z": 1, "a": 2}, "attachments": ["a.txt"]}])
    said = cli("library", "add", "orders", "261001-aaaaaa/t", "--json")
    saved, given = read_library(lab.objects, "orders")[0].to_pylist()[0], Run(lab.objects, "261001-aaaaaa").tasks().to_pylist()[0]

    assert said.json == {
        "library": "orders",
        "version": 1,
        "tasks": 1,
        "size_class": "too small",
        "added": ["t"],
        "replaced": [],
        "removed": [],
        "unchanged": [],
    }
    assert saved == {**given, "origin": "261001-aaaaaa/t"}


def test_a_selection_of_a_run_is_saved_with_remarks(lab: Lab, cli):
    """What did not pass is chosen, marked with a label, what it tests and a note."""
    past_run(
        lab,
        "261001-aaaaaa",
        [
            {"id": "good", "task_query": "x"},
            {"id": "bad", "task_query": "y", "ok": False, "labels": ["scan"]},
            {"id": "broken", "task_query": "z", "broken": True},
        ],
    )
    cli("library", "add", "orders", "--from-run", "last", "--failed", "--with-label", "edge", "--tests", "extract", "--note", "slips")
    saved = read_library(lab.objects, "orders")[0].to_pylist()

    assert [(row["task_id"], row["labels"], row["tests"], row["notes"]) for row in saved] == [
        ("bad", ["scan", "edge"], "extract", "slips"),
        ("broken", ["edge"], "extract", "slips"),
    ]


@pytest.mark.parametrize(
    ("options", "ids"),
    [
        (["--status", "passed"], ["good"]),
        (["--status", "below"], ["bad"]),
        (["--label", "scan"], ["bad"]),
        (["--where", "score is none or score < 50"], ["bad", "broken"]),
        ([], ["good", "bad", "broken"]),
    ],
)
def test_a_run_is_chosen_from_as_a_rerun_does(lab: Lab, cli, options, ids):
    """Status, label and expression mean what they mean there."""
    past_run(
        lab,
        "261001-aaaaaa",
        [
            {"id": "good", "task_query": "x"},
            {"id": "bad", "task_query": "y", "ok": False, "labels": ["scan"]},
            {"id": "broken", "task_query": "z", "broken": True},
        ],
    )

    assert cli("library", "add", "orders", "--from-run", "261001", *options, "--json").json["added"] == ids


def test_what_to_expect_is_typed_in_or_taken_from_a_good_execution(lab: Lab, cli):
    """In words, from the last nodes' fields, or from one node."""
    past_run(lab, "261001-aaaaaa", orders(3))
    cli("library", "add", "orders", "o00", "--expect", '{"vendor": "Ace"}')
    cli("library", "add", "orders", "o01", "--expect-from-output")
    cli("library", "add", "orders", "o02", "--expect-from-output", "--of", "extract")

    assert [json.loads(text) for text in read_library(lab.objects, "orders")[0]["expected"].to_pylist()] == [
        {"vendor": "Ace"},
        {"text": "confirm it"},
        {"vendor": "Ace", "amount": 5},
    ]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--from-run", "last", "--expect-from-output"],
            "1 of 2 tasks did not pass (bad); expected outcomes are taken only from tasks that passed\n  select these with --status passed",
        ),
        (["good", "--expect-from-output", "--of", "escalate"], "'escalate' did not run for 1 of the tasks (good)"),
        (
            ["good", "--expect-from-output", "--of", "escalat"],
            "--of escalat: the workflow of run 261001-aaaaaa has no such node; it has extract, confirm, escalate",
        ),
        (["good", "--expect", "[1]"], "--expect [1]: the expected outcome is an object of fields"),
        (["good", "--expect", "{"], "--expect {: not JSON: "),
        (["good", "--from-run", "last"], "give tasks, --from-run RUN, --from-any-run, or --tasks FILE: one of the four"),
        ([], "give tasks, --from-run RUN, --from-any-run, or --tasks FILE: one of the four"),
        (["good", "--failed"], "add --from-run RUN"),
        (["good", "--of", "extract"], "add --expect-from-output"),
        (["good", "--expect", "{}", "--expect-from-output"], "--expect-from-output uses outputs of a run"),
        (["--from-run", "last", "--label", "none"], "no task of run 261001-aaaaaa matches, so there is nothing to save"),
        (["nowhere"], "there is no task 'nowhere'"),
    ],
)
def test_what_cannot_be_saved_is_refused_in_one_line(lab: Lab, cli, arguments, said):
    """Nothing is written, and the remedy stands below."""
    past_run(lab, "261001-aaaaaa", [{"id": "good", "task_query": "x"}, {"id": "bad", "task_query": "y", "ok": False}])
    found = cli("library", "add", "orders", *arguments)

    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert library_versions(lab.objects, "orders") == []


def test_a_run_that_goes_on_is_not_saved_from(lab: Lab, cli):
    """Only tasks that ended can be saved."""
    past_run(lab, "261001-aaaaaa", orders(1), finish=False)

    assert "run 261001-aaaaaa is not finished; only finished tasks can be saved" in cli("library", "add", "orders", "--from-run", "last").err


def test_a_name_that_is_no_name_is_refused(lab: Lab, cli):
    """Names become folders and part of every command."""
    past_run(lab, "261001-aaaaaa", orders(1))
    found = cli("library", "add", "../Orders", "o00")

    assert (found.code, found.err.splitlines()[0]) == (2, "'../Orders' cannot name a library")


def test_the_same_task_twice_changes_nothing(lab: Lab, cli):
    """No version is made of what is there already."""
    past_run(lab, "261001-aaaaaa", orders(2))
    cli("library", "add", "orders", "--from-run", "last")
    found = cli("library", "add", "orders", "--from-run", "last")

    assert (found.code, found.out) == (0, "orders@1: nothing changed; it has these 2 tasks already\n")
    assert library_versions(lab.objects, "orders") == [1]


def test_another_content_under_the_same_id_needs_to_be_asked_for(lab: Lab, cli):
    """The refusal names the task and what differs; --replace takes the new one in its place."""
    past_run(lab, "261001-aaaaaa", orders(2))
    cli("library", "add", "orders", "--from-run", "last")
    lab.write("new.jsonl", '{"id": "o00", "task_query": "other", "labels": ["edge"]}\n{"id": "new", "task_query": "n"}\n')
    refused = cli("library", "add", "orders", "--tasks", "new.jsonl")
    taken = cli("library", "add", "orders", "--tasks", "new.jsonl", "--replace", "--json")

    assert (refused.code, refused.err) == (
        2,
        "a task is already in the library with different content\n  o00: different task_query, labels\n  --replace uses the new content; a different id keeps both\n",
    )
    assert (taken.json["added"], taken.json["replaced"]) == (["new"], ["o00"])
    assert read_library(lab.objects, "orders")[0]["task_id"].to_pylist() == ["o00", "o01", "new"]


def test_two_tasks_of_one_id_in_one_command_must_be_equal(lab: Lab, cli):
    """An id names one task in a library."""
    past_run(lab, "261001-aaaaaa", [{"id": "t", "task_query": "x"}], days=2)
    past_run(lab, "261002-bbbbbb", [{"id": "t", "task_query": "y"}], days=1)
    past_run(lab, "261003-cccccc", [{"id": "t", "task_query": "y"}])

    assert (
        "two tasks have the id 't' but different task_query\n  give only one of them: 261001-aaaaaa/t and 261002-bbbbbb/t"
        in cli("library", "add", "orders", "261001-aaaaaa/t", "261002-bbbbbb/t").err
    )
    assert cli("library", "add", "orders", "261002-bbbbbb/t", "261003-cccccc/t", "--json").json["tasks"] == 1


def test_old_versions_keep_what_was_removed(lab: Lab, cli):
    """A version is never changed, so a backtest can name it for ever."""
    past_run(lab, "261001-aaaaaa", orders(3))
    cli("library", "add", "orders", "--from-run", "last")
    before = lab.objects.read("libraries/orders/000001.parquet")
    said = cli("library", "remove", "orders", "o01")
    wrong = cli("library", "remove", "orders", "o020")

    assert "orders@2: 1 removed; 2 tasks, too small" in said.out
    assert lab.objects.read("libraries/orders/000001.parquet") == before
    assert [read_library(lab.objects, name)[0].num_rows for name in ("orders@1", "orders@2", "orders")] == [3, 2, 2]
    assert (wrong.code, wrong.err.splitlines()[0]) == (2, "the library has no task 'o020'")
    assert "did you mean" in wrong.err


def test_of_racing_writers_one_wins_and_the_others_are_told(lab: Lab):
    """Versions stay contiguous, and the losers' message is one line that ends in what to do."""
    tasks = lab.tasks(["x"])
    for after in range(5):
        gate, told, won = threading.Barrier(8), [], []

        def write(after: int = after, gate: threading.Barrier = gate, told: list = told, won: list = won) -> None:
            gate.wait()
            try:
                won.append(write_library(lab.objects, "orders", tasks, after))
            except Unusable as error:
                told.append(str(error))

        threads = [threading.Thread(target=write) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert won == [after + 1]
        assert told == ["the library 'orders' was changed by another process at the same time; run the same command again"] * 7
    assert library_versions(lab.objects, "orders") == [1, 2, 3, 4, 5]


def test_a_task_is_as_old_as_its_inputs(lab: Lab):
    """A new note makes no task younger; new inputs do."""
    rows = lab.tasks(["x", "y"]).to_pylist()
    write_library(lab.objects, "orders", lab.tasks(["x", "y"]), 0, since={"t0": "2026-01-01T00:00:00+00:00", "t1": "2026-01-01T00:00:00+00:00"})
    add(lab.objects, "orders", [{**rows[0], "notes": "new"}, {**rows[1], "task_query": "z", "inputs": "other"}], replace=True)
    since = newest_library(lab.objects, "orders").since

    assert since["t0"] == "2026-01-01T00:00:00+00:00"
    assert since["t1"] > "2026-01-01T00:00:00+00:00"


def test_a_version_tells_who_changed_what(lab: Lab, cli):
    """The change stands in the file of the version itself, and the tasks are read without it."""
    past_run(lab, "261001-aaaaaa", orders(2))
    cli("library", "add", "orders", "--from-run", "last")
    found = library_at(lab.objects, "orders@1")

    assert (found.change, bool(found.saved_by), sorted(found.since)) == ("2 added", True, ["o00", "o01"])
    assert b"beam_ray.library" not in found.tasks.schema.metadata


def test_a_backtest_is_remembered_once_beside_the_versions(lab: Lab, cli):
    """The first word counts, other sources are nobody's business, and no version is made."""
    write_library(lab.objects, "orders", lab.tasks(["x"]), 0)
    used(lab.objects, "library:orders@1", "bt-1")
    before = lab.objects.read("libraries/orders/used/bt-1.json")
    for source in ("library:orders@1", "library:orders@2", "tasks.jsonl", "run:261001-aaaaaa", "library:../x@1", "library:orders"):
        used(lab.objects, source, "bt-1")
    used(lab.objects, "tasks.jsonl", "bt-2")

    assert lab.objects.read("libraries/orders/used/bt-1.json") == before
    assert [(each.backtest_id, each.version) for each in uses(lab.objects, "orders")] == [("bt-1", 1)]
    assert library_versions(lab.objects, "orders") == [1]
    assert cli("library", "list", "--json").json[0]["last_used"]["backtest_id"] == "bt-1"
    assert "last backtest: bt-1 with version 1, " in cli("library", "show", "orders").out
