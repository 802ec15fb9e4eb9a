"""``beam-ray review``: blind, resumable, and with each answer kept at once."""

import csv
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner

from beam_ray.cli import beam_ray
from beam_ray.review.judge_report import JudgeReportDocument
from tests.commands import CommandResult, run_command
from tests.conftest import Lab
from tests.golden import check_golden
from tests.review.judged import judged_run, opened
from tests.shapes import misfits

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def give(lab: Lab, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives commands in a folder whose store has a run of 12 judged tasks."""
    judged_run(lab, 12, lambda number: number % 3 > 0)
    monkeypatch.chdir(lab.folder)
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    return partial(run_command, capsys)


def typed(lines: str, *words: str) -> str:
    """What a command prints to a person who types these lines."""
    made = CliRunner().invoke(beam_ray, list(words), input=lines)
    assert made.exit_code == 0, made.output
    return made.output


def test_a_person_reviews_one_by_one_and_goes_on_later(give: Callable[..., CommandResult], lab: Lab) -> None:
    """The judge's word is not shown; stopping loses nothing, and the same command continues."""
    first = typed("y\nn wrong tone\nwhat\nq\n", "review", "start", "replies", "--count", "4", "--reviewer", "ann")
    second = typed("?\ns\n", "review", "start", "replies", "--count", "4", "--reviewer", "ann")

    check_golden(GOLDEN, "start.txt", f"{first}--- later\n{second}")
    assert "judge" not in first + second
    assert [(row["met"], row["comment"], row["hidden"]) for row in opened(lab).reviews().to_pylist()] == [
        (True, None, True),
        (False, "wrong tone", True),
        (None, None, True),
    ]


def test_the_judge_is_shown_on_request_and_that_is_kept(give: Callable[..., CommandResult], lab: Lab) -> None:
    """A review that the judge's word may have influenced says so."""
    said = typed("y\n", "review", "start", "replies", "--count", "1", "--show-judge")

    assert "judge: " in said
    assert opened(lab).reviews()["hidden"].to_pylist() == [False]


def test_screens_of_reviews_in_a_file(give: Callable[..., CommandResult], lab: Lab) -> None:
    """Drawing, importing and listing print their golden files."""
    drawn = give("review", "draw", "replies", "--count", "3", "--seed", "4", "--to", "r.csv")
    with Path("r.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    with Path("r.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "met": met, "comment": met and "seen"} for row, met in zip(rows, ("yes", "no", ""), strict=True))
    made = [drawn, give("review", "import", "r.csv", "--reviewer", "ann"), give("review", "import", "r.csv", "--reviewer", "ann"), give("review", "list")]

    check_golden(GOLDEN, "file.txt", "".join(f"exit code {each.code}\n{each.out}{each.err}" for each in made))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("draw", "nothing", "--to", "r.csv"), "there is no finished run of a workflow named 'nothing'"),
        (("draw", "replies", "--sample", "flagged", "--to", "r.csv"), "has no such outputs of 'reply'"),
        (("draw", "replies", "--to", "r.txt"), "must end in .csv or .jsonl"),
        (("draw", "replies", "--to", "taken.csv"), "taken.csv exists already, and may hold answers"),
        (("import", "none.csv"), "none.csv"),
        (("import", "taken.csv"), "no row is answered"),
    ],
)
def test_what_cannot_be_done_is_refused(give: Callable[..., CommandResult], words: tuple[str, ...], said: str) -> None:
    """One line, exit code 2, and nothing recorded or overwritten."""
    Path("taken.csv").write_text("address,criterion,met\na,b,\n", encoding="utf-8")
    found = give("review", *words)

    assert (found.code, found.out) == (2, "")
    assert said in found.err
    assert Path("taken.csv").read_text(encoding="utf-8").endswith("a,b,\n")


def test_the_screen_of_agreement(give: Callable[..., CommandResult], lab: Lab) -> None:
    """Figures, disagreements, samples and reviewers; and what is said where there are no reviews."""
    none = give("review", "agreement", "replies")
    typed("y\nn too short\ny\nn\ny\ny\n", "review", "start", "replies", "--count", "6", "--reviewer", "ann")
    typed("y\ny\ny\n", "review", "start", "replies", "--count", "3", "--reviewer", "bob")
    found = give("review", "agreement", "replies")

    check_golden(GOLDEN, "agreement.txt", "".join(f"exit code {each.code}\n{each.out}{each.err}" for each in (none, found)))
    [document] = give("review", "agreement", "replies", "--json").json
    assert misfits(document, JudgeReportDocument) == []
