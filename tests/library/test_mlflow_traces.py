"""Traces of a real MLflow as a library, by its own search: read page by page, sampled, and refused in one line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.errors import Unusable
from tests import mlflow_app
from tests.commands import CommandResult, run_command

pytestmark = pytest.mark.usefixtures("mlflow_forks")

COUNT = 130
"""More traces than MLflow gives at once."""


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The URI of an MLflow in which an application left its traces."""
    return mlflow_app.produce(tmp_path_factory.mktemp("production"), COUNT, wrong_every=5, assessed=3)


@pytest.fixture
def cli(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., CommandResult]:
    monkeypatch.setenv("BEAM_RAY_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(tmp_path)
    return lambda *words: run_command(capsys, *words)


def test_traces_become_tasks(production: str, cli: Callable[..., CommandResult]) -> None:
    """
    Inputs, output, expectation, a person's feedback and tags of a trace are in its task; a judge's feedback is not.
    """
    done = cli("library", "import", "support", "--from", "mlflow:support", "--mlflow", production, "--json")
    tasks = {task["task_query"]: task for task in cli("library", "show", "support", "--json").json["tasks"]}
    stored = {row["task_id"]: row for row in beam_ray.open().library("support").tasks.to_pylist()}

    assert done.code == 0
    assert len(tasks) == COUNT
    first = tasks[mlflow_app.message(0)]
    assert first["expected"] == {"text": "billing"}
    assert first["labels"] == ["correct=false"]
    assert first["notes"] == "correct: seen"
    assert first["variables"] == {"customer": "zenith", "session": "s0"}
    assert json.loads(stored[first["id"]]["recorded"])["output"] == "delivery"
    failed = tasks[mlflow_app.message(7)]
    assert failed["labels"] == ["failed in production"]


def test_a_sample_keeps_rare_routes_and_failures(production: str, cli: Callable[..., CommandResult]) -> None:
    """
    Twelve of 130 traces have a failure and the route that four took; the strata are printed, and repeating it changes nothing.
    """
    done = cli("library", "import", "few", "--from", "mlflow:support", "--mlflow", production, "--sample", 12)
    again = cli("library", "import", "few", "--from", "mlflow:support", "--mlflow", production, "--sample", 12)
    labels = [label for task in cli("library", "show", "few", "--json").json["tasks"] for label in task["labels"]]

    assert done.code == 0
    assert "find_order" in done.out
    assert "few@1: nothing changed" in again.out
    assert "failed in production" in labels


def test_filter_stratify_and_redact(production: str, tmp_path: Path) -> None:
    """
    MLflow's filter chooses the traces, a tag's values are drawn in proportion, and what the function removes is in no file of the store.
    """
    store = beam_ray.open(tmp_path / "store", models={})
    options = beam_ray.TraceOptions(
        sample=10, stratify="customer", filter="tags.customer = 'zenith'", mlflow=production, redact=lambda text: text.replace("case", "CASE")
    )

    done = store.import_traces("zenith", "mlflow:support", options=options)

    assert {kind for kind in done.strata if not kind.endswith("failed")} == {"zenith"}
    assert done.traces == len(range(0, COUNT, 4))
    assert not any(b"of case" in path.read_bytes() for path in (tmp_path / "store").rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["mlflow:suport"], "did you mean 'support'"),
        (["mlflow:support", "--filter", "colour = 'x'"], "with this --filter"),
        (["mlflow:support", "--filter", "tags.customer = 'nobody'"], "mlflow:support: there are no traces in it"),
    ],
)
def test_what_mlflow_does_not_have(production: str, cli: Callable[..., CommandResult], words: list[str], says: str) -> None:
    """
    A missing experiment, a filter that MLflow does not take and one that matches nothing end with exit code 2 and say why.
    """
    done = cli("library", "import", "x", "--from", *words, "--mlflow", production)

    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err


def test_no_database(cli: Callable[..., CommandResult], tmp_path: Path) -> None:
    """
    A database that is not there is refused, and not created.
    """
    done = cli("library", "import", "x", "--from", "mlflow:support", "--mlflow", f"sqlite:///{tmp_path / 'none.db'}")

    assert (done.code, "there is no MLflow database" in done.err) == (2, True)
    assert not (tmp_path / "none.db").exists()


def test_a_dead_server(cli: Callable[..., CommandResult]) -> None:
    """
    A server that does not answer ends the import with exit code 3: the same command may succeed later.
    """
    done = cli("library", "import", "x", "--from", "mlflow:support", "--mlflow", "http://127.0.0.1:9")

    assert done.code == 3
    assert done.err.count("\n") == 1
    assert "no trace was imported: cannot connect to http://127.0.0.1:9" in done.err


def test_a_filter_is_for_experiments(tmp_path: Path) -> None:
    """
    A filter with a file is refused instead of ignored.
    """
    with pytest.raises(Unusable, match="a file is read whole"):
        beam_ray.open(tmp_path, models={}).import_traces("x", "otel:x.jsonl", options=beam_ray.TraceOptions(filter="a = 'b'"))


def dataset(uri: str, name: str, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, str], dict[str, Any]]:
    """Tags of the dataset, and its records by task."""
    from mlflow.genai.datasets import get_dataset

    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    found = get_dataset(name=name)
    return found.tags, {row["inputs"]["task"]: row for row in found.to_df().to_dict("records")}


def test_a_library_as_an_evaluation_dataset(production: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    A dataset has the tasks with expectations, and the library's version as a tag; exporting again changes nothing, and a new version
    changes what is different.
    """
    store = beam_ray.open(tmp_path / "store", models={})
    tasks = [{"id": f"t{number}", "task_query": "one question", "expected": {"team": "billing", "sure": True}} for number in range(3)]
    store.add_to_library("set", tasks)

    first = store.library("set").export_to_mlflow("support-set", production)
    again = store.library("set").export_to_mlflow("support-set", production)
    store.add_to_library("set", [{**tasks[1], "expected": {"team": "delivery"}}], saved=beam_ray.SavedTasks(replace=True))
    store.remove_from_library("set", ["t2"])
    changed = store.library("set").export_to_mlflow("support-set", production)
    tags, rows = dataset(production, "support-set", monkeypatch)

    assert (first.added, again.added, again.changed, again.removed, again.unchanged) == (3, 0, 0, 0, 3)
    assert (changed.added, changed.changed, changed.removed, changed.unchanged) == (0, 1, 1, 1)
    assert (tags["beam_ray.library"], tags["beam_ray.version"]) == ("set", "3")
    assert {task: row["expectations"] for task, row in rows.items()} == {"t0": {"team": "billing", "sure": True}, "t1": {"team": "delivery"}}


def test_a_dataset_of_another_library(production: str, cli: Callable[..., CommandResult], tmp_path: Path) -> None:
    """
    A dataset that holds one library is not overwritten with another, and a dead server is exit code 3.
    """
    store = beam_ray.open(tmp_path / "store", models={})
    for name in ("one", "two"):
        store.add_to_library(name, [{"task_query": name}])
    cli("library", "export", "one", "--to", "mlflow:shared", "--mlflow", production)

    other = cli("library", "export", "two", "--to", "mlflow:shared", "--mlflow", production)
    dead = cli("library", "export", "one", "--to", "mlflow:shared", "--mlflow", "http://127.0.0.1:9")

    assert (other.code, "holds the library 'one'" in other.err) == (2, True)
    assert (dead.code, "the dataset is not complete" in dead.err) == (3, True)
