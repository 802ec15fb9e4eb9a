"""Backtests that go on: how far they are, and what their gate says of the pairs so far."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.backtest.live import read_backtest_progress
from beam_ray.compare.sequential import interim_analyses
from beam_ray.errors import Unusable
from beam_ray.llm.prices import Price
from tests.api.conftest import TASKS, answer
from tests.sums import WORKFLOW, numbers

BETTER: Mapping[str, Any] = {"better": {"nodes.read.llm.prompt": "better {{ task_query }}"}}
WORSE: Mapping[str, Any] = {"worse": {"nodes.read.llm.prompt": "read {{ task_query }}"}}


def test_a_backtest_that_was_interrupted_says_how_far_it_is(store: beam_ray.Store) -> None:
    """
    Before its verdict its sides, pairs and the gate's lines so far are there, with a word that they decide nothing; after it they are not.
    """

    def interrupt(progress: beam_ray.Progress) -> None:
        if "repeated 2 times" in progress.message:
            raise KeyboardInterrupt

    Path("better.yaml").write_text(WORKFLOW.replace("read {{", "better {{"))
    spec = beam_ray.Backtest(name="sums", workflow="better.yaml", baseline=Path("better.yaml"), tasks=TASKS, candidates=WORSE, confirm=2)
    with pytest.raises(KeyboardInterrupt):
        store.backtest(spec, progress=interrupt)
    (name,) = store.unfinished_backtests()
    found = store.backtest_progress(name)
    lines = {each["line"]["rule"]: each["line"]["found"] for each in found.so_far[0]["lines"]}

    assert (found.state, found.tasks, dict(found.pairs), found.candidates) == ("stopped", 9, {"worse": 9}, ("worse",))
    assert [(side, progress.state) for side, progress in found.sides] == [("baseline", "finished"), ("worse", "finished")]
    assert found.calls == sum(progress.calls for _, progress in found.sides) > 0
    assert "success_rate" in lines
    assert found.so_far[0]["word"] is None
    assert found.looks == ()
    verdict = store.backtest(spec)
    assert store.unfinished_backtests() == []
    with pytest.raises(Unusable, match="no unfinished backtest"):
        store.backtest_progress(verdict.id)


def test_interim_analyses_are_told_as_they_are_made(store: beam_ray.Store) -> None:
    """
    Each has the gate's lines with their intervals, which close in on the limit; the last one is the word that settled it.
    """
    # no rule of time, which a busy machine would decide
    Path("gate.yaml").write_text("gate: quality\nrules: {success_rate: {not_worse_than: 5}, score: {not_worse_than: 5}, regressions: {at_most: 0}}\n")
    made: Any = {"name": "early", "workflow": "sums.yaml", "baseline": Path("sums.yaml"), "tasks": numbers(160), "gate": "gate.yaml"}
    verdict = store.backtest(beam_ray.Backtest(candidates=BETTER, stop="early", **made))
    told = read_backtest_progress(store.objects, verdict.id)

    assert told is not None
    looks = told["looks"]
    rates = [next(each["interval"] for each in look["lines"] if each["line"]["rule"] == "success_rate") for look in looks]
    widths = [rate["high"] - rate["low"] for rate in rates if rate]
    assert [look["tasks"] for look in looks] == list(interim_analyses(160)[: len(looks)])
    assert looks[-1]["word"] == verdict.word
    assert widths == sorted(widths, reverse=True)
    assert told["driver"] == ""


def test_an_open_verdict_names_the_price_of_deciding(store: beam_ray.Store) -> None:
    """
    How many more tasks, and what they cost on both sides at the price per task that was observed.
    """
    priced = dataclasses.replace(store, models={"m": beam_ray.ScriptedModel(answer, price=Price(1.0, 2.0))})
    spec = beam_ray.Backtest(name="few", workflow="sums.yaml", baseline=Path("sums.yaml"), tasks=TASKS, candidates=BETTER, gate="improve")
    verdict = priced.backtest(spec)
    needed = max(line.tasks_needed or 0 for line in verdict.gate if line.level != "target")
    usd = next(each for each in verdict.best.document["comparison"]["metrics"] if each["name"] == "usd")
    deciding = verdict.best.deciding

    assert needed > len(TASKS)
    assert deciding is not None
    assert (deciding.tasks, deciding.more) == (needed, needed - len(TASKS))
    assert deciding.usd == pytest.approx(deciding.more * (usd["before"] + usd["after"]))
    assert deciding.usd > 0
