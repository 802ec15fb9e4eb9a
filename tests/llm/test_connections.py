"""A model asked over real connections: many at once, through a proxy, and some that are lost."""

import asyncio
import json
import threading
from http.server import BaseHTTPRequestHandler

import pytest
import stamina

from beam_ray.errors import ModelUnavailable
from beam_ray.llm.batch_endpoint import BatchEndpoint
from beam_ray.llm.client import OpenAIModel, http_client
from beam_ray.llm.request import Answer, Request
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Usage
from tests.endpoint import Endpoint, endpoint, reset
from tests.http_server import QuietHandler, serving

BODY = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


def ask(url: str, times: int = 1) -> list[Answer | BaseException]:
    """What comes of asking so often at once."""

    async def work() -> list[Answer | BaseException]:
        model = OpenAIModel(ModelSettings(base_url=url, model="x"))
        asked = Request(({"role": "user", "content": "hello"},), timeout_s=20)
        try:
            return list(await asyncio.gather(*(model.ask(asked, Usage()) for _ in range(times)), return_exceptions=True))
        finally:
            await model.close()

    return asyncio.run(work())


def silent(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


def short(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection a few bytes before the answer's end."""
    handler.wfile.write(REPLY[:-5])


def test_as_many_calls_are_in_flight_as_there_are_permits():
    """Three hundred are answered once all are there: a pool of connections that holds fewer would wait for ever."""
    all_there = threading.Barrier(300)

    def say(body: object) -> str:
        all_there.wait(20)
        return "hi"

    with endpoint(say) as model:
        answers = ask(model.url, 300)

    assert [answer.text for answer in answers if isinstance(answer, Answer)] == ["hi"] * 300


@pytest.mark.parametrize("lose", [silent, short, reset], ids=["before the answer", "amid the answer", "broken amid the answer"])
def test_a_connection_that_is_lost_is_told_as_one(lose):
    """It is asked again on another, and the last failure does not speak of a time that never passed."""
    with endpoint(lambda body: lose) as model, stamina.set_testing(True, attempts=3):
        [answer] = ask(model.url)

    assert isinstance(answer, ModelUnavailable)
    assert "Connection error" in str(answer)
    assert "no answer within" not in str(answer)
    assert len(model.journal) == 3


def test_a_connection_that_the_endpoint_closed_while_it_was_idle_costs_no_try():
    """As between two runs of a command: the next call opens another one."""

    def serve(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(REPLY)

    async def twice(endpoint: Endpoint) -> list[int]:
        calls = []
        async with http_client() as http:
            for _ in range(2):
                usage = Usage()
                await OpenAIModel(ModelSettings(base_url=endpoint.url, model="x"), http=http).ask(Request(({"role": "user", "content": "hello"},)), usage)
                calls.append(usage.calls)
                await asyncio.to_thread(endpoint.settle)
        return calls

    with endpoint(lambda body: serve) as model:
        assert asyncio.run(twice(model)) == [1, 1]
    assert len({call.port for call in model.journal}) == 2


def test_a_batch_endpoint_learns_nothing_of_this_machine():
    """Neither its system nor its version of Python, as with single calls."""
    seen = []

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            seen.append({name.lower() for name in self.headers})
            body = b'{"object": "list", "data": [], "has_more": false}'
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as url:
        BatchEndpoint(ModelSettings(base_url=f"{url}/v1", model="x"), "m").find("mark", since=0.0)

    assert {name for name in seen[0] if name.startswith("x-stainless")} <= {"x-stainless-retry-count", "x-stainless-read-timeout"}


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch):
    """As with other programs, HTTP_PROXY says whom to ask for an address that only the proxy can reach."""
    lines = []

    def serve(handler: BaseHTTPRequestHandler) -> None:
        lines.append(handler.requestline)
        handler.wfile.write(REPLY)

    with endpoint(lambda body: serve) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        [answer] = ask("http://model.invalid/v1")

    assert isinstance(answer, Answer), answer
    assert lines[0].startswith("POST http://model.invalid/v1/chat/completions ")
