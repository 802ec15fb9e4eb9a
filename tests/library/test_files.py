"""Libraries as files: what is written is read back as the same tasks, or is not written."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from beam_ray.errors import Unusable
from beam_ray.library.export import export
from beam_ray.store.libraries import read_library, write_library
from beam_ray.tasks.parse import read_tasks
from tests.conftest import Lab

KINDS = ["jsonl", "csv", "parquet"]


def library(lab: Lab, rows) -> list[dict]:
    """A library of these tasks, and its rows."""
    write_library(lab.objects, "orders", lab.tasks(rows), 0)
    return read_library(lab.objects, "orders")[0].to_pylist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_exported_library_is_imported_as_it_was(lab: Lab, cli, kind):
    """Every field survives, attachments of one name included."""
    lab.write("one/a.txt", "first")
    lab.write("two/a.txt", "second")
    (lab.folder / "scan.png").write_bytes(b"an image")
    shown = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "scan.png"}}]
    rows = library(
        lab,
        [
            {
                "id": "a, b",
                "task_query": '=1+1\r\n"x" é \u2028 end ',
                "variables": {"z": 1, "a": [1.5, None]},
                "expected": {},
                "labels": ["edge", "scan"],
                "attachments": ["one/a.txt", "two/a.txt"],
                "tests": "extract",
                "notes": "two\nlines",
                "messages": [{"role": "user", "content": shown}, {"role": "assistant", "content": "seen"}],
            },
            {"id": "b", "task_query": "plain"},
        ],
    )
    said = cli("library", "export", "orders", f"out/orders.{kind}")
    imported = cli("library", "import", "copy", f"out/orders.{kind}")

    assert (said.code, said.out) == (0, f"orders@1: wrote 2 tasks to out/orders.{kind}, and 3 attachments next to it\n")
    assert imported.code == 0
    assert read_library(lab.objects, "copy")[0].to_pylist() == rows


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(queries=st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1, max_size=5))
def test_any_query_is_read_back_or_refused(lab: Lab, kind, queries):
    """There is no third way: a file that says something else is never left behind."""
    tasks = lab.tasks(queries)
    path = lab.folder / f"any.{kind}"
    path.unlink(missing_ok=True)
    try:
        export(lab.objects, tasks.to_pylist(), path)
    except Unusable:
        assert kind == "csv"
        assert not path.exists()
        return

    assert read_tasks(path, lab.objects).select(["task_id", "task_query", "inputs"]).equals(tasks.select(["task_id", "task_query", "inputs"]))


def test_a_query_that_is_an_object_survives_as_json(lab: Lab, cli):
    """Key order and numbers are kept to the byte."""
    rows = library(lab, [{"id": "t", "task_query": {"b": 1.50, "a": {"y": None, "x": 12345678901234567890}}}, {"id": "empty", "task_query": {}}])
    cli("library", "export", "orders", "orders.jsonl")
    cli("library", "import", "copy", "orders.jsonl")

    assert read_library(lab.objects, "copy")[0].to_pylist() == rows


def test_what_a_kind_of_file_cannot_hold_is_refused(lab: Lab, cli):
    """The task and the reason are named, the way out too, and nothing is left behind."""
    lab.write("a.txt", "x")
    library(lab, [{"id": "t", "task_query": "x", "labels": ["a,b"], "attachments": ["a.txt"]}])
    found = cli("library", "export", "orders", "orders.csv")

    assert (found.code, found.err) == (
        2,
        "a .csv file cannot represent these tasks: task 't': its labels would be read back differently\n  export them to a .jsonl file\n",
    )
    assert not (lab.folder / "orders.csv").exists()
    assert not (lab.folder / "orders-attachments").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("orders.txt", "orders.txt: the name of an exported file must end in .jsonl, .csv or .parquet"),
        ("taken.jsonl", "taken.jsonl exists already; choose another name, or delete it first"),
    ],
)
def test_an_export_overwrites_nothing(lab: Lab, cli, file, said):
    """A person's file is theirs."""
    library(lab, ["x"])
    lab.write("taken.jsonl", "mine")
    found = cli("library", "export", "orders", file)

    assert (found.code, found.err) == (2, said + "\n")
    assert (lab.folder / "taken.jsonl").read_text() == "mine"


def test_a_damaged_attachment_is_never_exported(lab: Lab, cli):
    """Its name is its checksum."""
    lab.write("a.txt", "x")
    rows = library(lab, [{"id": "t", "task_query": "x", "attachments": ["a.txt"]}])
    key = f"attachments/{rows[0]['attachments'][0]['sha256']}"
    lab.objects.put(key, b"y")
    found = cli("library", "export", "orders", "orders.jsonl")

    assert (found.code, found.err) == (6, f"{key} is damaged: its content does not match its sha256\n")
