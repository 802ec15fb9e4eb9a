"""
An OpenAI-compatible endpoint with a known latency, and a journal of its calls.

    python -m benchmarks.speed.endpoint --latency lognormal --per-second 100 --busy 0.01

``GET /journal`` lists start, end, task, step and status of each call; ``POST /journal`` clears the list.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from benchmarks.speed.work import Latency, agent_calls, fitting, numbers

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Call:
    """A finished call; times are seconds on the endpoint's clock."""

    began: float
    ended: float
    status: int
    task: int
    step: int


@dataclass(frozen=True)
class Endpoint:
    """An endpoint in a separate process."""

    url: str

    def forget(self) -> None:
        """Clear the journal."""
        self._ask("POST")

    def calls(self) -> list[Call]:
        """Every call in the journal, in the order in which they ended."""
        return [Call(*entry) for entry in self._ask("GET")]

    def _ask(self, method: str) -> list[tuple[float, float, int, int, int]]:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/journal", method=method), timeout=60) as answer:
            return list(json.loads(answer.read()))


def span_s(calls: list[Call]) -> float:
    """Seconds from the first call to the last answer."""
    return max((call.ended for call in calls), default=0.0) - min((call.began for call in calls), default=0.0)


@contextlib.contextmanager
def endpoint(*options: str) -> Iterator[Endpoint]:
    """Serve an endpoint with these options while the block runs."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.speed.endpoint", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        yield Endpoint(process.stdout.readline().strip())
    finally:
        process.terminate()
        process.wait()


class _Server:
    def __init__(self, latency: Latency, per_second: float, busy: float, broken: float):
        self.latency, self.per_second, self.busy, self.broken = latency, per_second, busy, broken
        self.chance = random.Random(1)
        self.calls: list[tuple[float, float, int, int, int]] = []
        self.level, self.filled = per_second, time.monotonic()
        self.asked: set[tuple[int, int]] = set()
        """What was asked before: the first answer to a prompt with the word "twice" in it is no."""

    async def answer(self, request: web.Request) -> web.Response:
        body, began = json.loads(await request.read()), time.monotonic()
        said = body["messages"][-1]["content"]
        task, step = numbers(said if isinstance(said, str) else json.dumps(said))
        response = self._refusal(began)
        if response is None:
            if wait := self.latency.of(task, step):
                await asyncio.sleep(wait)
            word = "no" if "twice" in said and (task, step) not in self.asked else "ok"
            self.asked.add((task, step))
            form = (body.get("response_format") or {}).get("json_schema", {}).get("schema")
            text = json.dumps(fitting(form)) if form else f"{word} {said[:40]}"
            message: dict[str, object] = {"role": "assistant", "content": text}
            asked = agent_calls(body["messages"]) if body.get("tools") else []
            if asked:
                functions = [{"id": id, "type": "function", "function": {"name": "look", "arguments": json.dumps({"key": key})}} for id, key in asked]
                message = {"role": "assistant", "content": None, "tool_calls": functions}
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if asked else "stop"}
            usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
            response = web.json_response({"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage})
        self.calls.append((began, time.monotonic(), response.status, task, step))
        return response

    def _refusal(self, now: float) -> web.Response | None:
        if self.per_second:
            # as gateways do: a token bucket that holds one second's worth
            self.level, self.filled = min(self.per_second, self.level + (now - self.filled) * self.per_second), now
            if self.level < 1:
                return web.json_response({"error": {"message": "too many requests"}}, status=429, headers={"Retry-After": "1"})
            self.level -= 1
        drawn = self.chance.random()
        if drawn < self.busy:
            return web.json_response({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "0.5"})
        if drawn < self.busy + self.broken:
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return None

    async def journal(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.calls, self.asked = [], set()
        return web.json_response(self.calls)


async def _serve(arguments: argparse.Namespace) -> None:
    slow = frozenset(map(int, filter(None, arguments.slow.split(","))))
    server = _Server(Latency(arguments.latency, slow), arguments.per_second, arguments.busy, arguments.broken)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_route("*", "/journal", server.journal)
    app.router.add_get("/v1/models", lambda request: web.json_response({"object": "list", "data": []}))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", arguments.port, backlog=1024).start()
    host, port = runner.addresses[0][:2]
    # a full collection of all that is imported would be a pause of 20 ms, which is none of the tools'
    gc.freeze()
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", choices=["fixed", "lognormal", "zero"], default="fixed")
    parser.add_argument("--slow", default="", help="comma-separated numbers of the tasks that take 20 times as long")
    parser.add_argument("--per-second", type=float, default=0, help="answer 429 beyond this many calls per second, with a burst of one second's worth")
    parser.add_argument("--busy", type=float, default=0, help="share of calls answered 429")
    parser.add_argument("--broken", type=float, default=0, help="share of calls answered 500")
    asyncio.run(_serve(parser.parse_args()))
