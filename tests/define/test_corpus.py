"""Every broken workflow file of the corpus is refused: where, what, and what to do."""

import shutil
from pathlib import Path

import pytest

from tests.corpus.cases import HERE, PLACE, Case, of
from tests.corpus.command import give


@pytest.fixture(scope="session")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with prompts and tools for broken files to stand in."""
    folder = tmp_path_factory.mktemp("project") / "p"
    shutil.copytree(HERE / "workflows" / "beside", folder)
    (folder / "tools" / "broken.py.txt").rename(folder / "tools" / "broken.py")
    (folder / "prompts" / "latin.md").write_bytes(b"Caf\xe9\n")
    (folder.parent / "elsewhere.py").write_text("def find(number): ...\n")
    (folder / "tools" / "link.py").symlink_to(folder.parent / "elsewhere.py")
    return folder


@pytest.mark.parametrize("case", of("workflows"))
def test_a_broken_workflow_file_is_refused(case: Case, beside, monkeypatch, capsys):
    """The command exits with code 2, prints nothing on standard output, and its message begins with a place."""
    monkeypatch.chdir(beside)
    Path("w.yaml").write_bytes(case.body)

    said = give(capsys, "check", "w.yaml")

    assert (said.code, said.out) == (2, ""), said
    assert PLACE.match(said.err), said.err
    case.expect(said.err.replace(str(beside.parent), "…"))
