"""A small OpenAI-compatible endpoint that answers from a function and keeps a journal."""

import json
import socket
import struct
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.http_server import QuietHandler, serving


@dataclass
class Call:
    """One request as the endpoint saw it, with when it came and when it was answered."""

    body: dict[str, Any]
    began: float
    ended: float = 0.0
    status: int = 0
    key: str = ""
    """The header Authorization."""
    port: int = 0
    """The caller's, which tells its connections apart."""

    @property
    def said(self) -> str:
        """The last user turn."""
        return str(self.body["messages"][-1]["content"])


@dataclass
class Endpoint:
    """Where it answers, and what it was asked."""

    url: str = ""
    answer: Callable[[dict[str, Any]], Any] = lambda body: "yes"
    latency_s: float = 0.0
    journal: list[Call] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def settle(self, seconds: float = 1.0) -> None:
        """Wait until all is in the journal that processes asked which are dead: they are no longer connected."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with urllib.request.urlopen(f"{self.url}/connections", timeout=30) as reply:
                if json.load(reply)["open"] == 1:
                    return
            time.sleep(0.01)

    @property
    def answered(self) -> list[Call]:
        """The calls that got a whole answer."""
        return [call for call in self.journal if call.ended and call.status == 200]


@contextmanager
def endpoint(answer: Callable[[dict[str, Any]], Any], *, latency_s: float = 0.0) -> Iterator[Endpoint]:
    """
    Serve ``answer(body)`` until left.

    The function gives a text, a value sent as JSON text, (status, headers, body) as they are, or
    a function that is given the connection and does with it what it likes.
    """
    state = Endpoint(answer=answer, latency_s=latency_s)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._send(200, {}, {"open": self.server.connections} if self.path.endswith("/connections") else {"object": "list", "data": []})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            call = Call(body, time.time(), key=self.headers.get("Authorization", ""), port=self.client_address[1])
            with state.lock:
                state.journal.append(call)
            if state.latency_s:
                time.sleep(state.latency_s)
            said = state.answer(body)
            if callable(said):
                with suppress(OSError):
                    said(self)
                call.ended, self.close_connection = time.time(), True
                return
            if not isinstance(said, tuple):
                text = said if isinstance(said, str) else json.dumps(said)
                usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
                said = 200, {}, {"id": "x", "object": "chat.completion", "choices": [choice_of(content=text)], "usage": usage}
            # before the answer is on its way: who has it may ask the next
            call.status, call.ended = said[0], time.time()
            self._send(*said)

        def _send(self, status: int, headers: dict[str, str], body: Any) -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", "Content-Length": str(len(raw)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            try:
                self.wfile.write(raw)
            except ConnectionError:
                pass

    with serving(Handler) as url:
        state.url = f"{url}/v1"
        yield state


@dataclass
class Picky:
    """
    The answers of an endpoint that takes some parameters, refuses others by name, and ignores the rest.

    It knows chat completions and responses, tells usage or not, thinks first or not, and follows a
    schema where it is asked for in a way that binds it.
    """

    api: str = "chat"
    limit: str = "max_tokens"
    """The one name of the output limit that it takes."""
    refuses: tuple[str, ...] = ()
    """Parameters that it refuses."""
    binds: tuple[str, ...] = ("json_schema",)
    """Of json_schema, json_object and tools, those that make it follow the schema."""
    refuses_formats: tuple[str, ...] = ()
    """Of json_schema, json_object and tools, those that it refuses."""
    seeds: str = "works"
    """works, or random: every answer is another one, or fixed: every answer is the same."""
    usage: bool = True
    thinks: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    count: int = 0

    def __call__(self, body: dict[str, Any]) -> Any:
        """The reply to *body*."""
        self.count += 1
        if ("input" if self.api == "responses" else "messages") not in body:
            return 404, {}, {"error": {"message": "Not found", "code": None, "param": None}}
        limits = {"max_tokens", "max_completion_tokens"} & set(body) if self.api == "chat" else set()
        for name in [*self.refuses, *(limits - {self.limit})]:
            if name in body:
                return refused(name)
        asked = self._format(body)
        if asked in self.refuses_formats:
            return refused("tools" if asked == "tools" else "response_format", "This response_format type is unavailable now")
        text = self._text(body, asked)
        if self.api == "responses":
            items = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
            return 200, self.headers, {"status": "completed", "output": items, **({"usage": {"input_tokens": 10, "output_tokens": 5}} if self.usage else {})}
        message: dict[str, Any] = {"content": text}
        if asked == "tools":
            message = {"content": None, "tool_calls": [{"type": "function", "function": {"name": body["tools"][0]["function"]["name"], "arguments": text}}]}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, **({"completion_tokens_details": {"reasoning_tokens": 3}} if self.thinks else {})}
        if self.thinks:
            message["reasoning_content"] = "hm"
        return 200, self.headers, {"choices": [choice_of(**message)], **({"usage": usage} if self.usage else {})}

    def _format(self, body: dict[str, Any]) -> str:
        written = body.get("response_format") or (body.get("text") or {}).get("format")
        return "tools" if "tools" in body else written["type"] if written else ""

    def _text(self, body: dict[str, Any], asked: str) -> str:
        if asked in self.binds:
            return '{"city": "Rome", "count": 1}'
        if "random number" in json.dumps(body):
            return {"random": str(self.count), "fixed": "42"}.get(self.seeds, str(body.get("seed", self.count)))
        return "hello"


def refused(name: str, message: str = "") -> Any:
    """The reply of an endpoint that does not take a parameter."""
    said = message or f"Unsupported parameter: '{name}' is not supported with this model."
    return 400, {}, {"error": {"message": said, "type": "invalid_request_error", "code": "unsupported_parameter", "param": name}}


def choice_of(finish: str = "stop", **message: Any) -> dict[str, Any]:
    """One choice of a chat completion."""
    return {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}


def reset(handler: BaseHTTPRequestHandler) -> None:
    """Send half a reply, and break the connection."""
    handler.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{"choices": [{"mess')
    handler.wfile.flush()
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def endless(handler: BaseHTTPRequestHandler, status: int = 200, pause_s: float = 0.0, piece: bytes = b"x" * 65_536) -> None:
    """Send pieces until the other side has had enough."""
    handler.wfile.write(b"HTTP/1.1 %d Well\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" % status)
    while True:
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
        time.sleep(pause_s)
