"""Criteria over calls: what each holds for, and what it says; and what of a program's messages counts as calls."""

import datetime
import json
from typing import Any

import pytest

from beam_ray.define.call_criterion import call_rules
from beam_ray.define.criterion import expand
from beam_ray.evaluate.call_rules import judge_by_calls
from beam_ray.evaluate.tool_uses import Trajectory, tool_counts, trajectory
from beam_ray.evaluate.transcript import transcript
from beam_ray.store.call_table import CallRow

VALUES = {"extract": {"number": "PO-7"}, "expected": {"team": "billing"}, "resolve": {"decision": "pay"}}


def row(number: int, kind: str, name: str, request: Any, reply: Any, error: str | None = None, source: str = "live") -> CallRow:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "attempt": 1,
        "number": number,
        "kind": kind,
        "name": name,
        "api": None if kind == "tool" else "responses" if isinstance(request, dict) and "input" in request else "chat",
        "request": json.dumps(request),
        "request_sha256": None,
        "reply": None if error else json.dumps(reply),
        "reply_sha256": None,
        "fingerprint": "",
        "occurrence": 1,
        "source": source,
        "recorded_from": None,
        "effects": None,
        "error": error,
        "started_at": now,
        "ended_at": now,
        "seconds": 0.0,
        "waited": 0.0,
        "calls": 1,
        "input_tokens": 0,
        "output_tokens": 0,
        "cached_tokens": None,
        "reasoning_tokens": None,
        "usd": 0.0,
        "estimated": False,
    }


def model(number: int, text: str = "", messages: list[Any] | None = None, calls: list[Any] | None = None, **more: Any) -> CallRow:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [{"id": id, "type": "function", "function": {"name": name, "arguments": written}} for id, name, written in calls]
    return row(number, "model", "m", {"messages": messages or []}, {"choices": [{"message": message}]}, **more)


def tool(place: int, tool_name: str, /, reply: Any = None, error: str | None = None, source: str = "live", **arguments: Any) -> CallRow:
    return row(place, "tool", tool_name, arguments, reply, error, source)


def read(rows: list[CallRow], *, agent: bool = True) -> Trajectory:
    return trajectory(rows, lambda sha256: json.dumps({"kept": sha256}), agent=agent)


AGENT = read(
    [
        model(1),
        tool(2, "find", {"total": 12.5}, number=" PO-7"),
        tool(3, "search", error="no such account", name="Ace"),
        model(4, "I will send it."),
        tool(5, "send", error="the tool 'send' is not available in a test", source="refused", to="a@example.com", total=12.50),
        model(6, "Done."),
    ]
)


def decide(written: dict[str, Any], calls: Trajectory | None = AGENT) -> tuple[bool | None, str]:
    [criterion] = expand(written)
    finding = judge_by_calls(criterion, calls, VALUES)
    return finding.met, finding.reason


@pytest.mark.parametrize(
    ("written", "met", "reason"),
    [
        ({"called": "find"}, True, "once: find(number=' PO-7')"),
        ({"called": {"tool": "find", "with": {"number": "extract.number"}}}, True, "once: find(number=' PO-7')"),
        ({"called": {"tool": "find", "with": {"number": ["PO-8"]}}}, False, "only otherwise: find(number=' PO-7')"),
        ({"called": {"tool": "find", "with": {"lines": 3}}}, False, "only otherwise: find(number=' PO-7')"),
        ({"called": {"tool": "send", "with": {"total": 12.5}}}, True, "once: send(to='a@example.com', total=12.5)"),
        ({"called": "delete"}, False, "delete was not called; called: find, search, send"),
        ({"called": {"tool": "find", "times": 2}}, False, "once: find(number=' PO-7')"),
        ({"called": {"tool": "find", "times": {"at_most": 2}}}, True, "once: find(number=' PO-7')"),
        ({"called": {"tool": "delete", "times": {"at_most": 2}}}, True, "delete was not called; called: find, search, send"),
        ({"not_called": "delete"}, True, "not called"),
        ({"not_called": "send"}, False, "once: send(to='a@example.com', total=12.5)"),
        ({"not_called": {"tool": "send", "with": {"to": ["b@example.com"]}}}, True, "not called"),
        ({"order": ["find", "send"]}, True, "first calls: find call 1, send call 3"),
        ({"order": ["send", "find"]}, False, "find was called as call 1, send as call 3"),
        ({"order": ["delete", "send"]}, False, "send was called as call 3, and delete was not called"),
        ({"order": ["find", "delete"]}, True, "first calls: find call 1"),
        ({"order": ["delete", "archive"]}, True, "none of them was called"),
        ({"order": ["find", "search"]}, False, "find and search were called in one turn, before the result of find was known"),
        ({"calls": {"at_most": 3}}, True, "3: find, search, send"),
        ({"calls": {"at_most": 2}}, False, "3: find, search, send"),
        ({"calls": {"tool": "find", "at_least": 2}}, False, "1: find"),
        ({"turns": {"at_most": 3}}, True, "3"),
        ({"turns": {"at_most": 2}}, False, "3"),
        ({"tool_errors": {"at_most": 0}}, False, "1: search: no such account"),
        ({"tool_errors": {"at_most": 1}}, True, "1: search: no such account"),
        ({"tool_errors": {"tool": "find", "at_most": 0}}, True, "0"),
    ],
)
def test_what_holds_and_what_is_said(written, met, reason):
    """Numbers, spaces at the ends and literals compare as in 'equals'; a refusal of the test is a call, and no error of the tool."""
    assert decide(written) == (met, reason)


def test_a_comparison_with_what_a_task_does_not_expect_does_not_apply():
    """As of other rules."""
    [criterion] = expand({"called": {"tool": "find", "with": {"number": "expected.number"}}})
    finding = judge_by_calls(criterion, AGENT, VALUES)

    assert (finding.met, finding.applies, finding.reason) == (None, False, "the task expects no 'number'")


def test_unknown_calls_are_undecided_and_none_are_none():
    """What was not recorded is not what was not done."""
    assert decide({"not_called": "send"}, None) == (None, "the calls of the step are not recorded")
    assert decide({"called": "find"}, read([model(1, "Hello.")])) == (False, "no tool was called")


@pytest.mark.parametrize(
    ("written", "ids", "texts"),
    [
        ({"called": ["find", "send"]}, ["calls_find", "calls_send"], ["calls find", "calls send"]),
        ({"not_called": ["send"], "id": "silent"}, ["silent"], ["does not call send"]),
        (
            {"called": {"tool": "find", "with": {"number": "extract.number", "lines": 2}, "times": 1}},
            None,
            ["calls find with number = extract.number and lines = 2, exactly 1 time"],
        ),
        ({"order": ["find", "check", "send"]}, ["calls_find_before_check_before_send"], ["calls find before check before send"]),
        ({"calls": {"at_most": 6}}, ["at_most_6_tool_calls"], ["at most 6 tool calls"]),
        ({"calls": {"tool": "find", "at_least": 1, "at_most": 2}}, None, ["at least 1 tool call and at most 2 tool calls of find"]),
        ({"turns": {"at_most": 1}}, ["at_most_1_turn"], ["at most 1 turn"]),
        ({"tool_errors": {"at_most": 0}}, ["no_tool_errors"], ["no tool errors"]),
    ],
)
def test_each_has_words_and_a_name(written, ids, texts):
    """Several tools are several criteria, which share the weight."""
    found = expand({**written, "weight": 2})

    assert [criterion.text for criterion in found] == texts
    assert ids is None or [criterion.id for criterion in found] == ids
    assert sum(criterion.weight for criterion in found) == 2


def test_the_stored_form_is_read_again():
    """A criterion over calls survives the store."""
    for written in ({"called": {"tool": "find", "with": {"number": "x.y"}, "times": 2}}, {"order": ["a", "b"]}, {"calls": {"at_most": 1}}):
        [criterion] = expand(written)

        assert expand(criterion.model_dump()) == [criterion]
        assert call_rules(criterion.kind, criterion.want)[0][0] == criterion.want


CALLS = [("c1", "find", '{"number": 7}'), ("c2", "search", "{}")]
RESULTS = [{"role": "tool", "tool_call_id": "c2", "content": "none"}, {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "found"}]}]


def test_a_program_calls_its_tools_in_the_replies_of_its_models():
    """Their results stand in the next request, whatever their order; the last ones may never be seen."""
    asked = [{"role": "user", "content": "go"}, {"role": "assistant"}, *RESULTS]
    found = read(
        [model(1, "Let me see.", calls=CALLS), model(2, messages=asked, calls=[("c3", "send", "not json")]), row(3, "embedding", "e", {}, {})], agent=False
    )

    assert [(use.turn, use.name, use.arguments, use.result, use.answered) for use in found.tools] == [
        (1, "find", {"number": 7}, "found", True),
        (1, "search", {}, "none", True),
        (2, "send", "not json", None, False),
    ]
    assert [turn.text for turn in found.turns] == ["Let me see.", ""]


def test_ids_that_repeat_are_told_apart_by_their_place():
    """Some endpoints name every call the same."""
    first = [{"role": "tool", "tool_call_id": "call_0", "content": "one"}]
    second = [*first, {"role": "tool", "tool_call_id": "call_0", "content": "two"}]
    call = [("call_0", "find", "{}")]
    found = read([model(1, calls=call), model(2, messages=first, calls=call), model(3, messages=second)], agent=False)

    assert [use.result for use in found.tools] == ["one", "two"]


def test_recorded_tools_of_a_program_have_rows_and_its_others_do_not():
    """Each call counts once, and it is not known whether one without a row failed."""
    rows = [model(1, calls=CALLS), tool(2, "find", "found", number=7), model(3, messages=RESULTS)]
    found = read(rows, agent=False)

    assert [(use.name, use.result, use.checked) for use in found.tools] == [("find", "found", True), ("search", "none", False)]
    assert decide({"tool_errors": {"at_most": 0}}, found) == (None, "it is not known whether search failed; record the program's tools with recorded_tool")
    assert decide({"tool_errors": {"tool": "find", "at_most": 0}}, found) == (True, "0")
    assert (tool_counts(rows, agent=False), tool_counts([model(1, calls=CALLS[:1]), rows[1]], agent=False)) == ((2, None), (1, 0))


def test_the_responses_api_says_the_same_in_other_words():
    """Items of the output, and of the next input."""
    output = [
        {"type": "reasoning", "summary": []},
        {"type": "message", "content": [{"type": "output_text", "text": "Let me see."}]},
        {"type": "function_call", "call_id": "c1", "id": "fc_1", "name": "find", "arguments": '{"number": 7}'},
    ]
    given = [{"role": "user", "content": "go"}, {"type": "function_call_output", "call_id": "c1", "output": "found"}]
    found = read([row(1, "model", "m", {"input": "go"}, {"output": output}), row(2, "model", "m", {"input": given}, {"output": []})], agent=False)

    assert [(use.name, use.arguments, use.result) for use in found.tools] == [("find", {"number": 7}, "found")]
    assert found.turns[0].text == "Let me see."


def test_calls_of_an_agent_count_once_also_those_that_could_not_be_made():
    """A tool has a row of its own; a call that the agent refused, and a final answer, stand in the replies alone."""
    asked = [("c1", "find", "{}"), ("c2", "fnd", "{}"), ("c3", "find", "not json")]
    told = [{"role": "tool", "tool_call_id": id, "content": text} for id, text in (("c2", "Error: there is no tool 'fnd'"), ("c3", "Error: not JSON"))]
    rows = [model(1, calls=asked), tool(2, "find"), model(3, messages=told, calls=[("c4", "give_answer", "{}")])]
    found = read(rows)

    assert [(use.number, use.name, use.error) for use in found.tools] == [(1, "find", None), (2, "fnd", "there is no tool 'fnd'"), (3, "find", "not JSON")]
    assert tool_counts(rows, agent=True) == (3, 2)
    assert tool_counts(rows[:1], agent=False) == (3, None)


def test_a_large_result_is_read_from_where_it_is_kept():
    """Its digest stands in the row."""
    large: CallRow = {**tool(2, "find"), "reply": None, "reply_sha256": "abc"}

    assert read([model(1), large]).tools[0].result == {"kept": "abc"}


def test_replies_that_are_no_completions_are_no_calls():
    """What a program gets from an endpoint may be anything."""
    odd = [[], {"choices": None}, {"choices": [{}]}, {"choices": [{"message": {"tool_calls": [None, {"function": 1}]}}]}, {"output": [1]}, None, "x"]

    assert read([row(number, "model", "m", {"messages": [None]}, reply) for number, reply in enumerate(odd, 1)], agent=False).tools == ()


def test_a_transcript_is_what_was_said_and_called():
    """Each call with its turn, its arguments and what came back."""
    assert transcript(AGENT).text.splitlines() == [
        'turn 1, call 1: find {"number": " PO-7"}',
        '  result: {"total": 12.5}',
        'turn 1, call 2: search {"name": "Ace"}',
        "  error: no such account",
        "turn 2: the model said: I will send it.",
        'turn 2, call 3: send {"to": "a@example.com", "total": 12.5}',
        "  refused: the tool 'send' is not available in a test",
        "turn 3: the model said: Done.",
    ]
    assert transcript(AGENT).cut == ""


def test_a_long_transcript_keeps_its_ends_and_says_what_is_missing():
    """Calls in the middle are left out, and the middle of long results; a reader is told of both."""
    long = read([model(1), *(tool(number, "find", "x" * (5_000 if number == 2 else 150), page=number) for number in range(2, 102)), model(102, "End.")])
    found = transcript(long, limit=6_000)

    assert len(found.text) < 6_200
    assert found.text.startswith('turn 1, call 1: find {"page": 2}')
    assert "[3,000 characters left out]" in found.text
    assert found.text.endswith("turn 2: the model said: End.")
    assert "[calls 12 to 91 of 100 left out: the transcript has " in found.text
    assert found.cut == "calls 12 to 91 of 100 and the middle of 1 long text"
