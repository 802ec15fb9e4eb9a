"""``beam-ray draft``: what is typed, printed and kept."""

import io
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.commands import CommandResult, run_command
from tests.sums import WORKFLOW

Give = Callable[..., CommandResult]


@pytest.fixture
def give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Give:
    """Gives commands in a folder with the published workflow 'sums'; no model is ever called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "none")
    Path("sums.yaml").write_text(WORKFLOW)
    give = partial(run_command, capsys)
    assert give("publish", "sums.yaml", "--without-evidence", "the first").code == 0
    return give


def test_a_draft_from_its_beginning_to_its_version(give: Give, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Created, changed by path and by text from standard input, shown, listed, published and dropped.
    """
    created = give("draft", "create", "sums@better")
    changed = give("draft", "set", "sums@better", "nodes.read.evaluate.threshold=80", "nodes.read.llm.prompt=better {{ task_query }}")
    text = give("draft", "show", "sums@better", "--text").out
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.replace("threshold: 80", "threshold: 70").encode())))
    saved = give("draft", "save", "sums@better", "-", "--json").json
    listed = give("draft", "list", "sums").out
    published = give("publish", "sums@better", "--without-evidence", "tried by hand")
    dropped = give("draft", "drop", "sums@better")

    assert "saved sums@better:1\ncheck: OK; 0 changes" in created.out
    assert "check: OK; 2 changes against the published version:\n  read.llm.prompt\n" in changed.out and "      90.0 -> 80.0\n" in changed.out
    assert (saved["number"], saved["problems"], saved["base"]) == (3, [], 1)
    assert "sums@better         3  version 1" in listed
    assert "published sums version 2" in published.out
    assert dropped.out == "dropped sums@better\n"
    assert "no drafts; beam-ray draft create sums@DRAFT --store store  makes one" in give("draft", "list", "sums").out


REFUSALS = {
    "an old revision": (("set", "sums@better:1", "model=m2"), "was changed in the meantime by"),
    "a path that leads nowhere": (("set", "sums@better", "nodes.reed.llm.prompt=x"), "did you mean 'read'"),
    "no value": (("set", "sums@better", "model"), "write it as PATH=VALUE"),
    "no draft": (("show", "sums"), "write it as WORKFLOW@DRAFT"),
    "another draft": (("show", "sums@beter"), "did you mean 'better'"),
    "a file that is not there": (("save", "sums@better", "gone.yaml"), "gone.yaml: cannot be read"),
    "another workflow": (("save", "sums@better", "other.yaml"), "is a draft of 'sums'"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_done_is_refused(give: Give, case: str) -> None:
    """
    In words that say what to do, with exit code 2, and nothing is saved.
    """
    Path("other.yaml").write_text(WORKFLOW.replace("workflow: sums", "workflow: others"))
    give("draft", "create", "sums@better")
    give("draft", "set", "sums@better", "nodes.read.evaluate.threshold=80")
    words, message = REFUSALS[case]
    said = give("draft", *words)

    assert (said.code, message in said.err) == (2, True), said.err
    assert give("draft", "show", "sums@better", "--json").json["number"] == 2


def test_a_change_with_errors_is_saved_and_said(give: Give) -> None:
    """
    The problem has its line, and the draft cannot be run.
    """
    give("draft", "create", "sums@better")
    said = give("draft", "set", "sums@better", "nodes.read.auto_rerun.max=9")

    assert "saved sums@better:2\ncheck: 1 problem; it cannot be run or published\n" in said.out
    assert "'max' must be 1, 2 or 3, not 9" in said.err
    assert give("check", "sums@better").code == 2
    assert give("check", "sums@better:1").code == 0
