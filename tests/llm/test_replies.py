"""Raw replies: what programs and agents get of a model."""

import asyncio
import dataclasses
import json

import httpx2
import pytest
import stamina

from beam_ray.errors import ModelUnavailable, WrongSetting
from beam_ray.llm.batched import BatchedModel, PutAside, Reply, call_digest
from beam_ray.llm.client import OpenAIModel, http_client
from beam_ray.llm.models_file import load_models
from beam_ray.llm.request import Answer, Deferred, Request, ToolCall
from beam_ray.llm.scripted import ScriptedModel
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage

BODY = {"model": "x", "messages": [{"role": "user", "content": "hello"}]}
WHOSE = Request((), node="n", by_program=True)
COMPLETION = {"id": "c-1", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}}], "usage": {"prompt_tokens": 7, "completion_tokens": 2}}


def model_of(*replies: httpx2.Response, **settings) -> tuple[OpenAIModel, list[httpx2.Request]]:
    """A model whose endpoint gives these replies in turn, and the requests that it saw."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return replies[min(len(seen), len(replies)) - 1]

    return OpenAIModel(ModelSettings(base_url="http://model/v1", model="x", **settings), http=http_client(httpx2.MockTransport(answer))), seen


def reply_of(model, body=BODY, whose: Request = WHOSE, api: str | None = None):
    """The reply, and what it cost."""
    usage = Usage()
    with stamina.set_testing(True, attempts=3):
        return asyncio.run(model.reply(body, whose, usage, api=api)), usage


def test_a_reply_is_what_the_endpoint_sent_after_faults_are_retried():
    """Retries and tokens are counted as for answers of our own."""
    model, seen = model_of(httpx2.Response(500), httpx2.Response(200, json=COMPLETION), usd_per_million={"input": 1, "output": 10})

    reply, usage = reply_of(model)

    assert reply == COMPLETION
    assert json.loads(seen[-1].content) == BODY
    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.usd) == (2, 7, 2, pytest.approx(0.000027))


def test_a_reply_repeats_no_secret(monkeypatch):
    """An endpoint may repeat the key that it received."""
    monkeypatch.setenv("SECRET_KEY", "sk-secret")
    model, _ = model_of(httpx2.Response(200, json={**COMPLETION, "note": ["your key sk-secret"]}), api_key="${env:SECRET_KEY}")

    reply, _ = reply_of(model)

    assert reply["note"] == ["your key ${env:SECRET_KEY}"]


def test_responses_and_embeddings_have_paths_of_their_own():
    """A program calls the API that it was written for."""
    response = {"output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}], "usage": {"input_tokens": 3, "output_tokens": 1}}
    vectors = {"object": "list", "data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 4, "total_tokens": 4}}
    model, seen = model_of(httpx2.Response(200, json=response), httpx2.Response(200, json=vectors))

    _, first = reply_of(model, {"model": "x", "input": "hello", "tools": [{"type": "web_search"}]}, api="responses")
    found, second = reply_of(model, {"model": "x", "input": ["hello"]}, api="embeddings")

    assert [request.url.path for request in seen] == ["/v1/responses", "/v1/embeddings"]
    assert (first.input_tokens, first.output_tokens) == (3, 1)
    assert (found, second.input_tokens, second.output_tokens) == (vectors, 4, 0)


@pytest.mark.parametrize("by_program", [True, False])
def test_a_setting_that_a_program_chose_fails_its_row_alone(by_program: bool):
    """Another row of the program may choose another one; our own settings are the same for all rows."""
    error = {"message": "Unsupported parameter: 'temperature'", "code": "unsupported_parameter", "param": "temperature"}
    model, _ = model_of(httpx2.Response(400, json={"error": error}))

    with pytest.raises(ModelUnavailable if by_program else WrongSetting) as caught:
        reply_of(model, {**BODY, "temperature": 0}, Request((), node="n", by_program=by_program))

    assert not by_program or (caught.value.status, caught.value.code, caught.value.param) == (400, "unsupported_parameter", "temperature")


class Mail:
    """A mailbox with one reply, or none."""

    def __init__(self, *replies: Reply):
        self.kept, self.put_aside = replies, list[PutAside]()

    def replies(self, request: Request, call: str) -> tuple[Reply, ...]:
        """The replies."""
        return self.kept

    def put(self, waiting: PutAside) -> None:
        """Keep the request."""
        self.put_aside.append(waiting)


def test_our_own_bodies_wait_for_batches_and_programs_never_do():
    """A program that waits would hold its process for a day."""
    own = Request(({"role": "user", "content": "hello"},), node="n")
    model, seen = model_of(httpx2.Response(200, json=COMPLETION))
    empty, brought = Mail(), Mail(Reply(200, COMPLETION))

    with pytest.raises(Deferred):
        reply_of(BatchedModel(model, empty), model.body_of(own), own)
    from_batch, _ = reply_of(BatchedModel(model, brought), model.body_of(own), own)

    assert (from_batch, len(seen)) == (COMPLETION, 0)
    assert [waiting.call for waiting in empty.put_aside] == [call_digest(own, model.body_of(own))]
    assert reply_of(BatchedModel(model, empty))[0] == COMPLETION


def rich(request: Request) -> Answer:
    """An answer with everything that an endpoint may say."""
    return Answer("4", 9, 3, reasoning="2 and 2", reasoning_tokens=2, cached_tokens=5, tier="flex", tool_calls=(ToolCall("add", '{"a": 2}', "call_1"),))


@pytest.mark.parametrize("api", ["chat", "responses"])
def test_a_scripted_answer_survives_the_shape_of_either_api(api: str):
    """What a program's library reads is what the script said."""
    model = ScriptedModel(rich)

    reply, usage = reply_of(model, {"model": "m", "messages": [], "input": "2 + 2"}, api=api)

    assert dataclasses.replace(model.read(reply, {}, WHOSE), finish="stop", raw=()) == rich(WHOSE)
    assert (usage.calls, usage.input_tokens, usage.output_tokens) == (1, 9, 3)


def test_asking_is_body_reply_and_read():
    """The three steps give what ``ask`` gives, for real and scripted models."""
    own = Request(({"role": "user", "content": "hello"},), node="n")
    real, _ = model_of(httpx2.Response(200, json=COMPLETION))

    for model in (real, ScriptedModel(lambda request: "hi")):
        body = model.body_of(own)
        reply, usage = reply_of(model, body, own)
        asked = Usage()
        answer = asyncio.run(model.ask(own, asked))
        asked.seconds = usage.seconds = asked.waited = usage.waited = 0.0

        assert model.read(reply, body, own) == answer
        assert usage == asked


def script(request: Request):
    """Calls both tools, then answers from what they said."""
    said = [message["content"] for message in request.messages if message["role"] == "tool"]
    return f"said {said}" if said else [ToolCall("find", '{"n": 1}'), ToolCall(request.tools[0]["name"])]


def test_a_script_reads_a_programs_turns_whatever_the_api():
    """Tool calls get ids, and results come back as messages of role tool."""
    model = ScriptedModel(script)
    chat = [{"role": "user", "content": "go"}]
    first, _ = reply_of(model, {"messages": chat, "tools": [{"type": "function", "function": {"name": "look"}}]})
    message = first["choices"][0]["message"]
    results = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"]} for call in message["tool_calls"]]
    last, _ = reply_of(model, {"messages": [*chat, message, *results]})
    begun, _ = reply_of(model, {"input": "go", "tools": [{"type": "function", "name": "look"}]}, api="responses")
    given = [{"type": "function_call_output", "call_id": item["call_id"], "output": item["name"]} for item in begun["output"]]
    ended, _ = reply_of(model, {"input": [{"role": "user", "content": "go"}, *begun["output"], *given]}, api="responses")

    assert last["choices"][0]["message"]["content"] == "said ['call_1', 'call_2']"
    assert ended["output"][0]["content"][0]["text"] == "said ['find', 'look']"


def test_the_models_file_scripts_calls_of_tools(tmp_path):
    """Agents and programs can be tried without an endpoint."""
    path = tmp_path / "models.yaml"
    path.write_text("m:\n  answers:\n    - {has: found, answer: pay}\n    - {call: {find: {po_number: PO-1}}}\n")
    model = load_models(path)["m"]

    reply, _ = reply_of(model)

    assert reply["choices"][0]["message"]["tool_calls"] == [
        {"id": "call_1", "type": "function", "function": {"name": "find", "arguments": '{"po_number": "PO-1"}'}}
    ]


def test_scripted_embeddings_are_equal_for_equal_texts():
    """Programs that search can be tested without an endpoint."""
    found, usage = reply_of(ScriptedModel(script), {"input": ["a", "b", "a"], "dimensions": 3}, api="embeddings")
    vectors = [item["embedding"] for item in found["data"]]

    assert (len(vectors[0]), vectors[0] == vectors[2], vectors[0] == vectors[1]) == (3, True, False)
    assert usage.input_tokens == found["usage"]["prompt_tokens"]
