"""Pinned views: the same numbers to whoever opens them, or exactly what changed since."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

import beam_ray
from beam_ray.errors import Unusable
from tests.commands import CommandResult, run_command
from tests.conftest import Lab
from tests.review.judged import judged_run, opened
from tests.shapes import SHAPES, misfits


def test_a_pinned_view_keeps_its_numbers_while_runs_are_added(lab: Lab) -> None:
    """A newer run is named beside the view and not counted in it; pinned twice it is one view, and who pinned it first stays."""
    first = judged_run(lab, 9, lambda number: number % 3 > 0)
    store = opened(lab)
    pin = store.pin("http://127.0.0.1:8090/tasks?label=&status=failing&sort=-score", note="what fails", by="ann")
    second = judged_run(lab, 4, lambda number: False)
    view, again = store.pinned_view(pin.id[:6]), store.pin("status=failing", by="ben")

    assert (pin.filters, list(pin.runs), pin.numbers["tasks"], pin.numbers["below"]) == ("status=failing", [first.run_id], 3, 3)
    assert (view.same, view.numbers, dict(view.newer)) == (True, pin.numbers, {second.run_id: 4})
    assert again.id != pin.id
    assert [row["run_id"] for row in store.list_tasks(pin.query).tasks] == [first.run_id] * 3
    assert store.pin("status=failing", by="cid") == again
    assert {each.id: each.pinned_by for each in store.pins()} == {pin.id: "ann", again.id: "ben"}


def test_a_view_says_which_runs_are_gone(lab: Lab) -> None:
    """Its numbers now are those of what is left, beside what they were."""
    run = judged_run(lab, 6, lambda number: True)
    pin = opened(lab).pin("")
    shutil.rmtree(Path(lab.objects.uri) / "runs" / run.run_id)
    view = opened(lab).pinned_view(pin.id)

    assert (view.same, view.missing, view.numbers["tasks"], pin.numbers["tasks"]) == (False, (run.run_id,), 0, 6)


@pytest.mark.parametrize(
    ("view", "words"),
    [("status=nothing", "there is no status"), ("colour=red", "knows no 'colour'"), ("/backtests/x", "is no list of tasks"), ("label=none", "nothing to pin")],
)
def test_what_cannot_be_pinned_is_refused(view: str, words: str, lab: Lab) -> None:
    """And nothing is kept."""
    judged_run(lab, 3, lambda number: True)
    with pytest.raises(Unusable, match=words):
        opened(lab).pin(view)

    assert opened(lab).pins() == []


@pytest.fixture
def give(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives commands in a folder whose store has a run of 12 judged tasks."""
    judged_run(lab, 12, lambda number: number % 3 > 0)
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    return partial(run_command, capsys)


def test_the_command_pins_shows_and_lists(give: Callable[..., CommandResult], lab: Lab) -> None:
    """One command for all three; its document and the stored one have their declared shape."""
    made = give("pin", "status=passed", "--note", "what passes", "--json").json
    shown, listed, wrong = give("pin", made["pin"][:8]), give("pin"), give("pin", "123")
    stored = next(Path("store/pins").iterdir()).relative_to("store").as_posix()

    assert misfits(made, beam_ray.api.pins.PinnedViewDocument) == []
    assert (made["same"], made["numbers"]["tasks"], made["numbers"]["score"]) == (True, 8, 100.0)
    assert "the same numbers, from the same files" in shown.out
    assert "what passes" in listed.out
    assert (wrong.code, "there is no pinned view '123'" in wrong.err) == (2, True)
    assert r"pins/\w+\.json" in SHAPES and stored.startswith("pins/")
