"""Every broken backtest spec, gate file and models file of the corpus is refused before anything is paid."""

import shutil
from pathlib import Path

import pytest

from tests.corpus.cases import HERE, PLACE, Case, of
from tests.corpus.command import give
from tests.endpoint import endpoint


@pytest.fixture
def beside(tmp_path_factory: pytest.TempPathFactory, monkeypatch) -> Path:
    """A project in which a backtest could run, but for what is broken."""
    folder = tmp_path_factory.mktemp("backtest") / "p"
    shutil.copytree(HERE / "specs" / "beside", folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    monkeypatch.setenv("BEAM_RAY_MODELS", "models.yaml")
    return folder


@pytest.fixture(scope="module")
def model():
    """An endpoint with a journal."""
    with endpoint(lambda body: "yes") as state:
        yield state


@pytest.mark.parametrize("case", [*of("specs"), *of("gates"), *of("models")])
def test_broken_settings_are_refused(case: Case, beside, model, capsys):
    """The command exits with code 2, made no model call and began no run; a backtest and its plan behave alike."""
    model.journal.clear()
    Path("models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x}}\n")
    file = {"specs": "spec.yaml", "gates": "gate.yaml", "models": "models.yaml"}[case.family.stem]
    Path(file).write_bytes(case.body)
    words = ("run", "w.yaml", "--tasks", "tasks.jsonl") if case.family.stem == "models" else ("backtest", "spec.yaml", "--plan")

    said = give(capsys, *words)

    assert (said.code, said.out) == (2, ""), said
    assert not model.journal
    assert not Path("store/runs").exists()
    assert PLACE.match(said.err) or case.title in ELSEWHERE, said.err
    case.expect(said.err.replace(str(beside.parent), "…"))


ELSEWHERE = (
    "a baseline that is no run",
    "a gate that is not there",
    "tasks that are not there",
    "a library that is not there",
    "a library's name that climbs",
    "a run that is not there",
    "a workflow whose model is not in the file",
    "a variable that is not set",
)
"""What is wrong lies in the store, the environment or a file that is not there, where there are no lines."""
