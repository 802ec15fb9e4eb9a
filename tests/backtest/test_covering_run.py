"""A backtest over some of the tasks of an earlier run: what was paid for there is borrowed, and the plan says so."""

import json

import pytest

import beam_ray
from beam_ray.backtest.conclude import conclude
from beam_ray.backtest.sides import Backtest
from beam_ray.backtest.spec import resolve_spec
from beam_ray.llm import ScriptedModel
from beam_ray.llm.prices import Price
from beam_ray.tasks.sources import read
from tests.conftest import Lab
from tests.improve.scripted import here
from tests.sums import WORKFLOW, numbers, reply

SPEC = """
backtest: sums
workflow: sums.yaml
tasks: tasks.jsonl
baseline: sums.yaml
candidates: {better: {nodes.read.llm.prompt: "better {{ task_query }}"}}
gate: none
"""


def backtest(lab: Lab, rows: list[dict[str, object]], asked: list[str], spec: str = SPEC) -> Backtest:
    """The backtest of the spec over these tasks; *asked* gets the prompts."""

    def answer(request: beam_ray.Request) -> object:
        asked.append(str(request.messages[-1]["content"]))
        return reply(asked[-1])

    lab.write("sums.yaml", WORKFLOW)
    lab.write("spec.yaml", spec)
    lab.write("tasks.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    tasks, source = read(lab.objects, str(lab.folder / "tasks.jsonl"))
    return Backtest(
        lab.objects, resolve_spec(lab.objects, lab.folder / "spec.yaml"), tasks, source, {"m": ScriptedModel(answer, price=Price(1.0, 2.0))}, execute=here
    )


def test_fewer_tasks_of_an_earlier_run_are_not_paid_for_again(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Both sides of a backtest over four of twelve tasks are borrowed, and its plan has no calls.
    """
    monkeypatch.chdir(lab.folder)
    conclude(backtest(lab, numbers(12), []))
    asked: list[str] = []
    small = backtest(lab, numbers(12)[3:7], asked)
    calls = [plan.calls for _, plan, _ in small.plans() if plan]
    verdict = conclude(small)

    assert (calls[0], asked) == (0, [])
    assert verdict["candidates"][0]["comparison"]["pairs"] == 4


@pytest.mark.parametrize("why", ["expected", "query", "fresh"])
def test_what_is_not_the_same_is_executed(lab: Lab, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """
    A task with another input or expected outcome, and a fresh backtest, borrow nothing for the baseline.
    """
    monkeypatch.chdir(lab.folder)
    conclude(backtest(lab, numbers(12), []))
    rows = [dict(row) for row in numbers(12)[3:7]]
    if why == "expected":
        rows[0]["expected"] = {"n": 99}
    if why == "query":
        rows[0]["task_query"] = "1"
    asked: list[str] = []
    conclude(backtest(lab, rows, asked, SPEC + ("fresh: true\n" if why == "fresh" else "")))

    assert any(prompt.startswith("read") or "better" not in prompt for prompt in asked)
