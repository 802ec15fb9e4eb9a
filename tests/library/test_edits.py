"""Editing saved tasks, the list of versions and what differs, the coverage grid, and tasks of all runs."""

import io
import json
import zipfile

import pytest

import beam_ray
from beam_ray import TaskEdit, TaskQuery
from beam_ray.errors import Unusable
from tests.conftest import Lab
from tests.library.conftest import ORDERS, orders, past_run


@pytest.fixture
def store(lab: Lab, cli) -> beam_ray.Store:
    """A store with a library of three orders."""
    past_run(lab, "261001-aaaaaa", [*orders(2, labels=["scan"]), {"id": "o02", "task_query": "order 2"}], days=3)
    cli("library", "add", "orders", "--from-run", "last", "--note", "as it was")
    return beam_ray.open("store")


def test_labels_and_outcomes_are_edited_from_the_command_line(store: beam_ray.Store, cli):
    """Each edit is a version; what is not named stays, and an empty text removes."""
    first = cli("library", "label", "orders", "o00", "o01", "--add", "edge", "--remove", "scan", "--tests", "extract", "--note", "")
    cli("library", "expect", "orders", "o01", '{"vendor": "Ace"}')
    same = cli("library", "label", "orders", "o00", "--add", "edge")
    rows = store.library("orders").tasks.to_pylist()

    assert first.out.startswith("orders@2: 2 replaced; 3 tasks")
    assert same.out.startswith("orders@3: nothing changed")
    assert [(row["labels"], row["tests"], row["notes"], row["expected"]) for row in rows] == [
        (["edge"], "extract", None, None),
        (["edge"], "extract", None, '{"vendor": "Ace"}'),
        ([], None, "as it was", None),
    ]
    cli("library", "expect", "orders", "o01", "--none")
    assert store.library("orders").tasks["expected"].to_pylist() == [None] * 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["label", "orders", "o00"], "say what to change: --add LABEL"),
        (["label", "orders", "o9", "--add", "x"], "the library has no task 'o9'"),
        (["label", "order", "o00", "--add", "x"], "there is no task library 'order'"),
        (["expect", "orders", "o00"], "give the expected outcome as JSON, or --none"),
        (["expect", "orders", "o00", "[1]"], "[1]: the expected outcome is an object of fields"),
        (["diff", "orders", "orders@7"], "the library 'orders' has no version '7'"),
        (["add", "orders", "o00", "--route", "small order"], "add --from-any-run"),
    ],
)
def test_an_edit_that_makes_no_sense_is_refused(store: beam_ray.Store, cli, arguments, said):
    """In one line, and no version is written."""
    found = cli("library", *arguments)

    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert store.library("orders").versions == [1]


def test_an_edit_of_an_older_version_overwrites_no_other_edit(store: beam_ray.Store):
    """Who edits what somebody else has changed since is told; another task is free."""
    store.edit_library("orders", ["o00"], TaskEdit(labels=("mine",)), seen=1)
    other = store.edit_library("orders", ["o01"], TaskEdit(note="also from version 1"), seen=1)

    with pytest.raises(Unusable, match="task 'o00' was changed after orders@1: labels"):
        store.edit_library("orders", ["o00"], TaskEdit(labels=("yours",)), seen=1)
    assert other.library.version == 3
    assert store.library("orders").tasks["labels"].to_pylist() == [["mine"], ["scan"], []]


def test_versions_are_listed_and_compared_by_task_and_field(store: beam_ray.Store, cli):
    """The newest first; added, removed and changed with both values."""
    cli("library", "expect", "orders", "o01", '{"vendor": "Ace"}')
    cli("library", "remove", "orders", "o02")
    listed = [(each.number, each.tasks, each.change) for each in store.library_versions("orders")]
    found = cli("library", "diff", "orders@1", "orders@3", "--json").json

    assert listed == [(3, 2, "1 removed"), (2, 3, "1 replaced"), (1, 3, "3 added")]
    assert len(store.library_versions("orders", limit=1)) == 1
    assert found == {
        "library": "orders",
        "before": 1,
        "after": 3,
        "added": [],
        "removed": ["o02"],
        "changed": {"o01": [{"field": "expected", "before": None, "after": {"vendor": "Ace"}}]},
        "unchanged": 1,
    }
    assert '{"vendor": "Ace"}' in cli("library", "diff", "orders@1", "orders").out


def test_tasks_of_all_runs_are_saved_by_a_filter(store: beam_ray.Store, lab: Lab, cli):
    """The filter of the list of tasks; of a task that ran several times, the newest run that matches."""
    past_run(lab, "261002-bbbbbb", [{"id": "o00", "task_query": "order 0", "labels": ["scan"]}, {"id": "big", "task_query": "n", "amount": 500}])
    cli("library", "add", "scans", "--from-any-run", "--label", "scan", "--route", "small order")
    change = beam_ray.open("store").add_to_library("large", TaskQuery(route="large order"))

    assert [(row["task_id"], row["origin"]) for row in store.library("scans").tasks.to_pylist()] == [
        ("o00", "261002-bbbbbb/o00"),
        ("o01", "261001-aaaaaa/o01"),
    ]
    assert change.added == ("big",)
    assert "no finished task matches" in cli("library", "add", "none", "--from-any-run", "--search", "nowhere").err


def test_the_grid_counts_tasks_by_route_and_label_and_names_what_fills_a_gap(lab: Lab, cli):
    """A task counts for each of its labels; past tasks that the library lacks are counted beside, each id once."""
    past_run(lab, "261001-aaaaaa", [*orders(2, labels=["scan", "edge"]), {"id": "big", "task_query": "n", "amount": 500, "labels": ["scan"]}])
    past_run(lab, "261002-bbbbbb", [{"id": "big", "task_query": "n", "amount": 500, "labels": ["scan"]}])
    cli("library", "add", "orders", "o00", "o01")
    cli("library", "import", "orders", lab.write("new.jsonl", json.dumps({"id": "new", "task_query": "never run"}) + "\n").name)
    grid = beam_ray.open("store").library("orders").check(lab.write("w.yaml", ORDERS).name).grid
    found = {(cell.route, cell.label): (len(cell.tasks), cell.past, cell.gap) for row in grid.cells for cell in row}

    assert (grid.routes, grid.labels) == (("small order", "large order", None), ("edge", "scan", None))
    assert found == {
        ("small order", "edge"): (2, 0, False),
        ("small order", "scan"): (2, 0, False),
        ("small order", None): (0, 0, False),
        ("large order", "edge"): (0, 0, False),
        ("large order", "scan"): (0, 1, True),
        ("large order", None): (0, 0, False),
        (None, "edge"): (0, 0, False),
        (None, "scan"): (0, 0, False),
        (None, None): (1, 0, False),
    }


def test_an_exported_file_is_one_download(lab: Lab, cli):
    """JSON lines; with attachments a .zip that is read back as the same tasks."""
    lab.write("a.txt", "attached")
    cli("library", "import", "plain", lab.write("p.jsonl", json.dumps({"id": "p", "task_query": "x"}) + "\n").name)
    cli("library", "import", "papers", lab.write("q.jsonl", json.dumps({"id": "q", "task_query": "y", "attachments": ["a.txt"]}) + "\n").name)
    store = beam_ray.open("store")
    name, body = store.library("plain").export_file()
    packed, content = store.library("papers").export_file()
    zipfile.ZipFile(io.BytesIO(content)).extractall(lab.folder / "out")
    cli("library", "import", "again", "out/papers-1.jsonl")

    assert (name, json.loads(body)["id"]) == ("plain-1.jsonl", "p")
    assert packed == "papers-1.zip"
    assert store.library("again").tasks["inputs"] == store.library("papers").tasks["inputs"]
