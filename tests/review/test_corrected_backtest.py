"""A backtest whose judge people have reviewed: its report and JSON have the corrected rates beside the judged ones."""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import resolve_spec
from beam_ray.compare.verdict_json import BacktestDocument
from beam_ray.llm import ScriptedModel
from beam_ray.store.objects import Objects
from beam_ray.store.run_record import RunRecord
from beam_ray.tasks.sources import read
from tests.commands import CommandResult, run_command
from tests.conftest import Lab, drive_here
from tests.golden import check_golden
from tests.review.judged import answer_all, model, opened, workflow

SPEC = """
backtest: replies-v2
workflow: replies.yaml
tasks: tasks.csv
baseline: replies.yaml
candidates: {v2: {nodes.reply.llm.prompt: "answer {{ task_query }}"}}
gate: none
"""


def truth(number: int) -> bool:
    """What people say; the judge passes every second unmet one too."""
    return number % 3 > 0


def here(objects: Objects, record: RunRecord, models: Mapping[str, Any], **_: Any) -> None:
    """Executes a run in this process."""
    asyncio.run(drive_here(objects, record, models))


@pytest.fixture
def backtest(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BacktestDocument]:
    """Runs the backtest, or with ``again=True`` anew."""
    lab.write("replies.yaml", workflow())
    lab.write("spec.yaml", SPEC)
    lab.write("tasks.csv", "id,task_query\n" + "".join(f"t{number},question {number}\n" for number in range(24)))
    monkeypatch.chdir(lab.folder)

    def run(**how: Any) -> BacktestDocument:
        models = {"m": ScriptedModel(model(lambda number: truth(number) or number % 2 == 0))}
        return conclude(Backtest(lab.objects, resolve_spec(lab.objects, Path("spec.yaml")), *read(lab.objects, "tasks.csv"), models, execute=here, **how))

    return run


@pytest.fixture
def give(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """Gives commands over the lab's store."""
    monkeypatch.setenv("BEAM_RAY_STORE", "store")
    return partial(run_command, capsys)


def test_reviews_correct_a_backtest_and_the_next_one_reports_it(
    lab: Lab, backtest: Callable[..., BacktestDocument], give: Callable[..., CommandResult]
) -> None:
    """Reviews made after a backtest correct it at once; run anew, it has them in its reports, and its verdict can still be reproduced."""
    store, first = opened(lab), backtest()
    name = first["backtest_id"]
    early = give("review", "correct", name)
    for run in (first["baseline"]["run_id"], first["candidates"][0]["run_id"]):
        answer_all(store, lab.folder, store.review_queue("replies", run=run), truth)
    late, again = give("review", "correct", name), backtest(again=True)

    check_golden(Path(__file__).parent / "golden", "correct.txt", f"{early.out}--- with reviews\n{late.out}")
    [success, polite] = store.verdict(name).corrected_rates("v2")
    assert (success.name, success.by, success.reviews, polite.before.value < polite.judged_before.value) == ("success_rate", "own reviews", (24, 24), True)
    assert "corrected" in first["candidates"][0] and first["candidates"][0]["corrected"] == []
    assert [rate["name"] for rate in again["candidates"][0]["corrected"]] == ["success_rate", "reply/polite"]
    found = store.verdict(again["backtest_id"])
    assert all("reply/polite corrected for the judge" in found.report(file) for file in ("report.txt", "report.md", "report.html"))
    assert store.reproduce(again["backtest_id"]).reproduced


def test_damaged_reviews_cost_no_verdict(lab: Lab, backtest: Callable[..., BacktestDocument]) -> None:
    """The verdict is kept, without corrected rates."""
    first = backtest()
    store = opened(lab)
    answer_all(store, lab.folder, store.review_queue("replies", run=first["baseline"]["run_id"]), truth)
    [path] = Path(lab.objects.uri).glob("reviews/replies/*.parquet")
    path.write_bytes(path.read_bytes()[:-40])

    again = backtest(again=True)
    assert (again["word"], again["candidates"][0]["corrected"]) == ("NONE", [])
