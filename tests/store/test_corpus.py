"""Every broken tasks file of the corpus is refused: where, what, and what to do; and nothing is asked of a model."""

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.corpus.cases import HERE, Case, of
from tests.corpus.command import give
from tests.endpoint import endpoint

PLACE_OF_TASK = re.compile(r"^[\w./-]+(:\d+:\d+|, row \d+|): ")
"""How a refusal begins: file:line:column, file, row, or the file where all of it is meant."""


@pytest.fixture(scope="session")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound workflow, and what tasks may and may not attach."""
    folder = tmp_path_factory.mktemp("tasks") / "p"
    shutil.copytree(HERE / "tasks" / "beside", folder)
    (folder.parent / "secret.txt").write_text("canary")
    (folder / "link.txt").symlink_to(folder.parent / "secret.txt")
    os.mkfifo(folder / "pipe")
    return folder


@pytest.fixture(scope="session")
def model():
    """An endpoint with a journal."""
    with endpoint(lambda body: "yes") as state:
        yield state


@pytest.mark.parametrize("case", of("tasks"))
def test_a_broken_tasks_file_is_refused(case: Case, beside, model, monkeypatch, capsys):
    """The command exits with code 2, its message begins with a place, and it made no model call and began no run."""
    monkeypatch.chdir(beside)
    tasks = Path(f"tasks.{case.family.stem}")
    tasks.write_bytes(case.body)
    Path("models.yaml").write_text(f"m: {{base_url: '{model.url}', model: x}}\n")

    said = give(capsys, "run", "w.yaml", "--tasks", str(tasks), "--models", "models.yaml", "--store", "store")

    assert (said.code, said.out) == (2, ""), said
    # inputs are checked task by task when the table is made, whatever it was made from
    assert PLACE_OF_TASK.match(said.err) or ": task 't1' does not match" in said.err, said.err
    assert not model.journal
    assert not Path("store/runs").exists()
    case.expect(said.err)
