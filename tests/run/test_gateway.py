"""The gateway as programs see it: OpenAI's API for whoever has the key of a running attempt, and for nobody else."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import openai
import pytest
import stamina

from beam_ray.define.workflow import Workflow
from beam_ray.errors import BudgetReached, ModelRefused, ModelUnavailable, OutOfQuota
from beam_ray.llm import Answer, Request, ScriptedModel
from beam_ray.llm.client import OpenAIModel
from beam_ray.llm.permits import Permits, Unlimited
from beam_ray.llm.request import ToolCall
from beam_ray.llm.settings import ModelSettings
from beam_ray.run.attempt import Attempt
from beam_ray.run.calls import CallLog
from beam_ray.run.context import StepContext, TaskTrial
from beam_ray.run.gateway import Gateway
from beam_ray.run.program_session import ProgramSession
from beam_ray.run.tools import Tools
from tests.endpoint import endpoint

TASK = TaskTrial("t", 1, 0, "q", {}, None)
CHAT = {"model": "hosted/large", "messages": [{"role": "user", "content": "hello"}]}


class Program:
    """What a program sees of the gateway, and what is known of its attempt."""

    def __init__(self, gateway: Gateway, session: ProgramSession, environment: dict[str, str]):
        self.gateway, self.session, self.environment = gateway, session, environment
        self.client = openai.AsyncOpenAI(base_url=environment["OPENAI_BASE_URL"], api_key=environment["OPENAI_API_KEY"])

    async def post(self, path: str, body: Any, key: str | None = None) -> tuple[int, Any, Any]:
        """Status, headers and body of a request as it is."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.session.key if key is None else key.replace('ID', self.session.id)}"}
        async with aiohttp.ClientSession() as http, http.post(f"{self.gateway.url}{path}", data=raw, headers=headers) as reply:
            text = await reply.text()
            return reply.status, reply.headers, json.loads(text) if reply.content_type == "application/json" else text


def serve(
    answer: Callable[[Request], Any] | OpenAIModel,
    program: Callable[[Program], Awaitable[Any]],
    *,
    at_most: int = 100,
    latency_s: float = 0.0,
    permits: Permits | None = None,
    **context: Any,
) -> tuple[Any, CallLog, Attempt]:
    """What the *program* gives while its attempt is served, with the attempt's calls and what they cost."""

    async def run() -> tuple[Any, CallLog, Attempt]:
        workflow = Workflow(name="w", nodes={"n": {"command": ["x"], "version": "1", "asks": ["hosted/large"]}})
        models = {"hosted/large": answer if isinstance(answer, OpenAIModel) else ScriptedModel(answer, latency_s=latency_s, permits=permits)}
        known = StepContext("r", workflow, models, {"hosted/large": "i"}, Tools(workflow), **context)
        log, attempt, gateway = CallLog(known, "n", TASK, lambda row: None), Attempt(1), Gateway()
        request = Request((), node="n", task_id="t", by_program=True)
        session = ProgramSession(log.begin(attempt), request, attempt.usage, {"hosted/large": "gpt-x"}, at_most)
        await gateway.start()
        try:
            with gateway.serving(session) as environment:
                result = await program(Program(gateway, session, dict(environment)))
                await session.close()
        finally:
            await gateway.close()
        return result, log, attempt

    return asyncio.run(run())


def rich(request: Request) -> Answer:
    """Text, tool calls, thoughts and all counts."""
    calls = (ToolCall("find", '{"n": 1}'), ToolCall("find", '{"n": 2}'))
    return Answer("I look.", 20, 7, reasoning="Where?", reasoning_tokens=3, cached_tokens=4, tool_calls=calls, finish="tool_calls")


async def streamed_chat(program: Program) -> Any:
    """What the client library puts together from a stream."""
    tools = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}]
    async with program.client.chat.completions.stream(**CHAT, tools=tools, stream_options={"include_usage": True}) as stream:
        async for _ in stream:
            pass
        return (await stream.get_final_completion()).to_dict(), (await program.client.chat.completions.create(**CHAT, tools=tools)).to_dict()


def test_a_streamed_chat_completion_is_the_one_that_comes_whole():
    """The client library puts the chunks together to the same message, finish and usage."""
    (streamed, whole), log, _ = serve(rich, streamed_chat)

    messages = [{name: value for name, value in reply["choices"][0]["message"].items() if value is not None} for reply in (streamed, whole)]
    for call in messages[0]["tool_calls"]:
        call.pop("index")
        call["function"].pop("parsed_arguments", None)
    assert messages[0] == messages[1]
    assert (streamed["usage"], streamed["choices"][0]["finish_reason"]) == (whole["usage"], "tool_calls")
    assert len(log.rows) == 2


async def streamed_response(program: Program) -> Any:
    """What the client library puts together from a stream of events."""
    async with program.client.responses.stream(model="gpt-x", input="hello") as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_response()
    return kinds, final.to_dict(), (await program.client.responses.create(model="gpt-x", input="hello")).to_dict()


def test_a_streamed_response_is_the_one_that_comes_whole():
    """Every item is opened, filled and closed, and the last event has the whole response."""
    (kinds, streamed, whole), _, _ = serve(rich, streamed_response)

    for item in streamed["output"]:
        item.pop("parsed_arguments", None)
        for part in item.get("content") or ():
            part.pop("parsed", None)
    assert streamed == whole
    assert [kinds[0], kinds[-1]] == ["response.created", "response.completed"]
    assert {"response.output_text.delta", "response.function_call_arguments.done", "response.reasoning_summary_text.done"} <= set(kinds)


def test_calls_are_recorded_and_counted_whatever_the_name_of_the_model():
    """By our name or the endpoint's; the row has ours, and the body the endpoint's."""

    async def program(it: Program) -> Any:
        await it.client.chat.completions.create(**CHAT, temperature=0.5)
        await it.client.chat.completions.create(**{**CHAT, "model": "gpt-x"})
        found = await it.client.embeddings.create(model="gpt-x", input=["a", "b"])
        return (
            len(found.data),
            len(found.data[0].embedding),
            [model.id async for model in it.client.models.list()],
            (await it.client.models.retrieve("gpt-x")).id,
        )

    seen, log, attempt = serve(lambda request: "hi", program)

    assert seen == (2, 8, ["hosted/large", "gpt-x"], "gpt-x")
    assert [(row["kind"], row["name"], row["api"], row["number"]) for row in log.rows] == [
        ("model", "hosted/large", "chat", 1), ("model", "hosted/large", "chat", 2), ("embedding", "hosted/large", "embeddings", 3),
    ]  # fmt: skip
    assert json.loads(log.rows[0]["request"]) == {**CHAT, "model": "gpt-x", "temperature": 0.5}
    assert attempt.usage.calls == 3


@pytest.mark.parametrize(
    ("path", "body", "key", "status", "code", "words"),
    [
        ("/v1/chat/completions", CHAT, "", 401, "invalid_api_key", "running program"),
        ("/v1/chat/completions", CHAT, "sk-real", 401, "invalid_api_key", "running program"),
        ("/v1/chat/completions", CHAT, "br-ID-another-secret", 401, "invalid_api_key", "running program"),
        ("/v1/chat/completions", {**CHAT, "model": "gpt-9"}, None, 404, "model_not_found", "it may ask: hosted/large"),
        ("/v1/chat/completions", {"messages": []}, None, 404, "model_not_found", "the model None"),
        ("/v1/chat/completions", b"{", None, 400, "invalid_json", "not JSON"),
        ("/v1/chat/completions", b"[1]", None, 400, "invalid_json", "object"),
        ("/v1/chat/completions", b"x" * 33_000_000, None, 413, "request_too_large", "32,000,000"),
        ("/v1/responses", {"model": "gpt-x", "input": "x", "background": True}, None, 400, "unsupported_parameter", "background"),
        ("/v1/files", {}, None, 404, "unknown_url", "/v1/responses"),
        ("/v1/chat/completions/../../etc/passwd", {}, None, 404, "unknown_url", "only"),
    ],
    ids=[
        "no key",
        "another key",
        "another secret",
        "another model",
        "no model",
        "no JSON",
        "no object",
        "too large",
        "background",
        "another path",
        "a path upwards",
    ],
)
def test_what_is_refused_is_said_in_the_shape_of_the_api(path: str, body: Any, key: str | None, status: int, code: str, words: str):
    """With the status that the API has for it, and the word not to try again; nothing is asked."""
    (found, headers, said), log, _ = serve(lambda request: "hi", lambda it: it.post(path, body, key))

    assert (found, said["error"]["code"], headers["x-should-retry"]) == (status, code, "false")
    assert words in said["error"]["message"]
    assert log.rows == []


def test_a_key_is_dead_once_its_attempt_has_ended():
    """A process that was left behind asks nothing more, also while other attempts run."""

    async def program(it: Program) -> Any:
        before = await it.post("/v1/chat/completions", CHAT)
        await it.session.close()
        return before[0], (await it.post("/v1/chat/completions", CHAT))[0]

    assert serve(lambda request: "hi", program)[0] == (200, 401)


def failing(*errors: Exception) -> Callable[[Request], Any]:
    """A model that fails in these ways in turn, and then answers."""
    left = list(errors)

    def answer(request: Request) -> str:
        if left:
            raise left.pop(0)
        return "hi"

    return answer


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (ModelUnavailable("too long", status=400, code="context_length_exceeded", param="messages"), openai.BadRequestError, "context_length_exceeded"),
        (ModelRefused("no", status=400, code="content_filter"), openai.BadRequestError, "content_filter"),
        (ModelUnavailable("rate limit: slow", status=429), openai.RateLimitError, "rate_limit_exceeded"),
        (ModelUnavailable("no answer within 1 s", status=504), openai.InternalServerError, "no_answer"),
        (ModelUnavailable("down"), openai.InternalServerError, "no_answer"),
    ],
    ids=["too long", "content", "rate limit", "time", "down"],
)
def test_a_final_failure_is_final_for_the_client_library_too(error: Exception, kind: type[Exception], code: str):
    """It gets the API's own error; neither its retries nor the program's make another call for the same request."""

    async def program(it: Program) -> Any:
        found = []
        for _ in range(3):
            with pytest.raises(kind) as caught:
                await it.client.chat.completions.create(**CHAT)
            found.append(caught.value.code)
        other = await it.client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": "another"}])
        return found, other.choices[0].message.content

    (codes, other), log, _ = serve(failing(error), program)

    assert (codes, other) == ([code] * 3, "hi")
    assert [row["error"] is None for row in log.rows] == [False, True]


def test_a_client_that_gave_up_and_tries_again_gets_the_answer_of_its_first_call():
    """A time limit in a client library costs nothing twice."""

    async def program(it: Program) -> Any:
        return (await it.client.with_options(timeout=0.3, max_retries=5).chat.completions.create(**CHAT)).choices[0].message.content

    said, log, attempt = serve(lambda request: "hi", program, latency_s=0.8)

    assert (said, len(log.rows), attempt.usage.calls) == ("hi", 1, 1)


def test_equal_calls_that_are_wanted_are_made():
    """Samples of one question are as many calls, also at the same time."""

    async def program(it: Program) -> Any:
        asked = [it.client.chat.completions.create(**CHAT) for _ in range(3)]
        return len(await asyncio.gather(*asked)) + len([await it.client.chat.completions.create(**CHAT)])

    found, log, _ = serve(lambda request: "hi", program, latency_s=0.1)

    assert (found, len(log.rows)) == (4, 4)


def test_an_attempt_makes_at_most_max_calls():
    """A program that goes round in circles is stopped by us and not by the bill."""

    async def program(it: Program) -> Any:
        for number in range(5):
            try:
                await it.client.chat.completions.create(**{**CHAT, "temperature": number / 10})
            except openai.PermissionDeniedError as error:
                return number, error.code
        return None

    assert serve(lambda request: "hi", program, at_most=3)[0] == (3, "max_calls")


@pytest.mark.parametrize("error", [BudgetReached("the budget is reached: max_usd"), OutOfQuota("no money")], ids=["budget", "quota"])
def test_what_stops_the_run_ends_the_program(error: Exception):
    """Its attempt is told to end with that error, whatever the program makes of the refusal."""

    async def program(it: Program) -> Any:
        with pytest.raises(openai.PermissionDeniedError, match="the run was stopped"):
            await it.client.chat.completions.create(**CHAT)
        return it.session.ended.is_set(), it.session.error

    assert serve(failing(error), program)[0] == (True, error)


def test_calls_in_flight_when_the_program_ends_are_recorded():
    """They are paid for."""

    async def program(it: Program) -> Any:
        asking = asyncio.create_task(it.client.chat.completions.create(**CHAT))
        while not it.session.in_flight:
            await asyncio.sleep(0.01)
        asking.cancel()
        return None

    _, log, attempt = serve(lambda request: "hi", program, latency_s=0.6)

    assert [row["error"] for row in log.rows] == [None]
    assert attempt.usage.calls == 1


def test_a_key_in_a_request_is_not_recorded():
    """Rows of the store have no key, even one that is dead."""

    async def program(it: Program) -> Any:
        await it.client.chat.completions.create(model="gpt-x", messages=[{"role": "user", "content": f"my key is {it.session.key}"}])
        return it.session.key

    key, log, _ = serve(lambda request: "hi", program)

    assert "my key is [key]" in log.rows[0]["request"]
    assert key not in json.dumps(log.rows, default=str)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"tool": "find", "arguments": {"po": "PO-1"}, "effects": "read"}, {"answer": {"total": 1}, "error": None, "source": "static"}),
        ({"tool": "find", "arguments": {"po": "PO-2"}, "effects": "read"}, {"answer": None, "error": "gone", "source": "static"}),
        ({"tool": "send", "arguments": {}}, {"answer": None, "error": "the tool 'send' is not available in a test: its result for these arguments was not recorded", "source": "refused"}),
    ],
    ids=["answer", "error", "write"],
)  # fmt: skip
def test_a_programs_tool_gets_static_answers_and_is_refused_where_it_would_write(call: Any, said: Any):
    """Over plain HTTP, in a test; without effects a tool counts as one that writes."""
    answers = {"find": [{"when": {"po": "PO-1"}, "answer": {"total": 1}}, {"error": "gone"}]}
    found, log, _ = serve(lambda request: "hi", lambda it: it.post("/v1/beam_ray/tools", call), tool_answers=answers, testing=True, allow_writes=False)

    assert (found[0], found[2]) == (200, said)
    assert [(row["kind"], row["source"]) for row in log.rows] == [("tool", said["source"])]


@pytest.mark.parametrize(
    "body",
    [{"tool": "find"}, {"tool": 3, "arguments": {}}, {"tool": "find", "arguments": {}, "effects": "all"}, {"tool": "find", "arguments": [], "on_miss": "x"}],
)
def test_a_call_of_a_tool_that_cannot_be_read_is_refused(body: Any):
    """With what it must have."""
    found, log, _ = serve(lambda request: "hi", lambda it: it.post("/v1/beam_ray/tools", body))

    assert (found[0], found[2]["error"]["code"], log.rows) == (400, "invalid_request", [])


def test_a_result_of_a_tool_that_was_not_called_is_refused():
    """Nobody waits for it."""
    found, log, _ = serve(lambda request: "hi", lambda it: it.post("/v1/beam_ray/tools/0123", {"value": 1}))

    assert (found[0], found[2]["error"]["code"], log.rows) == (404, "unknown_call", [])


def test_a_miss_that_fails_the_step_ends_the_program():
    """Whatever the program makes of the refusal."""

    async def program(it: Program) -> Any:
        call = {"tool": "find", "arguments": {}, "effects": "read", "on_miss": "fail"}
        return (await it.post("/v1/beam_ray/tools", call))[0], it.session.ended.is_set(), str(it.session.error)

    status, ended, error = serve(lambda request: "hi", program, testing=True)[0]

    assert (status, ended) == (403, True)
    assert "on_miss is fail" in error


def test_an_endpoint_sees_what_the_program_wrote_and_our_key(monkeypatch: pytest.MonkeyPatch):
    """The settings of the models file that shape our own requests are not forced on it; a fault is tried again here, and a stream is asked for whole."""
    monkeypatch.setenv("LARGE_KEY", "sk-large")
    replies = [(500, {}, {"error": {"message": "busy"}}), "hello"]
    written = {"messages": CHAT["messages"], "max_tokens": 5, "custom": {"a": 1}}

    async def program(it: Program) -> Any:
        status, headers, text = await it.post("/v1/chat/completions", {**written, "model": "hosted/large", "stream": True})
        await model.close()
        return status, headers["Content-Type"], [json.loads(line[6:]) for line in text.split("\n\n") if line.startswith("data: {")]

    with endpoint(lambda body: replies.pop(0)) as served, stamina.set_testing(True, attempts=2):
        settings = ModelSettings(
            base_url=served.url,
            model="gpt-x",
            api_key="${env:LARGE_KEY}",
            temperature=0.3,
            extra={"service_tier": "flex"},
            usd_per_million={"input": 1, "output": 2},
        )
        model = OpenAIModel(settings)
        (status, kind, chunks), log, attempt = serve(model, program)

    assert (status, kind) == (200, "text/event-stream; charset=utf-8")
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "hello"
    assert [call.body for call in served.journal] == [{**written, "model": "gpt-x"}] * 2
    assert (attempt.usage.calls, attempt.usage.input_tokens, attempt.usage.usd, log.rows[0]["calls"]) == (2, 10, pytest.approx(0.00002), 2)


class Turnstile(Unlimited):
    """Permits for which each call waits as long."""

    @contextlib.asynccontextmanager
    async def _held(self) -> AsyncIterator[float]:
        await asyncio.sleep(0.5)
        yield 0.5

    def hold(self, tokens: int) -> contextlib.AbstractAsyncContextManager[float]:
        """Wait."""
        return self._held()


def test_waits_for_permits_that_overlap_are_no_time_of_the_program_and_count_once():
    """Three calls that wait together wait half a second; each has its own wait in its row."""

    async def program(it: Program) -> Any:
        await asyncio.gather(*(it.client.chat.completions.create(**CHAT) for _ in range(3)))
        return it.session.waited

    waited, log, attempt = serve(lambda request: "hi", program, permits=Turnstile())

    assert 0.5 <= waited < 1.4
    assert [row["waited"] for row in log.rows] == [0.5] * 3
    assert attempt.usage.waited == 1.5
