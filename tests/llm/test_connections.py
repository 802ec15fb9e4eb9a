"""A model asked over real connections: many at once, through a proxy, and some that are lost."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import stamina

from beam_ray.errors import ModelUnavailable
from beam_ray.llm.model import OpenAIModel
from beam_ray.llm.settings import ModelSettings
from beam_ray.llm.usage import Answer, Request, Usage

BODY = json.dumps({"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}]}).encode()
REPLY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)

Serve = Callable[[str, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[str]:
    """The address of a server that gives *serve* each request's head, to write the answer."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = next(int(line.split(":")[1]) for line in head.splitlines() if line.lower().startswith("content-length:"))
                await reader.readexactly(length)
                await serve(head, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=1_000)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


async def ask(url: str, times: int = 1) -> list[Answer | BaseException]:
    """What comes of asking so often at once."""
    model = OpenAIModel(ModelSettings(base_url=f"{url}/v1", model="x"))
    asked = Request(({"role": "user", "content": "hello"},), timeout_s=20)
    try:
        return list(await asyncio.gather(*(model.ask(asked, Usage()) for _ in range(times)), return_exceptions=True))
    finally:
        await model.close()


def test_as_many_calls_are_in_flight_as_there_are_permits():
    """Three hundred are answered once all are there: a pool of connections that holds fewer would wait for ever."""
    all_there, there = asyncio.Event(), []

    async def serve(head: str, writer: asyncio.StreamWriter) -> None:
        there.append(head)
        if len(there) == 300:
            all_there.set()
        await all_there.wait()
        writer.write(REPLY)

    async def work() -> list[Answer | BaseException]:
        async with listening(serve) as url:
            return await ask(url, 300)

    assert [answer.text for answer in asyncio.run(work()) if isinstance(answer, Answer)] == ["hi"] * 300


@pytest.mark.parametrize("sent", [b"", REPLY[:-5]], ids=["before the answer", "amid the answer"])
def test_a_connection_that_is_lost_is_told_as_one(sent: bytes):
    """It is asked again on another, and the last failure does not speak of a time that never passed."""
    calls = []

    async def serve(head: str, writer: asyncio.StreamWriter) -> None:
        calls.append(head)
        writer.write(sent)
        writer.close()

    async def work() -> list[Answer | BaseException]:
        async with listening(serve) as url:
            return await ask(url)

    with stamina.set_testing(True, attempts=3):
        [answer] = asyncio.run(work())

    assert isinstance(answer, ModelUnavailable)
    assert "Connection error" in str(answer)
    assert "no answer within" not in str(answer)
    assert len(calls) == 3


def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch):
    """As with other programs, HTTP_PROXY says whom to ask for an address that only the proxy can reach."""
    heads = []

    async def serve(head: str, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(REPLY)

    async def work() -> list[Answer | BaseException]:
        async with listening(serve) as url:
            monkeypatch.setenv("HTTP_PROXY", url)
            return await ask("http://model.invalid")

    [answer] = asyncio.run(work())

    assert isinstance(answer, Answer), answer
    assert heads[0].startswith("POST http://model.invalid/v1/chat/completions ")
