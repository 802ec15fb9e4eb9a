"""Agents: a model that calls tools, turn by turn, until it answers. The runner is real, and in this process."""

import asyncio
import base64
import json
import os
from typing import Any

import pytest

from beam_ray.errors import BadDefinition, Stopped, Unusable
from beam_ray.llm import Request, ScriptedModel
from beam_ray.llm.request import Answer, ToolCall
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.assignment import Assignment
from beam_ray.run.plan import make_plan
from beam_ray.run.runner import Runner
from beam_ray.store.batches import Batches
from beam_ray.store.beginning import begin
from beam_ray.store.runs import Run
from tests.conftest import Lab, drive_here
from tests.tool_endpoint import ToolEndpoint

AGENT = """
workflow: w
model: m
nodes:
  resolve:
    agent:
      prompt: "Check {{ task_query }}"
      tools: [tools.desk:find, tools.desk:add]
      returns: {decision: {one of: [pay, hold]}, total: number}
      max_turns: 4
"""
DESK = '''
import os
from datetime import date

EFFECTS = "read"


def find(number: str):
    """
    Find an order.

    Args:
        number: The order's number, such as PO-1.
    """
    if number == "PO-9":
        raise LookupError("no such order")
    return {"number": number, "total": 40}


async def add(a: int, b: int = 1):
    return a + b


def due(day: date, days: list[int]) -> date:
    return day.replace(year=day.year + sum(days))


def process():
    return str(os.getpid())
'''


@pytest.fixture
def desk(lab: Lab) -> Lab:
    """A lab with a module of tools."""
    lab.write("tools/desk.py", DESK)
    return lab


def call(tool: str, id: str = "", **arguments: Any) -> ToolCall:
    """A call of a tool."""
    return ToolCall(tool, json.dumps(arguments), id)


def told(request: Request) -> list[str]:
    """What the tools of the last turn returned."""
    results: list[str] = []
    for message in request.messages:
        results = [*results, str(message["content"])] if message["role"] == "tool" else []
    return results


def step(run: Run) -> dict[str, Any]:
    """The step of the one task."""
    return Lab.steps(run, "resolve")["t0"]


def scripted(*turns: Any, seen: list[Request] | None = None):
    """A model that says these in turn, each a value or a function of the request; the last one again and again."""

    def answer(request: Request) -> Any:
        if seen is not None:
            seen.append(request)
        turn = turns[min(sum(message["role"] == "assistant" for message in request.messages), len(turns) - 1)]
        return turn(request) if callable(turn) else turn

    return answer


PAY = {"decision": "pay", "total": 40}


def test_an_agent_calls_tools_until_it_answers(desk: Lab):
    """What a tool returns is in the next request, and the answer is the step's output."""
    seen: list[Request] = []

    row = step(desk.run(AGENT, ["PO-1"], scripted(call("find", number="PO-1"), PAY, seen=seen)))

    assert (row["outcome"], json.loads(row["output"]), row["calls"]) == ("done", PAY, 2)
    assert [json.loads(text) for text in told(seen[1])] == [{"number": "PO-1", "total": 40}]


def test_a_model_is_told_what_a_function_says_of_itself(desk: Lab):
    """Names, descriptions and types come from the signature and the docstring."""
    seen: list[Request] = []
    desk.run(AGENT, ["PO-1"], scripted(PAY, seen=seen))

    assert list(seen[0].tools) == [
        {
            "name": "find",
            "description": "Find an order.",
            "parameters": {
                "type": "object",
                "properties": {"number": {"type": "string", "description": "The order's number, such as PO-1."}},
                "required": ["number"],
                "additionalProperties": False,
            },
        },
        {
            "name": "add",
            "description": "",
            "parameters": {
                "type": "object",
                "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
                "required": ["a"],
                "additionalProperties": False,
            },
        },
    ]


def test_calls_of_one_turn_are_made_together_and_told_in_their_order(desk: Lab):
    """Each result is told under the id of its call."""
    seen: list[Request] = []
    calls = [call("add", "x", a=1), call("find", "y", number="PO-2"), call("add", "z", a=1, b=2)]

    row = step(desk.run(AGENT, ["PO-1"], scripted(calls, PAY, seen=seen)))

    assert row["outcome"] == "done"
    assert [(message["tool_call_id"], message["content"]) for message in seen[1].messages if message["role"] == "tool"] == [
        ("x", "2"),
        ("y", '{"number": "PO-2", "total": 40}'),
        ("z", "3"),
    ]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (call("find", number="PO-9"), "Error: tools.desk:find: LookupError: no such order"),
        (call("find", number=7), "Error: the arguments do not fit 'find': /number: the number 7 is not of type string"),
        (call("find"), "Error: the arguments do not fit 'find': /: 'number' is a required property"),
        (call("find", number="PO-1", year=1), "Error: the arguments do not fit 'find': /: Additional properties are not allowed ('year' was unexpected)"),
        (
            ToolCall("find", '{"number": "PO'),
            'Error: the arguments of \'find\' are not JSON (Unterminated string starting at: line 1 column 12 (char 11)): {"number": "PO',
        ),
        (ToolCall("find", "[1]"), "Error: the arguments of 'find' are not a JSON object: [1]"),
        (call("fnd", number="PO-1"), "Error: there is no tool 'fnd'; the tools are find, add"),
    ],
    ids=["raises", "type", "missing", "too many", "no JSON", "no object", "unknown"],
)
def test_what_is_wrong_with_a_call_is_told_to_the_model(desk: Lab, wrong: ToolCall, said: str):
    """It may do better in its next turn; the step is done."""
    seen: list[Request] = []

    row = step(desk.run(AGENT, ["PO-1"], scripted(wrong, call("find", number="PO-1"), PAY, seen=seen)))

    assert (row["outcome"], row["calls"]) == ("done", 3)
    assert told(seen[1]) == [said]


def test_an_agent_that_never_answers_fails_after_its_turns(desk: Lab):
    """The message says so, and what it cost is counted."""
    row = step(desk.run(AGENT, ["PO-1"], scripted(call("add", a=1))))

    assert (row["outcome"], row["error"], row["calls"]) == ("failed", "no answer within 4 turns (max_turns)", 4)


def test_an_answer_that_does_not_fit_is_corrected_in_the_next_turn(desk: Lab):
    """That is cheaper than to begin again."""
    seen: list[Request] = []
    row = step(desk.run(AGENT, ["PO-1"], scripted({"decision": "maybe", "total": 40}, PAY, seen=seen)))

    assert (row["outcome"], row["calls"], len(row["attempts"])) == ("done", 2, 1)
    assert "/decision: 'maybe' is not one of ['pay', 'hold']" in str(seen[1].messages[-1]["content"])


def test_calls_without_ids_get_ids_of_their_own(desk: Lab):
    """Some endpoints give none, or the same one twice."""
    seen: list[Request] = []
    desk.run(AGENT, ["PO-1"], scripted(Answer("", 1, 1, tool_calls=(call("add", "c", a=1), call("add", "c", a=2))), PAY, seen=seen))

    asked = next(message for message in seen[1].messages if message["role"] == "assistant")
    assert [made["id"] for made in asked["tool_calls"]] == ["c", "call_1_2"]
    assert told(seen[1]) == ["2", "3"]


def test_types_that_json_has_not_are_converted(desk: Lab):
    """A date arrives as a date, and is told as text."""
    seen: list[Request] = []
    text = AGENT.replace("tools.desk:find, tools.desk:add", "tools.desk:due")

    desk.run(text, ["PO-1"], scripted(call("due", day="2026-11-29", days=[1, 1]), PAY, seen=seen))

    assert told(seen[1]) == ["2028-11-29"]


def test_a_tool_runs_in_a_process_apart(desk: Lab):
    """As those of tool nodes do."""
    seen: list[Request] = []
    desk.run(AGENT.replace("tools.desk:find, tools.desk:add", "tools.desk:process"), ["PO-1"], scripted(call("process"), PAY, seen=seen))

    assert told(seen[1])[0].isdigit() and told(seen[1]) != [str(os.getpid())]


def test_a_function_that_cannot_be_described_is_refused_before_anything_is_paid(desk: Lab):
    """The message names the node, the function and the reason."""
    desk.write("tools/desk.py", "class Odd: ...\ndef find(order: Odd): ...\n")
    asked: list[Request] = []

    with pytest.raises(Unusable, match="node 'resolve': the tool 'tools.desk:find' cannot be described to a model: PydanticSchemaGenerationError"):
        desk.run(AGENT.replace(", tools.desk:add", ""), ["PO-1"], scripted(PAY, seen=asked))

    assert asked == []


def test_without_returns_the_answer_is_text(desk: Lab):
    """As for llm nodes."""
    row = step(desk.run(AGENT.replace("      returns: {decision: {one of: [pay, hold]}, total: number}\n", ""), ["PO-1"], scripted("Pay it.")))

    assert json.loads(row["output"]) == {"text": "Pay it."}


def test_an_auto_rerun_begins_anew_and_knows_what_was_wrong(desk: Lab):
    """Every attempt is a sample of its own; its turns start from the prompt."""
    again = "    evaluate: {criteria: [{check: resolve.total == 40}]}\n    auto_rerun: {max: 1, feedback: true}\n"
    seen: list[Request] = []

    def answer(request: Request) -> Any:
        seen.append(request)
        return {"decision": "pay", "total": 40 if request.attempt == 2 else 41}

    row = step(desk.run(AGENT + again, ["PO-1"], answer))

    assert (row["passed"], [attempt["seed"] for attempt in row["attempts"]]) == (True, [0, 1])
    assert "does not meet:\n- resolve.total == 40" in str(seen[1].messages[-1]["content"])


def test_an_unanswered_attempt_is_followed_by_another_where_auto_rerun_is_on(desk: Lab):
    """Otherwise it would be paid for twice, unasked."""
    again = "    evaluate: {criteria: [{check: resolve.total == 40}]}\n    auto_rerun: {max: 1}\n"

    row = step(desk.run(AGENT + again, ["PO-1"], lambda request: PAY if request.attempt == 2 else call("add", a=1)))

    assert (row["outcome"], [attempt["error"] for attempt in row["attempts"]]) == ("done", ["no answer within 4 turns (max_turns)", None])


def test_a_call_that_was_cut_off_is_not_made(desk: Lab):
    """Its arguments may be half of what the model meant."""
    row = step(desk.run(AGENT, ["PO-1"], scripted(Answer("", 1, 1, finish="length", tool_calls=(call("add", a=1),)))))

    assert (row["outcome"], row["error"]) == ("failed", "the answer was cut off at max_tokens (1,024) within a call of 'add'")


def test_unknown_tools_are_refused_by_check(desk: Lab):
    """Before anything else."""
    with pytest.raises(BadDefinition, match=r"the tool 'tools.desk:fnd': desk.py has no function 'fnd'"):
        desk.workflow(AGENT.replace("desk:find", "desk:fnd"))


def test_an_unchanged_agent_is_borrowed_and_a_changed_one_is_answered_from_the_recording(desk: Lab):
    """A rerun with another definition of the last turn pays for that alone, and calls no tool."""
    counted = DESK + "\n\ndef count():\n    with open('calls.txt', 'a') as file: file.write('x')\n    return 7\n"
    desk.write("tools/desk.py", counted.replace("open('calls.txt'", f"open({str(desk.folder / 'calls.txt')!r}"))
    text = AGENT.replace("tools.desk:find, tools.desk:add", "tools.desk:count")
    model = scripted(call("count"), PAY)
    first = desk.run(text, ["PO-1"], model)
    asked: list[Request] = []

    again = desk.rerun(first, ["t0"], desk.workflow(text.replace("max_turns: 4", "max_turns: 5")), scripted(call("count"), PAY, seen=asked))
    row = Lab.steps(again, "resolve")["t0"]

    assert (row["outcome"], row["calls"], row["calls_recorded"], json.loads(row["output"])) == ("done", 0, 3, PAY)
    assert (asked, (desk.folder / "calls.txt").read_text()) == ([], "x")


@pytest.mark.parametrize("effects", ["", ", effects: write"], ids=["undeclared", "write"])
def test_a_write_tool_is_called_in_a_run_and_never_in_a_rerun(desk: Lab, effects: str):
    """The agent is told that it is not available, however often it tries."""
    journal = desk.folder / "sent.txt"
    desk.write("tools/mail.py", f"def send(to: str):\n    with open({str(journal)!r}, 'a') as file: file.write(to)\n    return 'sent'\n")
    text = AGENT.replace("[tools.desk:find, tools.desk:add]", f'[{{tool: "tools.mail:send"{effects}}}]')
    first = desk.run(text, ["PO-1"], scripted(call("send", to="a"), PAY))
    seen: list[Request] = []

    tries = [call("send", to="b"), [call("send", to="c"), call("send", to="d")], PAY]
    again = desk.rerun(first, ["t0"], desk.workflow(text.replace("Check", "Please check")), scripted(*tries, seen=seen))

    assert journal.read_text() == "a"
    assert step(again)["calls_refused"] == 3
    assert told(seen[1]) == ["Error: the tool 'send' is not available in a test: its result for these arguments was not recorded"]


def test_a_function_that_cannot_be_described_is_refused_on_ray_before_the_first_row(ray_lab: Lab):
    """In one line, as a module that is missing."""
    ray_lab.write("tools/desk.py", "class Odd: ...\ndef find(order: Odd): ...\n")
    asked: list[Request] = []

    with pytest.raises(Unusable) as refused:
        ray_lab.run(AGENT.replace(", tools.desk:add", ""), ["PO-1"], scripted(PAY, seen=asked))

    assert str(refused.value).startswith("node 'resolve': the tool 'tools.desk:find' cannot be described to a model: PydanticSchemaGenerationError")
    assert (asked, list((ray_lab.folder / "store").rglob("spool/*"))) == ([], [])


def test_images_are_shown_in_every_turn(desk: Lab):
    """They are parts of the prompt's last user turn, as for llm nodes."""
    image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+M8AAAICAQB7CYF4AAAAAElFTkSuQmCC"
    (desk.folder / "x.png").write_bytes(base64.b64decode(image))
    seen: list[Request] = []
    text = AGENT.replace("Check {{ task_query }}", "Check {{ task_query }} with {{ attachments | length }} image")

    run = desk.run(text, [{"id": "t0", "task_query": "PO-1", "attachments": ["x.png"]}], scripted(call("find", number="PO-1"), PAY, seen=seen))

    assert step(run)["outcome"] == "done"
    assert [[part["type"] for part in request.messages[0]["content"]] for request in seen] == [["text", "image_url"]] * 2


def test_a_budget_ends_an_agent_between_two_turns_and_a_resume_pays_nothing_twice(desk: Lab):
    """No tool is called once it is reached; the turns that were paid for are answered from the spool, tools included."""
    counting = f"\n\ndef count():\n    with open({str(desk.folder / 'calls.txt')!r}, 'a') as file: file.write('x')\n    return 7\n"
    desk.write("tools/desk.py", DESK + counting)
    asked: list[Request] = []
    models = {"m": ScriptedModel(scripted(call("count"), call("count"), PAY, seen=asked))}
    plan = make_plan(desk.workflow(AGENT.replace("tools.desk:find, tools.desk:add", "tools.desk:count")), desk.tasks(["x"]), models)
    record = begin(desk.objects, plan.record, plan.tasks)

    async def until_the_budget() -> None:
        runner = Runner(Assignment(desk.objects.uri, record.run_id, models, "r", 8, budget={"max_calls": 2}))
        with pytest.raises(Stopped):
            await runner.step(0, "resolve")
        await runner.stop()

    asyncio.run(until_the_budget())
    before = len(asked), (desk.folder / "calls.txt").read_text()
    asyncio.run(drive_here(desk.objects, record, models))

    row = step(Run(desk.objects, record.run_id))
    assert before == (2, "x")
    assert (row["outcome"], row["calls"], len(asked), (desk.folder / "calls.txt").read_text()) == ("done", 3, 3, "xx")


def test_each_turn_waits_for_a_batch_of_its_own_and_no_tool_is_called_twice(desk: Lab):
    """In the batch lane a row that waits is run again from its prompt; what was answered before is answered from the spool."""
    counting = f"\n\ndef find(number: str):\n    with open({str(desk.folder / 'calls.txt')!r}, 'a') as file: file.write('x')\n    return number\n"
    desk.write("tools/desk.py", 'EFFECTS = "write"' + counting)
    answers = ToolEndpoint()
    models = {"m": ModelSettings(base_url="http://127.0.0.1:9/v1", model="x", lane="batch")}
    plan = make_plan(desk.workflow(AGENT.replace(", tools.desk:add", "")), desk.tasks(["x"]), models)
    record = begin(desk.objects, plan.record, plan.tasks)
    batches = Batches(Run(desk.objects, record.run_id))

    async def wave(number: int) -> bool:
        runner = Runner(
            Assignment(desk.objects.uri, record.run_id, models, f"0000-{number}", 8, unfinished=frozenset({0}), batched=frozenset({"m"}), wave=number)
        )
        try:
            return await runner.step(0, "resolve")
        finally:
            await runner.stop()

    waves = 1
    while not asyncio.run(wave(waves)):
        rows = [row for table in batches.outbox(waves, 0) for row in table.to_pylist()]
        replies = [{"custom_id": row["custom_id"], "status": 200, "body": json.dumps(answers(json.loads(row["body"]))[2])} for row in rows]
        batches.keep_answers(0, waves, "in-01", replies)
        waves += 1

    part = Run(desk.objects, record.run_id).part("resolve", 0)
    assert part is not None
    [row] = part.to_pylist()
    assert (row["outcome"], json.loads(row["output"]), waves, row["calls"]) == ("done", PAY, 3, 2)
    assert (len(answers.bodies), (desk.folder / "calls.txt").read_text()) == (2, "xx")
