"""A backtest of an agent that was changed in one sentence: what it pays for, its verdict, and what its report says of calls."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

import beam_ray
from beam_ray.llm.prices import Price
from beam_ray.llm.request import ToolCall
from beam_ray.run.cluster import Cluster
from beam_ray.run.connection import Connection

COUNT = 24
WORKFLOW = """
workflow: orders
model: m
nodes:
  read:
    llm: {prompt: "read {{ task_query }}", returns: {number: str}}
  resolve:
    after: read
    agent:
      prompt: "Pay or hold the order {{ read.number }}."
      tools: [tools.desk:find, tools.desk:search, {tool: "tools.desk:send", effects: write}]
      returns: {decision: {one of: [pay, hold]}}
      max_turns: 5
    evaluate:
      criteria:
        - equals: {decision: expected.decision}
        - called: {tool: find, with: {number: read.number}}
        - calls: {at_most: 2}
"""
SENTENCE = "Pay or hold the order {{ read.number }}. Look the customer up before you decide."
DESK = """
from pathlib import Path

EFFECTS = {"find": "read", "search": "read"}
CALLED = Path(__file__).parent / "called.txt"


def note(word):
    with CALLED.open("a") as file:
        file.write(word + "\\\\n")


def find(number: str):
    note("find")
    return {"number": number, "total": int(number[3:])}


def search(customer: str):
    note("search")
    return {"customer": customer, "blocked": int(customer) % 2 == 1}


def send(to: str):
    note("send")
    return "sent"
"""


def answer(request: beam_ray.Request) -> Any:
    """
    Finds the order and pays it. Told to look the customer up, it does so for every second order, and holds those that are blocked.

    It tries to send a mail for order 7, whatever it is told.
    """
    first = str(request.messages[0]["content"])
    number = int(re.findall(r"[0-9]+", first)[0])
    if request.node == "read":
        return {"number": f"PO-{number}"}
    done = [str(message["content"]) for message in request.messages if message["role"] == "tool"]
    if not done:
        return ToolCall("find", json.dumps({"number": f"PO-{number}"}), "f")
    if number == 7 and len(done) == 1:
        return ToolCall("send", '{"to": "a@example.com"}', "s")
    if "customer up" in first and number % 2 and number != 7 and len(done) == 1:
        return ToolCall("search", json.dumps({"customer": str(number)}), "c")
    return {"decision": "hold" if '"blocked": true' in done[-1] else "pay"}


@dataclasses.dataclass(frozen=True)
class Done:
    """A finished backtest of a run that was recorded before."""

    folder: Path
    store: beam_ray.Store
    run: beam_ray.Run
    plan: beam_ray.BacktestPlan
    verdict: beam_ray.Verdict
    called: list[str]
    """The tools that were called in the run, and in the backtest."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, ray_cluster: Cluster) -> Done:
    folder = tmp_path_factory.mktemp("agents")
    (folder / "tools").mkdir()
    (folder / "tools" / "desk.py").write_text(DESK.replace("\\\\n", "\\n"))
    (folder / "orders.yaml").write_text(WORKFLOW)
    models = {"m": beam_ray.ScriptedModel(answer, price=Price(1.0, 2.0))}
    store = dataclasses.replace(beam_ray.open(folder / "store", models=models), connection=Connection(cluster=ray_cluster))
    tasks = [{"id": f"t{number}", "task_query": str(number), "expected": {"decision": "hold" if number % 2 else "pay"}} for number in range(COUNT)]
    run = store.run(folder / "orders.yaml", tasks=tasks)
    log = folder / "tools" / "called.txt"
    before = log.read_text()
    log.unlink()
    spec = beam_ray.Backtest(
        name="look-up",
        workflow=folder / "orders.yaml",
        tasks=f"run:{run.id}",
        baseline=f"run:{run.id}",
        candidates={"careful": {"nodes.resolve.agent.prompt": SENTENCE}},
        gate=str(_gate(folder)),
    )
    plan = store.plan_backtest(spec)
    verdict = store.backtest(spec)
    return Done(folder, store, run, plan, verdict, [before, log.read_text() if log.exists() else ""])


def _gate(folder: Path) -> Path:
    path = folder / "gate.yaml"
    path.write_text("gate: agents\nrules:\n  score: {up_by: 10}\n  tool_calls: {up_by_at_most: 1}\n  in_recording: {at_least: 60}\n")
    return path


def test_it_pays_from_the_first_call_that_differs(done: Done) -> None:
    """The step before is borrowed, tools are answered from the recording, and what is new is called: never a tool that writes."""
    candidate = done.verdict.candidates[0].run
    steps = {node: candidate.steps([node]).to_pylist() for node in ("read", "resolve")}
    calls = candidate.stored.calls().to_pylist()
    sources = {(row["kind"], row["name"], row["source"]) for row in calls}

    assert {row["outcome"] for row in steps["read"]} == {"borrowed"}
    assert sources == {("model", "m", "live"), ("tool", "find", "recorded"), ("tool", "search", "live"), ("tool", "send", "recorded")}
    assert candidate.summary["calls"] == sum(row["kind"] == "model" for row in calls) == 2 * COUNT + 12
    assert sorted(done.called[0].split()) == ["find"] * COUNT + ["send"]
    assert done.called[1].split() == ["search"] * 11


def test_its_verdict_counts_what_was_called(done: Done) -> None:
    """Metrics and rules over calls, beside those over scores."""
    metrics = {entry.name: (entry.before, entry.after) for entry in done.verdict.candidates[0].metrics}
    lines = {line.rule: line.word for line in done.verdict.candidates[0].gate}

    assert metrics["tool_calls"] == (pytest.approx(25 / 24), pytest.approx(36 / 24))
    assert metrics["turns"] == (pytest.approx(49 / 24), pytest.approx(60 / 24))
    assert metrics["failed_tool_calls"] == (0, 0)
    assert lines == {"score": "PASS", "tool_calls": "PASS", "in_recording": "INCONCLUSIVE"}
    assert done.verdict.word == "INCONCLUSIVE"


def test_the_report_names_the_first_call_that_differs(done: Done) -> None:
    """In every form of the report, with what was answered from the recording and what was not."""
    for form in ("terminal", "markdown", "html"):
        report = done.verdict.report(form).replace("\\", "")

        assert "turn 2: no tool before, search(customer=" in report.replace("&#39;", "'")
        assert "13 models live, tools recorded; 11 tools live or refused. Calls: 25 recorded; 71 live." in report
        assert "The first call that left the recording: resolve: model call 1 at messages[0].content (24 tasks)." in report
        assert "Tools that the recording did not answer: resolve: search (11 tasks)." in report
        assert "in 11 tasks the score mixes recorded and live results of tools" in report


def test_tasks_are_compared_apart_by_what_answered_their_tools(done: Done) -> None:
    """A slice each, with its own change of the score."""
    slices = {entry.name: (entry.pairs, entry.change) for entry in done.verdict.candidates[0].comparison.of_kind("recording")}

    assert slices == {"models live, tools recorded": (13, 0.0), "tools live or refused": (11, pytest.approx(100 / 3))}
