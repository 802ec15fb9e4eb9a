"""A search in MLflow, read back through MLflow's own client."""

import socket
import time
from dataclasses import dataclass
from typing import Any

import pytest

from beam_ray.cli import main
from beam_ray.errors import TrackingUnavailable
from beam_ray.improve.holdout import split
from beam_ray.improve.search import Search
from beam_ray.improve.search_result import read_search
from beam_ray.improve.search_tracking import log_search
from beam_ray.store.libraries import library_at
from beam_ray.store.runs import Run
from beam_ray.tracking import default_uri
from tests.conftest import Lab
from tests.improve.test_search import NEEDED, Asked, Hints, library, search  # noqa: F401

pytestmark = pytest.mark.usefixtures("mlflow_forks")


@dataclass
class Searched:
    """A finished search, and where it may be told."""

    lab: Lab
    made: Search
    uri: str

    @property
    def document(self) -> dict[str, Any]:
        """The search as the store has it."""
        return read_search(self.lab.objects, self.made.search_id)

    def shown(self) -> dict[str, dict[str, Any]]:
        """What MLflow has of the search: metrics and their points, and more, by candidate."""
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.uri)
        experiment = client.get_experiment_by_name("beam_ray/w/optimise-w")
        assert experiment
        runs = client.search_runs([experiment.experiment_id], f"tags.`beam_ray.backtest` = '{self.made.search_id}'")
        assert len({run.info.run_name for run in runs}) == len(runs)
        return {
            run.info.run_name: {
                "id": run.info.run_id,
                "status": run.info.status,
                "tasks": run.data.params["tasks"],
                "note": run.data.tags["mlflow.note.content"],
                "metrics": run.data.metrics,
                "points": sum(len(client.get_metric_history(run.info.run_id, name)) for name in run.data.metrics),
            }
            for run in runs
        }


@pytest.fixture
def searched(library: Lab, monkeypatch: pytest.MonkeyPatch) -> Searched:  # noqa: F811
    """A search with a candidate that was dropped, one that was best, and a verdict."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = search(library, Asked(), Hints("Be kind.", NEEDED))
    assert made.run().accepted
    return Searched(library, made, default_uri(library.objects.uri))


def test_an_mlflow_that_is_away_is_told_later_with_the_same_numbers(searched: Searched, capsys: pytest.CaptureFixture[str]):
    """A dead server costs seconds and nothing else; mlflow-sync shows each candidate as one run of one experiment, and telling it again changes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        away = f"http://127.0.0.1:{probe.getsockname()[1]}"
    start = time.monotonic()
    with pytest.raises(TrackingUnavailable) as refused:
        log_search(searched.lab.objects, searched.document, away)

    assert time.monotonic() - start < 60
    command = str(refused.value).partition("beam-ray ")[2].split()
    assert command == ["mlflow-sync", searched.made.search_id]

    with pytest.raises(SystemExit) as left:
        main([*command, "--store", searched.lab.objects.uri])
    told = searched.shown()
    log_search(searched.lab.objects, searched.document, searched.uri)

    assert left.value.code == 0, capsys.readouterr().err
    assert searched.shown() == told
    document = searched.document
    assert set(told) == {entry["name"] for entry in document["candidates"]}
    for entry in document["candidates"]:
        metrics = told[entry["name"]]["metrics"]
        assert told[entry["name"]]["status"] == "FINISHED"
        assert told[entry["name"]]["tasks"] == f"{entry['tasks']} of library:l@1"
        assert metrics["Overall/tasks"] == entry["tasks"]
        # of what was dropped after a few tasks there is no score to stand beside the others
        expected = (
            {} if entry["score"] is None else dict.fromkeys(("Overall/score", "Overall/search score", "Overall/success_rate", "read/score"), entry["score"])
        )
        assert {name: round(value, 4) for name, value in expected.items()} == {name: metrics[name] for name in expected}
        assert len(metrics) > 10 or (entry["score"] is None and set(metrics) == {"Overall/tasks"})
        assert f"| {document['best']}&emsp; | 100.0&emsp; | 10 |" in told[entry["name"]]["note"]
    assert any(entry["score"] is None for entry in document["candidates"])


def test_a_search_that_comes_further_is_what_is_told(library: Lab):  # noqa: F811
    """With a larger budget the same search continues; the store keeps both results, and the later one counts."""
    short = search(library, Asked(), Hints("Be kind.", "Be brief.", NEEDED), budget={"max_calls": 90})
    short.run()
    first = read_search(library.objects, short.search_id)

    long = search(library, Asked(), Hints("Be kind.", "Be brief.", NEEDED))
    found = long.run()
    second = read_search(library.objects, long.search_id)

    assert short.search_id == long.search_id
    assert "budget" in first["ended"]
    assert (first["accepted"], second["accepted"]) == (False, True)
    assert second == found.document()
    assert len(list(library.objects.keys(f"searches/{long.search_id}/"))) == 2


def test_no_held_out_task_is_told_of_with_a_candidate(searched: Searched):
    """The runs that a candidate names are over search tasks alone."""
    held = set(split(searched.lab.objects, library_at(searched.lab.objects, "l")).held["task_id"].to_pylist())
    tried = {
        task
        for entry in searched.document["candidates"]
        for run_id in entry["run_ids"]
        for task in Run(searched.lab.objects, run_id).tasks()["task_id"].to_pylist()
    }

    assert len(tried) == 10
    assert not tried & held
