"""Answers as models give them: reasoning apart, JSON among words, usage that is missing."""

import asyncio

import httpx2
import pytest
import stamina

from beam_ray.errors import BadAnswer, BeamRayError
from beam_ray.llm.answer import parse_answer, read_answer
from beam_ray.llm.chat_api import read_reply, split_reasoning
from beam_ray.llm.client import OpenAIModel, http_client
from beam_ray.llm.permits import Left
from beam_ray.llm.reply_headers import read_rate_limits, seconds_of
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.responses_api import read_reply as read_response
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1}',
        '  {"a": 1}\n',
        '```json\n{"a": 1}\n```',
        '```\n{"a": 1}\n```',
        'Sure!\n```json\n{"a": 1}\n```\nAnything else?',
        'Here is the JSON you asked for:\n{"a": 1}',
        '{"a": 1}\nLet me know if you need more.',
        'As said in [1], the answer is {"a": 1} [2].',
        '\ufeff{"a": 1}',
    ],
)
def test_one_json_value_is_read_wherever_it_stands(text):
    """Alone, in one fence, or with words around it."""
    assert parse_answer(text, SCHEMA) == {"a": 1}


@pytest.mark.parametrize(
    "text",
    [
        '{"a": 1} {"a": 2}',
        'First {"a": 1}, then {"a": 1}.',
        '```json\n{"a": 1}\n```\n```json\n{"a": 2}\n```',
        'Sure: {"a": 1',
        'Sure: {"b": {"a": 1}',
        '{"a": 1}}',
        '```json\n{"a": 1',
        'The answer {a} is {"a": 1}',
        'Both: [{"a": 1}, {"a": 2}]',
        "I cannot say.",
        'Well: {"a": 1, "a": 2}',
        'Well: {"a": NaN}',
    ],
)
def test_two_values_or_half_a_value_stay_a_fault(text):
    """Nothing is guessed."""
    with pytest.raises(BadAnswer):
        parse_answer(text, SCHEMA)


def reply(usage: dict | None = None, finish: str = "stop", **message: object) -> dict:
    """A chat completion."""
    return {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}], **({"usage": usage} if usage else {})}


@pytest.mark.parametrize(
    "message",
    [
        {"content": '<think>\nhm\n</think>\n\n{"a": 1}'},
        {"content": 'hm\n</think>{"a": 1}'},
        {"content": '{"a": 1}', "reasoning_content": "hm"},
        {"content": '{"a": 1}', "reasoning": "hm"},
        {"content": '{"a": 1}', "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]},
        {"content": '{"a": 1}', "reasoning_details": [{"type": "reasoning.summary", "summary": "hm"}]},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": '{"a": 1}'}]},
    ],
    ids=["think", "closing tag only", "reasoning_content", "reasoning", "details", "summary", "parts"],
)
def test_reasoning_is_kept_apart(message):
    """However it comes, the answer is the same and the reasoning is beside it."""
    answer = read_reply(reply(**message), {})

    assert (answer.text, answer.reasoning) == ('{"a": 1}', "hm")


def test_reasoning_that_was_cut_off_leaves_no_answer():
    """An open tag is all reasoning."""
    assert split_reasoning("<think>and then") == ("", "and then")


def test_a_tag_inside_an_answer_is_the_answer():
    """Only what comes before the answer is reasoning."""
    text = "Use <think> tags like <think>this</think>."

    assert split_reasoning(text) == (text, "")


def test_a_limit_used_up_by_thinking_says_so_with_the_numbers():
    """The remedy is another one than for a long answer."""
    answer = read_reply(
        reply({"prompt_tokens": 9, "completion_tokens": 64, "completion_tokens_details": {"reasoning_tokens": 64}}, "length", content=None, reasoning="hm"), {}
    )

    with pytest.raises(BadAnswer, match=r"cut off at max_tokens \(64\): reasoning used 64 of these tokens; raise max_tokens"):
        read_answer(answer, SCHEMA, 64)


def test_a_function_that_was_not_offered_is_named():
    """Such an answer is no text, and says why."""
    answer = read_reply(
        reply(content=None, tool_calls=[{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}], finish="tool_calls"), {}
    )

    with pytest.raises(BadAnswer, match="called the function 'f', which was not offered"):
        read_answer(answer, SCHEMA, 64)


def test_the_arguments_of_the_offered_function_are_the_answer():
    """The way to structure of endpoints without a schema."""
    call = {"id": "1", "type": "function", "function": {"name": "n", "arguments": '{"a": 1}'}}

    answer = read_reply(
        reply(content=None, tool_calls=[call]), {"tools": [{"function": {"name": "n"}}], "tool_choice": {"type": "function", "function": {"name": "n"}}}
    )

    assert read_answer(answer, SCHEMA, 64) == {"a": 1}


RESPONSE = {
    "status": "completed",
    "service_tier": "flex",
    "output": [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": '{"a": 1}'}]},
    ],
    "usage": {"input_tokens": 20, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 16}, "output_tokens_details": {"reasoning_tokens": 5}},
}


def test_a_response_is_read_like_a_chat_completion():
    """Items instead of a message, other names of the tokens."""
    answer = read_response(RESPONSE, {})

    assert (answer.text, answer.reasoning, answer.finish, answer.tier) == ('{"a": 1}', "hm", "stop", "flex")
    assert (answer.input_tokens, answer.output_tokens, answer.cached_tokens, answer.reasoning_tokens) == (20, 9, 16, 5)


def test_a_response_that_ran_out_of_tokens_was_cut_off():
    """Its own word for it is another one."""
    answer = read_response({**RESPONSE, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}, {})

    assert answer.finish == "length"


def test_a_refusal_of_a_response_is_a_refusal():
    """It is a part of the message."""
    item = {"type": "message", "content": [{"type": "refusal", "refusal": "No."}]}

    assert read_response({**RESPONSE, "output": [item]}, {}).refusal == "No."


def ask(*replies: httpx2.Response, **settings: object) -> tuple[Answer | BeamRayError, Usage, int]:
    """What comes of one request, its usage, and how many calls it took."""
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return replies[min(len(seen), len(replies)) - 1]

    model = OpenAIModel(ModelSettings(base_url="http://model/v1", model="x", **settings), http=http_client(httpx2.MockTransport(answer)))
    usage = Usage()

    async def once() -> Answer | BeamRayError:
        try:
            return await model.ask(Request(({"role": "user", "content": "x" * 400},), schema=SCHEMA), usage)
        except BeamRayError as error:
            return error
        finally:
            await model.close()

    with stamina.set_testing(True, attempts=3):
        return asyncio.run(once()), usage, len(seen)


def test_usage_that_is_not_reported_is_estimated_and_marked():
    """Unknown is not zero: budgets go on, and reports can say that it is an estimate."""
    _, usage, _ = ask(httpx2.Response(200, json=reply(content="y" * 40)), usd_per_million={"input": 1_000, "output": 1_000})

    assert (usage.input_tokens, usage.output_tokens, usage.estimated_calls) == (101, 11, 1)
    assert usage.usd == pytest.approx(0.112)


def test_cached_and_reasoning_tokens_are_counted_and_priced():
    """Cached input costs less; reasoning is output."""
    used = {
        "prompt_tokens": 1000,
        "completion_tokens": 100,
        "prompt_tokens_details": {"cached_tokens": 800},
        "completion_tokens_details": {"reasoning_tokens": 60},
    }

    _, usage, _ = ask(httpx2.Response(200, json=reply(used, content="{}")), usd_per_million={"input": 10, "output": 100, "cached_input": 1})

    assert (usage.cached_tokens, usage.reasoning_tokens, usage.estimated_calls) == (800, 60, 0)
    assert usage.usd == pytest.approx((200 * 10 + 800 * 1 + 100 * 100) / 1e6)


def test_tokens_that_an_endpoint_does_not_tell_apart_are_unknown():
    """None, and not zero."""
    _, usage, _ = ask(httpx2.Response(200, json=reply({"prompt_tokens": 10, "completion_tokens": 1}, content="{}")))

    assert (usage.cached_tokens, usage.reasoning_tokens) == (None, None)


@pytest.mark.parametrize(("tier", "usd"), [("", 0.002), ("default", 0.002), ("flex", 0.001), ("priority", None)])
def test_the_tier_that_the_reply_names_decides_the_price(tier, usd):
    """Flex is half; a tier without a known price is unknown and not standard."""
    said = {**reply({"prompt_tokens": 1000, "completion_tokens": 100}, content="{}"), "service_tier": tier}

    _, usage, _ = ask(httpx2.Response(200, json=said), usd_per_million={"input": 1, "output": 10})

    assert usage.usd == (usd if usd is None else pytest.approx(usd))


@pytest.mark.parametrize(
    ("error", "calls", "said"),
    [
        ({"message": "busy", "code": 502}, 3, "Error code: 502 - busy"),
        ({"message": "slow down", "code": 429}, 3, "rate limit: Error code: 429 - slow down"),
        ({"message": "oops", "type": "server_error"}, 3, "Error code: 503 - oops"),
        ({"message": "no credits", "code": 402}, 1, "no credits"),
        ({"message": "bad key", "code": 401}, 1, "cannot be called: Error code: 401 - bad key"),
        ({"message": "context length is 10", "code": 400}, 1, "Error code: 400 - context length is 10"),
        ({"message": "who knows"}, 3, "the reply is not a chat completion"),
    ],
)
def test_an_error_inside_a_reply_counts_as_the_status_that_it_names(error, calls, said):
    """OpenRouter answers 200 with an error in it."""
    answer, usage, seen = ask(httpx2.Response(200, json={"error": error}))

    assert said in str(answer)
    assert usage.calls == seen == calls


def test_an_error_while_the_answer_was_written_is_tried_again():
    """A choice that ended in an error is no answer."""
    broken = {"choices": [{"message": {"content": "ha"}, "finish_reason": "error", "error": {"code": 502, "message": "lost"}}]}

    answer, usage, _ = ask(httpx2.Response(200, json=broken), httpx2.Response(200, json=reply(content="{}")))

    assert isinstance(answer, Answer)
    assert usage.calls == 2


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12", 12),
        ("1s", 1),
        ("6m0s", 360),
        ("1m2.5s", 62.5),
        ("250ms", 0.25),
        ("2h3m", 7380),
        ("7.66s", 7.66),
        ("", 0),
        ("soon", 0),
        ("-5", 0),
        ("99999h", 86_400),
    ],
)
def test_a_reset_is_read_in_the_forms_that_endpoints_write(text, seconds):
    """OpenAI and Groq write durations, others seconds; what cannot be read is unknown."""
    assert seconds_of(text) == pytest.approx(seconds)


def test_what_is_left_of_the_limits_is_read_from_any_reply():
    """Headers that are missing say nothing."""
    found = read_rate_limits({"x-ratelimit-remaining-requests": "99", "x-ratelimit-limit-requests": "100", "x-ratelimit-reset-requests": "120ms"})

    assert found.requests == Left(99, 100, 0.12)
    assert found.requests.per_second == pytest.approx(8.33, abs=0.01)
    assert (found.tokens, read_rate_limits({})) == (None, None)
