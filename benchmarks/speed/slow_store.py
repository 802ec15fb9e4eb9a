"""
A store on S3 as people have it: a real server, behind a proxy that delays each request.

    python -m benchmarks.speed.slow_store http://127.0.0.1:8333 --delay 0.03

``GET /journal`` lists when each request came and was answered, its method and its key; ``POST /journal`` clears the list.
"""

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from aiohttp import web
from yarl import URL

from benchmarks.speed.endpoint import ROOT
from tests.s3 import KEY, SECRET, serving_s3

DELAY_S = 0.03


@dataclass(frozen=True)
class StoreRequest:
    """A request to the store; times are seconds on the proxy's clock."""

    began: float
    ended: float
    method: str
    key: str


@dataclass(frozen=True)
class SlowStore:
    """A store whose requests are delayed."""

    url: str
    server: str
    """The address of the server itself, without delay and journal."""
    environment: dict[str, str]
    """What leads a process to it."""

    def forget(self) -> None:
        """Clear the journal."""
        self._ask("POST")

    def requests(self) -> list[StoreRequest]:
        """Every request in the journal, in the order in which they were answered."""
        return [StoreRequest(*entry) for entry in self._ask("GET")]

    def _ask(self, method: str) -> list[tuple[float, float, str, str]]:
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/journal", method=method), timeout=60) as answer:
            return list(json.loads(answer.read()))


@contextlib.contextmanager
def slow_store(delay_s: float = DELAY_S) -> Iterator[SlowStore]:
    """A store on S3 while the block runs, with a bucket ``beam``."""
    with tempfile.TemporaryDirectory() as folder, serving_s3(Path(folder)) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.slow_store", server, "--delay", str(delay_s)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        try:
            assert process.stdout
            url = process.stdout.readline().strip()
            yield SlowStore(
                url, server, {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
            )
        finally:
            process.terminate()
            process.wait()


async def _serve(server: str, delay_s: float) -> None:
    journal: list[tuple[float, float, str, str]] = []
    client = aiohttp.ClientSession(auto_decompress=False, connector=aiohttp.TCPConnector(limit=0))

    async def forward(request: web.Request) -> web.Response:
        began, body = time.monotonic(), await request.read()
        await asyncio.sleep(delay_s)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in ("expect", "connection")}
        async with client.request(request.method, URL(server + request.raw_path, encoded=True), data=body or None, headers=headers) as answer:
            said = await answer.read()
        left = ("transfer-encoding", "connection", "content-length", "date")
        response = web.Response(status=answer.status, body=said, headers={name: value for name, value in answer.headers.items() if name.lower() not in left})
        if "Date" in answer.headers:
            response.headers["Date"] = answer.headers["Date"]
        if request.method == "HEAD":
            response.headers["Content-Length"] = answer.headers.get("Content-Length", "0")
        journal.append((began, time.monotonic(), request.method, request.raw_path))
        return response

    async def entries(request: web.Request) -> web.Response:
        said = list(journal)
        if request.method == "POST":
            journal.clear()
        return web.json_response(said)

    app = web.Application(client_max_size=1_000_000_000)
    app.router.add_route("*", "/journal", entries)
    app.router.add_route("*", "/{key:.*}", forward)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    host, port = runner.addresses[0][:2]
    sys.stdout.write(f"http://{host}:{port}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("server")
    parser.add_argument("--delay", type=float, default=DELAY_S)
    arguments = parser.parse_args()
    asyncio.run(_serve(arguments.server, arguments.delay))
