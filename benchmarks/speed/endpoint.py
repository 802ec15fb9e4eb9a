"""
A model endpoint whose speed is known: each call's latency is drawn from its own prompt.

    python -m benchmarks.speed.endpoint --port 0 --latency lognormal

Prompts are ``task N step M …``; the same prompt always takes as long, so that everybody who
asks the same has the same ideal time. ``GET /journal`` tells how many calls came, when the
first and the last answer left, and how many were refused; ``POST /journal`` forgets it.
"""

import argparse
import asyncio
import hashlib
import json
import math
import random
import re
import sys
import time

from aiohttp import web

MEDIAN_S = 0.2
SIGMA = 0.8


def latency_of(prompt: str, shape: str) -> float:
    """Seconds that the call takes; *shape* is fixed, lognormal or zero."""
    if shape == "zero":
        return 0.0
    if shape == "fixed":
        return MEDIAN_S
    match = re.search(r"task (\d+) step (\d+)", prompt)
    name = f"{match[1]}/{match[2]}" if match else prompt
    drawn = random.Random(int(hashlib.sha256(name.encode()).hexdigest()[:12], 16))
    return MEDIAN_S * math.exp(drawn.gauss(0, SIGMA))


def ideal_s(tasks: int, steps: int, shape: str, concurrency: int) -> float:
    """What nobody can beat: the longest task, or all latency spread over the calls allowed at once."""
    per_task = [sum(latency_of(f"task {task} step {step}", shape) for step in range(1, steps + 1)) for task in range(tasks)]
    return max(max(per_task, default=0.0), sum(per_task) / concurrency)


class Server:
    """The endpoint and its journal."""

    def __init__(self, shape: str, per_second: float, busy: float, broken: float):
        self.shape, self.per_second, self.busy, self.broken = shape, per_second, busy, broken
        self.chance = random.Random(1)
        self.forget()

    def forget(self) -> None:
        self.calls = self.refused = self.at_once = self.most = 0
        self.first = self.last = 0.0
        self.admitted: list[float] = []

    async def answer(self, request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        now = time.monotonic()
        self.calls += 1
        self.first = self.first or now
        if refused := self._refusal(now):
            self.refused += refused.status == 429
            return refused
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        said = body["messages"][-1]["content"]
        wait = latency_of(said, self.shape)
        if wait:
            await asyncio.sleep(wait)
        self.at_once -= 1
        self.last = time.monotonic()
        choice = {"index": 0, "message": {"role": "assistant", "content": f"ok {said[:40]}"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 30}
        return web.json_response({"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage})

    def _refusal(self, now: float) -> web.Response | None:
        if self.per_second:
            self.admitted = [each for each in self.admitted if now - each < 1]
            if len(self.admitted) >= self.per_second:
                return web.json_response({"error": {"message": "too many requests"}}, status=429, headers={"Retry-After": "1"})
            self.admitted.append(now)
        drawn = self.chance.random()
        if drawn < self.busy:
            return web.json_response({"error": {"message": "busy"}}, status=429, headers={"Retry-After": "0.5"})
        if drawn < self.busy + self.broken:
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return None

    async def journal(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.forget()
        return web.json_response({"calls": self.calls, "refused": self.refused, "most": self.most, "span_s": self.last - self.first})


async def serve(arguments: argparse.Namespace) -> None:
    """Serve until ended; the first line printed is the address."""
    server = Server(arguments.latency, arguments.per_second, arguments.busy, arguments.broken)
    app = web.Application()
    app.router.add_post("/v1/chat/completions", server.answer)
    app.router.add_route("*", "/journal", server.journal)
    app.router.add_get("/v1/models", lambda request: web.json_response({"object": "list", "data": []}))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", arguments.port, backlog=1024)
    await site.start()
    host, port = runner.addresses[0][:2]
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--latency", choices=["fixed", "lognormal", "zero"], default="fixed")
    parser.add_argument("--per-second", type=float, default=0, help="answer 429 beyond so many calls a second")
    parser.add_argument("--busy", type=float, default=0, help="share of calls answered 429")
    parser.add_argument("--broken", type=float, default=0, help="share of calls answered 500")
    asyncio.run(serve(parser.parse_args()))
