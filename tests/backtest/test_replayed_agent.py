"""An agent that was changed in one sentence, replayed over recorded tasks: what it pays for, its verdict, and what reports say of its calls."""

import json
import re
from html import unescape
from typing import Any, NamedTuple

import pytest

import beam_ray
from beam_ray.backtest.conclude import metrics_of
from beam_ray.compare.compare_runs import compare_runs
from beam_ray.compare.gate_file import load_gate
from beam_ray.compare.html import html
from beam_ray.compare.markdown import markdown
from beam_ray.compare.report import Result
from beam_ray.compare.terminal import terminal
from beam_ray.compare.verdict import judge
from beam_ray.llm.request import ToolCall
from beam_ray.store.opening import open_objects
from beam_ray.store.runs import Run
from tests.conftest import Lab

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
ASKED = "Pay or hold the order {{ read.number }}."
SENTENCE = " Look the customer up before you decide."
GATE = """
gate: agents
rules:
  score: {up_by: 10}
  tool_calls: {up_by_at_most: 1}
  in_recording: {at_least: 60}
"""
DESK = """
from pathlib import Path

EFFECTS = {"find": "read", "search": "read"}
CALLED = Path(__file__).parent / "called.txt"


def note(word):
    with CALLED.open("a") as file:
        file.write(word + "\\n")


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


class Done(NamedTuple):
    """A candidate that was replayed over a recorded run, and compared with it."""

    candidate: Run
    result: Result
    called: tuple[list[str], list[str]]
    """The tools that were called in the run, and in the replay."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("agents")
    lab = Lab(folder, open_objects(str(folder / "store")))
    lab.write("tools/desk.py", DESK)
    log = folder / "tools" / "called.txt"
    rows = [{"id": f"t{number}", "task_query": str(number), "expected": {"decision": "hold" if number % 2 else "pay"}} for number in range(COUNT)]
    before = lab.run(WORKFLOW, rows, answer)
    first = log.read_text().split()
    log.write_text("")
    careful = lab.workflow(WORKFLOW.replace(ASKED, ASKED + SENTENCE))
    after = lab.run(careful, before.tasks(), answer, origin=before.run_id, borrow=True, mode="candidate", backtest="look-up", allow_writes=False)
    gate = load_gate(lab.write("gate.yaml", GATE))
    found = compare_runs(before, after, gate, names=("baseline", "careful"))
    return Done(after, Result(found, judge(found, gate)), (first, log.read_text().split()))


def test_it_pays_from_the_first_call_that_differs(done: Done) -> None:
    """The step before is borrowed, tools are answered from the recording, and only what is new is called: never a tool that writes."""
    steps = {node: done.candidate.steps([node]).to_pylist() for node in ("read", "resolve")}
    calls = done.candidate.calls().to_pylist()
    models = [row for row in calls if row["kind"] == "model"]

    assert {row["outcome"] for row in steps["read"]} == {"borrowed"}
    assert {(row["kind"], row["name"], row["source"]) for row in calls} == {
        ("model", "m", "live"),
        ("tool", "find", "recorded"),
        ("tool", "search", "live"),
        ("tool", "send", "recorded"),
    }
    assert sum(row["calls"] for row in steps["resolve"]) == len(models) == 2 * COUNT + 12
    assert (sorted(done.called[0]), done.called[1]) == (["find"] * COUNT + ["send"], ["search"] * 11)


def test_its_verdict_counts_what_was_called(done: Done) -> None:
    """Metrics and rules over calls, beside those over scores."""
    metrics = {entry.name: (entry.before, entry.after) for entry in done.result.comparison.metrics}
    lines = {line.rule: line.word for line in done.result.verdict.lines}

    assert metrics["tool_calls"] == (pytest.approx(25 / 24), pytest.approx(36 / 24))
    assert metrics["turns"] == (pytest.approx(49 / 24), pytest.approx(60 / 24))
    assert metrics["failed_tool_calls"] == (0, 0)
    assert lines == {"score": "PASS", "tool_calls": "PASS", "in_recording": "INCONCLUSIVE"}
    assert done.result.verdict.word == "INCONCLUSIVE"


@pytest.mark.parametrize("form", [terminal, markdown, html], ids=["terminal", "markdown", "html"])
def test_the_report_names_the_first_call_that_differs(done: Done, form: Any) -> None:
    """In every form of the report, with what was answered from the recording and what was not."""
    report = unescape(form([done.result])).replace("\\", "")

    assert "turn 2: no tool before, search(customer='1') after" in report
    assert "Replay of 24 tasks: 13 with models live, tools recorded; 11 with tools live or refused. Calls: 25 recorded; 71 live." in report
    assert "The first call that left the recording: resolve: model call 1 at messages[0].content (24 tasks)." in report
    assert "Tools that the recording did not answer: resolve: search (11 tasks)." in report
    assert "in 11 tasks the score mixes recorded and live results of tools" in report


def test_tasks_are_compared_apart_by_what_answered_their_tools(done: Done) -> None:
    """A slice each, with its own change of the score."""
    slices = {entry.name: (entry.pairs, entry.change) for entry in done.result.comparison.of_kind("recording")}

    assert slices == {"models live, tools recorded": (13, 0.0), "tools live or refused": (11, pytest.approx(100 / 3))}


def test_what_it_says_is_plain_json(done: Done) -> None:
    """The verdict's document has the replay and the first calls, and MLflow gets the counts."""
    found = json.loads(json.dumps(done.result.comparison.document()))

    assert found["replay"] == {
        "all_recorded": 0,
        "models_live": 13,
        "tools_live": 11,
        "nothing_recorded": 0,
        "recorded_calls": 25,
        "live_calls": 71,
        "static_calls": 0,
        "refused_calls": 0,
        "mixed": 11,
        "places": [{"node": "resolve", "what": "model call 1 at messages[0].content", "tasks": 24}],
        "tools": [{"node": "resolve", "what": "search", "tasks": 11}],
    }
    assert [metrics_of(found, "after")[f"Overall/{name}_calls"] for name in ("recorded", "live", "refused")] == [25, 71, 0]
    assert {change["first_call"] for change in found["changes"] if change["task_id"] == "t3"} == {"turn 2: no tool before, search(customer='3') after"}
