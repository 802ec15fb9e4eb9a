"""Criteria over calls in runs: agents that do what the criteria ask or not, judges that read the transcript, and outputs that are scored again."""

from typing import Any

import pytest

from beam_ray.errors import Unusable
from beam_ray.llm import Request
from beam_ray.llm.request import ToolCall
from beam_ray.store.runs import Run
from tests.commands import run_command
from tests.conftest import Lab
from tests.run.test_agents import DESK, PAY, call, scripted

AGENT = """
workflow: w
model: m
nodes:
  resolve:
    agent:
      prompt: "Check {{ task_query }}"
      tools: [tools.desk:find, {tool: "tools.desk:add", effects: write}]
      returns: {decision: {one of: [pay, hold]}, total: number}
    evaluate:
      criteria:
%s
"""
RULES = """
        - called: {tool: find, with: {number: task_query}}
        - not_called: add
        - order: [find, add]
        - calls: {at_most: 1}
        - turns: {at_most: 2}
        - tool_errors: {at_most: 0}
"""


@pytest.fixture
def desk(lab: Lab) -> Lab:
    """A lab with a module of tools."""
    lab.write("tools/desk.py", DESK)
    return lab


def agent(rules: str) -> str:
    return AGENT % rules.strip("\n")


def found(run: Run) -> dict[str, tuple[bool | None, str]]:
    """What each criterion says of the one task."""
    return {item["id"]: (item["met"], item["reason"]) for item in Lab.steps(run, "resolve")["t0"]["criteria"]}


def test_an_agent_is_scored_by_what_it_called(desk: Lab):
    """The same criteria hold of one trajectory and not of another."""
    good = desk.run(agent(RULES), ["PO-1"], scripted(call("find", number="PO-1"), PAY))
    bad = desk.run(agent(RULES), ["PO-1"], scripted(call("add", a=1), [call("find", "x", number="PO-9"), call("find", "y", number="PO-2")], PAY))

    assert all(met for met, _ in found(good).values())
    assert found(bad) == {
        "calls_find_with_number_task_query": (False, "only otherwise: find(number='PO-9'), find(number='PO-2')"),
        "does_not_call_add": (False, "once: add(a=1)"),
        "calls_find_before_add": (False, "add was called as call 1, find as call 2"),
        "at_most_1_tool_call": (False, "3: add, find 2 times"),
        "at_most_2_turns": (False, "3"),
        "no_tool_errors": (False, "1: find: tools.desk:find: LookupError: no such order"),
    }


def test_the_calls_of_a_new_attempt_are_its_own(desk: Lab):
    """Auto-rerun stops at the attempt whose calls are right."""
    text = agent("        - called: find") + "    auto_rerun: {max: 2}\n"

    def answer(request: Request) -> Any:
        asks = request.attempt == 2 and request.messages[-1]["role"] == "user"
        return call("find", number="PO-1") if asks else PAY

    row = Lab.steps(desk.run(text, ["PO-1"], answer), "resolve")["t0"]

    assert [attempt["score"] for attempt in row["attempts"]] == [0, 100]


SENTENCE = "        - The agent told nobody before it had looked the order up."


def judged(seen: list[str], turns: list[Any]):
    """A model whose judge is told everything that was asked of it."""
    answers = scripted(*turns)

    def answer(request: Request) -> Any:
        if request.judges:
            seen.append(str(request.messages[-1]["content"]))
            return {"criterion_1": {"reason": "it did", "met": True}}
        return answers(request)

    return answer


def test_the_judge_reads_what_the_agent_called(desk: Lab):
    """The transcript stands between what was asked and the output."""
    seen: list[str] = []
    desk.run(agent(SENTENCE), ["PO-1"], judged(seen, [call("find", number="PO-1"), PAY]))
    asked, _, rest = seen[0].partition("Its calls:\n")

    assert "Check PO-1" in asked
    assert 'turn 1, call 1: find {"number": "PO-1"}\n  result: {"number": "PO-1", "total": 40}\n' in rest.partition("Its output:")[0]


def test_the_judge_is_not_shown_everything_and_the_finding_says_so(desk: Lab):
    """A transcript that is too long is cut in the middle."""
    calls = [call("find", f"c{number}", number=f"PO-{number}" + "x" * 900) for number in range(10, 40)]
    run = desk.run(agent(SENTENCE), ["PO-1"], judged([], [calls, PAY]))

    assert found(run)["the_agent_told_nobody_before_it_had_looked_the_o"] == (True, "it did (the judge was not shown calls 7 to 26 of 30)")


def test_borrowed_outputs_are_scored_again_with_the_calls_that_were_recorded(desk: Lab):
    """Rules over calls, and a judge who reads them; also a rerun of the rerun, which has no calls of its own."""
    first = desk.run(agent(RULES), ["PO-1"], scripted(call("find", number="PO-1"), PAY))
    seen: list[str] = []
    stricter = desk.workflow(agent("        - calls: {at_most: 0}\n" + SENTENCE))
    silent = judged(seen, [RuntimeError])
    again = desk.run(stricter, first.tasks(), silent, origin=first.run_id, borrow=True)
    third = desk.run(desk.workflow(agent("        - turns: {at_most: 2}")), first.tasks(), silent, origin=again.run_id, borrow=True)
    step = Lab.steps(again, "resolve")["t0"]

    assert (step["outcome"], step["calls"], step["judge_calls"], step["work_calls"]) == ("borrowed", 0, 1, 3)
    assert found(again)["no_tool_calls"] == (False, "1: find")
    assert "call 1: find" in seen[0]
    assert found(third) == {"at_most_2_turns": (True, "2")}


def test_production_did_not_record_calls(desk: Lab):
    """Criteria over calls cannot be decided for recorded outputs, which is said before anything is paid."""
    from beam_ray.run.recorded import require_recorded

    tasks = desk.tasks([{"id": "t0", "task_query": "PO-1", "recorded": {"output": PAY}}])

    with pytest.raises(Unusable, match="did not record what 'resolve' called, so this criterion cannot be decided: calls find"):
        require_recorded(desk.workflow(agent("        - called: find")), tasks)


PROGRAM = """
workflow: w
model: m
nodes:
  resolve:
    tool: tools.program:answer
    asks: [m]
    with: {query: "{{ task_query }}"}
    evaluate:
      criteria:
        - called: {tool: find, with: {number: task_query}}
        - turns: {at_most: 2}
"""
ANSWER = """
import json, os, urllib.request


def ask(messages):
    body = json.dumps({"model": "m", "messages": messages}).encode()
    head = {"Content-Type": "application/json", "Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", body, head)
    return json.load(urllib.request.urlopen(request))["choices"][0]["message"]


def answer(query):
    messages = [{"role": "user", "content": query}]
    said = ask(messages)
    results = [{"role": "tool", "tool_call_id": call["id"], "content": "found"} for call in said["tool_calls"]]
    return {"text": ask([*messages, said, *results])["content"]}
"""


def test_the_tools_of_a_program_are_read_from_its_conversation(lab: Lab):
    """It calls them by itself, and only its model calls are ours."""
    lab.write("tools/program.py", ANSWER)

    def reply(request: Request) -> Any:
        return "done" if request.messages[-1]["role"] == "tool" else ToolCall("find", '{"number": "PO-1"}', "c1")

    run = lab.run(PROGRAM, ["PO-1"], reply)
    row = Lab.steps(run, "resolve")["t0"]

    assert found(run) == {"calls_find_with_number_task_query": (True, "once: find(number='PO-1')"), "at_most_2_turns": (True, "2")}
    assert (row["turns"], row["tool_calls"], row["tool_errors"]) == (2, 1, None)


def test_a_finding_is_one_line_of_show_whatever_a_tool_said(lab: Lab, capsys: pytest.CaptureFixture[str]):
    """A tool's error of several lines does not break the table of criteria."""
    lab.write("tools/desk.py", 'def find(number: str):\n    raise ValueError("first\\nsecond")\n')
    text = """
workflow: w
model: m
nodes:
  resolve:
    agent: {prompt: "Check {{ task_query }}", tools: [{tool: "tools.desk:find", effects: read}]}
    evaluate: {criteria: [{tool_errors: {at_most: 0}}]}
"""
    run = lab.run(text, ["x"], scripted(call("find", number="1"), "done"))

    shown = run_command(capsys, "show", f"{run.run_id}/t0", "--step", "resolve", "--store", lab.objects.uri).out

    assert "(1: find: tools.desk:find: ValueError: first second)" in shown
