"""A model behind an endpoint: what is sent, what is tried again, what is counted."""

import asyncio
import email.utils
import gzip
import json
import subprocess
import sys
import time

import httpx2
import pytest
import stamina

from beam_ray.errors import BadDefinition, ModelRefused, ModelUnavailable, Stopped, Unusable
from beam_ray.llm.client import OpenAIModel, http_client
from beam_ray.llm.models_file import load_models
from beam_ray.llm.permits import Unlimited
from beam_ray.llm.reply_headers import MAX_RETRY_AFTER_S
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage
from beam_ray.run.limiter import Grant, Limits, PermitRequest
from beam_ray.run.permits import PermitLease

ASKED = Request(({"role": "user", "content": "hello"},), schema={"type": "object", "properties": {"a": {"type": "string", "maxLength": 5}}}, seed=7, node="n")


def reply(text: str = "hi", **more) -> httpx2.Response:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return httpx2.Response(200, json={"choices": [choice], "usage": {"prompt_tokens": 1000, "completion_tokens": 100}, **more})


def ask(*replies: httpx2.Response | Exception, permits: Unlimited | None = None, **settings) -> tuple[Answer | Exception, Usage, list[httpx2.Request]]:
    """What comes of asking once, when the endpoint says these things in turn."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        said = replies[min(len(seen), len(replies)) - 1]
        if isinstance(said, Exception):
            raise said
        return said

    model = OpenAIModel(ModelSettings(base_url="http://model/v1", model="x", **settings), permits, http=http_client(httpx2.MockTransport(answer)))
    usage = Usage()

    async def once() -> Answer | Exception:
        try:
            return await model.ask(ASKED, usage)
        except (ModelRefused, ModelUnavailable, Stopped) as error:
            return error
        finally:
            await model.close()

    with stamina.set_testing(True, attempts=4):
        return asyncio.run(once()), usage, seen


def test_the_schema_the_seed_and_the_model_are_sent():
    """The endpoint is told to follow the schema."""
    _, _, [request] = ask(reply(), temperature=0.5)
    body = json.loads(request.content)

    assert (body["model"], body["seed"], body["temperature"]) == ("x", 7, 0.5)
    assert body["response_format"]["json_schema"]["schema"]["properties"]["a"]["maxLength"] == 5


def test_a_strict_endpoint_is_spared_the_keywords_that_it_refuses():
    """The answer is checked against the whole schema all the same."""
    _, _, [request] = ask(reply(), structured="strict")
    sent = json.loads(request.content)["response_format"]["json_schema"]

    assert sent["strict"] is True
    assert sent["schema"]["properties"]["a"] == {"type": "string"}


def test_money_is_counted_by_the_price_of_a_million_tokens():
    """1,000 tokens in and 100 out at 1 and 10 dollars a million."""
    _, usage, _ = ask(reply(), usd_per_million={"input": 1, "output": 10})

    assert (usage.calls, usage.input_tokens, usage.output_tokens, usage.usd) == (1, 1000, 100, pytest.approx(0.002))


def test_no_list_of_prices_is_loaded_for_an_address_of_this_machine():
    """It takes 10 MB and as long as a hundred calls, and providers are listed by the names of their hosts."""
    code = """
import sys
from beam_ray.llm.prices import price_of
from beam_ray.llm.settings import ModelSettings

hosts = ("127.0.0.1:1", "[::1]", "localhost:8000", "10.1.2.3")
found = [price_of(ModelSettings(base_url=f"http://{host}/v1", model="gpt-4o")) for host in hosts]
print(found, "genai_prices" in sys.modules, price_of(ModelSettings(base_url="https://api.openai.com/v1", model="gpt-4o")) is not None)
"""

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout.split() == ["[None,", "None,", "None,", "None]", "False", "True"]


def test_a_model_without_a_price_costs_an_unknown_amount_and_not_nothing():
    """None is not zero."""
    assert ask(reply())[1].usd is None


@pytest.mark.parametrize(
    "fault",
    [
        httpx2.Response(429, headers={"retry-after": "0"}),
        httpx2.Response(500),
        httpx2.Response(503),
        httpx2.Response(200, content=b"<html>"),
        httpx2.Response(200, json={"choices": []}),
        httpx2.Response(200, json={"choices": [{"message": "hi"}]}),
        httpx2.Response(200, json={"choices": [{"message": {"content": 5}}]}),
        httpx2.Response(200, headers={"content-encoding": "gzip"}, content=gzip.compress(b"{}")),
        httpx2.ReadTimeout("slow"),
        httpx2.RemoteProtocolError("reset"),
    ],
    ids=str,
)
def test_a_passing_fault_is_tried_again_and_every_call_is_counted(fault):
    """Two faults, then an answer: three calls."""
    answer, usage, seen = ask(fault, fault, reply())

    assert isinstance(answer, Answer)
    assert usage.calls == len(seen) == 3


def test_a_lasting_fault_ends_in_a_word():
    """No answer within the tries allowed."""
    answer, usage, _ = ask(httpx2.Response(500, text="overloaded"))

    assert isinstance(answer, ModelUnavailable)
    assert usage.calls == 4


@pytest.mark.parametrize(("status", "code"), [(401, None), (402, None), (403, None), (404, None), (429, "insufficient_quota")])
def test_what_no_row_can_overcome_stops_the_run(status, code):
    """A wrong key or an empty purse is not each row's own failure."""
    answer, usage, _ = ask(httpx2.Response(status, json={"error": {"message": "no", "code": code}}))

    assert isinstance(answer, Stopped)
    assert usage.calls == 1


def test_no_call_is_repeated_after_the_deadline():
    """The time of the first try counts."""
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(500)

    async def once() -> None:
        async with http_client(httpx2.MockTransport(answer)) as http:
            await OpenAIModel(ModelSettings(base_url="http://model/v1", model="x", deadline_s=1e-6), http=http).ask(ASKED, Usage())

    with pytest.raises(ModelUnavailable):
        asyncio.run(once())
    assert len(seen) == 1


def test_an_endpoint_learns_nothing_of_this_machine():
    """Neither its system nor its version of Python."""
    _, _, [request] = ask(reply())

    assert not [name for name in request.headers if name.startswith("x-stainless") and name != "x-stainless-retry-count"]


def test_a_bad_request_is_not_repeated():
    """The same question would be as wrong again."""
    answer, usage, _ = ask(httpx2.Response(400, json={"error": {"message": "prompt too long: 9000 of 8192 tokens"}}))

    assert isinstance(answer, ModelUnavailable)
    assert "prompt too long" in str(answer)
    assert usage.calls == 1


def test_a_prompt_that_the_endpoint_filters_is_declined_and_not_repeated():
    """Azure's way to refuse is a bad request."""
    answer, usage, _ = ask(httpx2.Response(400, json={"error": {"message": "filtered", "code": "content_filter"}}))

    assert isinstance(answer, ModelRefused)
    assert usage.calls == 1


def test_an_answer_in_parts_is_put_together_and_odd_counts_of_tokens_are_not_believed():
    """Some endpoints give a list of parts, and some count in words: the tokens are then estimated and marked."""
    odd = {"prompt_tokens": "many", "completion_tokens": -3}
    answer, usage, _ = ask(httpx2.Response(200, json={"choices": [{"message": {"content": [{"text": "a"}, {"text": "b"}]}}], "usage": odd}))

    assert (answer.text, usage.input_tokens, usage.output_tokens, usage.estimated_calls) == ("ab", 2, 1, 1)


@pytest.mark.parametrize(
    ("headers", "pause"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after": email.utils.formatdate(time.time() + 3600, usegmt=True)}, MAX_RETRY_AFTER_S),
        ({"retry-after": email.utils.formatdate(time.time() - 3600, usegmt=True)}, 0),
        ({"retry-after": "86400"}, MAX_RETRY_AFTER_S),
        ({"retry-after": "-5"}, 0),
        ({"retry-after": "nan"}, 0),
        ({"retry-after": "soon"}, 0),
        ({}, 0),
    ],
    ids=["seconds", "milliseconds", "date in an hour", "date an hour ago", "a day", "negative", "nan", "a word", "none"],
)
def test_the_pause_that_an_endpoint_asks_for_holds_for_all_and_is_bounded(headers, pause):
    """Seconds, milliseconds or a date; a negative one is none, and a day is two minutes."""
    told: list[float] = []

    class Listening(Unlimited):
        def throttled(self, seconds: float) -> None:
            told.append(seconds)

    ask(httpx2.Response(429, headers=headers), reply(), permits=Listening())

    assert told == [pause]


@pytest.mark.parametrize("fault", [httpx2.Response(500), httpx2.Response(503, headers={"retry-after": "0.01"}), httpx2.RemoteProtocolError("reset")], ids=str)
def test_a_server_that_is_ill_is_not_taken_for_one_that_is_asked_too_fast(fault):
    """Fewer concurrent calls would not help, so the limiter is not changed."""

    class Deaf(Unlimited):
        def throttled(self, seconds: float) -> None:
            raise AssertionError("it was no 429")

    answer, usage, _ = ask(fault, reply(), permits=Deaf())

    assert isinstance(answer, Answer)
    assert usage.calls == 2


def test_a_key_may_not_stand_in_the_models_file(tmp_path):
    """A secret in a file ends up in a repository."""
    path = tmp_path / "models.yaml"
    path.write_text("m:\n  base_url: http://x/v1\n  model: y\n  api_key: sk-123\n")

    with pytest.raises(BadDefinition, match="models.yaml:4:3: a key must not be written in the file"):
        load_models(path)


def test_a_key_that_the_environment_does_not_have_is_named(monkeypatch):
    """The remedy is to set it."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)

    with pytest.raises(Unusable, match="the environment variable NO_SUCH_KEY is not set"):
        OpenAIModel(ModelSettings(base_url="http://x/v1", model="y", api_key="${env:NO_SUCH_KEY}"))


def test_a_waiting_call_goes_out_before_the_answer_that_freed_its_permit_is_worked_on():
    """Many answers come at once: the endpoint is not kept idle until all of them are worked on."""
    order: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        order.append(f"sent {json.loads(request.content)['messages'][0]['content']}")
        return reply()

    async def both() -> None:
        lease = PermitLease(grant, Limits(1))
        model = OpenAIModel(ModelSettings(base_url="http://model/v1", model="x"), lease, http=http_client(httpx2.MockTransport(answer)))

        async def one(name: str) -> None:
            await model.ask(Request(({"role": "user", "content": name},)), Usage())
            order.append(f"answer of {name}")

        await asyncio.gather(one("a"), one("b"))
        await lease.close()
        await model.close()

    async def grant(request: PermitRequest) -> Grant:
        return Grant(1, None, None, 0.0)

    asyncio.run(both())

    assert order == ["sent a", "sent b", "answer of a", "answer of b"]
