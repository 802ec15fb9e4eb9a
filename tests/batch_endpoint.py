"""An OpenAI-compatible endpoint with files and batches: every state, limits, errors per row, expiry, and replies that are lost."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qs, urlparse

from tests.endpoint import Call, choice_of
from tests.http_server import QuietHandler, serving

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


@dataclass
class Batch:
    """One batch, as the endpoint has it."""

    id: str
    file: str
    endpoint: str
    metadata: dict[str, str]
    created_at: int
    lines: list[dict[str, Any]]
    window_s: int = 86_400
    status: str = "validating"
    polls: int = 0
    output: str | None = None
    errors: str | None = None
    done: int = 0
    failed: int = 0
    faults: list[dict[str, Any]] = field(default_factory=list)

    def shown(self) -> dict[str, Any]:
        """The batch as the API gives it."""
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "input_file_id": self.file,
            "completion_window": "24h",
            "status": self.status,
            "output_file_id": self.output,
            "error_file_id": self.errors,
            "created_at": self.created_at,
            "expires_at": self.created_at + self.window_s,
            "request_counts": {"total": len(self.lines), "completed": self.done, "failed": self.failed},
            "errors": {"object": "list", "data": self.faults} if self.faults else None,
            "metadata": self.metadata,
        }


@dataclass
class BatchServer:
    """Where it answers, how it behaves, and what was asked of it."""

    answer: Callable[[dict[str, Any]], Any] = lambda body: "yes"
    """Gives a text, a value sent as JSON text, or (status, headers, body)."""
    url: str = ""
    polls: int = 1
    """Looks at a batch before it is completed."""
    max_rows: int = 50_000
    queue: int = 10**9
    """Rows that may wait at once; a batch beyond it fails with token_limit_exceeded."""
    skips: Callable[[dict[str, Any], int], bool] = lambda line, times: False
    """Whether a row, in its n-th batch, is left unanswered, so that its batch expires."""
    loses: Callable[[str, int], bool] = lambda call, times: False
    """Whether the reply to the n-th upload, create, list, get or content is lost after it was done."""
    refuses: Callable[[str, int], int] = lambda call, times: 0
    """The status with which a call is refused, or 0."""
    journal: list[Call] = field(default_factory=list)
    """Interactive calls."""
    files: dict[str, bytes] = field(default_factory=dict)
    batches: list[Batch] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    """How often each call was made."""
    rows: Counter[str] = field(default_factory=Counter)
    """Custom id, with its run, to how often it was answered."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def submitted(self) -> Counter[str]:
        """Mark of a batch to how often it was created."""
        return Counter(batch.metadata.get("beam_ray", "") for batch in self.batches if batch.status != "cancelled")

    # -- what it does -----------------------------------------------------------------------

    def upload(self, body: bytes) -> tuple[int, Any]:
        """Keep a file."""
        number = f"file-{len(self.files)}"
        self.files[number] = body
        return 200, {"id": number, "object": "file", "bytes": len(body), "created_at": int(time.time()), "filename": "x.jsonl", "purpose": "batch"}

    def create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        """Create a batch."""
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]].splitlines()]
        batch = Batch(f"batch-{len(self.batches)}", asked["input_file_id"], asked["endpoint"], asked.get("metadata") or {}, int(time.time()), lines)
        waiting = sum(len(other.lines) for other in self.batches if other.status in ("validating", "in_progress", "finalizing"))
        self.batches.append(batch)
        wrong = self._wrong(lines, asked["endpoint"])
        if wrong:
            batch.faults = [{"code": "invalid_request", "message": wrong, "line": 1, "param": None}]
        elif waiting + len(lines) > self.queue:
            batch.faults = [{"code": "token_limit_exceeded", "message": "Enqueued token limit reached", "line": None, "param": None}]
        return 200, batch.shown()

    def _wrong(self, lines: list[dict[str, Any]], url: str) -> str:
        names = [line["custom_id"] for line in lines]
        if len(lines) > self.max_rows:
            return f"the batch has more than {self.max_rows} lines"
        if len(set(names)) < len(names) or max(map(len, names)) > 64:
            return "custom ids must be unique and at most 64 characters"
        if any(line["url"] != url or line["method"] != "POST" for line in lines) or len({line["body"]["model"] for line in lines}) > 1:
            return "all lines must be for one address and one model"
        return ""

    def get(self, batch: Batch) -> tuple[int, Any]:
        """A look at a batch, which brings it further."""
        batch.polls += 1
        if batch.status == "cancelling":
            self._end(batch, "cancelled", [])
        elif batch.faults:
            batch.status = "failed"
        elif batch.status in ("validating", "in_progress", "finalizing"):
            batch.status = "in_progress" if batch.polls <= self.polls else "finalizing" if batch.status == "validating" else batch.status
            if batch.polls > self.polls:
                self._end(batch, "completed", batch.lines)
        return 200, batch.shown()

    def _end(self, batch: Batch, status: str, lines: list[dict[str, Any]]) -> None:
        run = batch.metadata.get("beam_ray", "").partition("/")[0]
        out, bad = [], []
        for line in reversed(lines):  # in another order than they came
            name = f"{run} {line['custom_id']}"
            self.counts[f"row {name}"] += 1
            if self.skips(line, self.counts[f"row {name}"]):
                status = "expired"
                bad.append({"custom_id": line["custom_id"], "response": None, "error": {"code": "batch_expired", "message": "expired"}})
                continue
            said = self.answer(line["body"])
            if isinstance(said, tuple):
                code, _, body = said
            else:
                code, body = 200, (response if batch.endpoint == "/v1/responses" else completion)(said)
                self.rows[name] += 1
            found = {"custom_id": line["custom_id"], "response": {"status_code": code, "request_id": "r", "body": body}, "error": None}
            (out if code == 200 else bad).append(found)
        batch.status, batch.done, batch.failed = status, len(out), len(bad)
        for name, written in (("output", out), ("errors", bad)):
            if written:
                self.files[f"{batch.id}-{name}"] = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in written).encode()
                setattr(batch, name, f"{batch.id}-{name}")

    def listed(self, query: dict[str, list[str]]) -> tuple[int, Any]:
        """The batches, the newest first."""
        newest = list(reversed(self.batches))
        after = query.get("after", [""])[0]
        start = next((index + 1 for index, batch in enumerate(newest) if batch.id == after), 0)
        page = newest[start : start + 3]
        return 200, {"object": "list", "data": [batch.shown() for batch in page], "has_more": start + 3 < len(newest)}


def completion(said: Any) -> dict[str, Any]:
    """A chat completion that says it."""
    text = said if isinstance(said, str) else json.dumps(said)
    return {"id": "x", "object": "chat.completion", "choices": [choice_of(content=text)], "usage": USAGE}


def response(said: Any) -> dict[str, Any]:
    """A reply of the Responses API that says it."""
    text = said if isinstance(said, str) else json.dumps(said)
    items = [{"type": "message", "content": [{"type": "output_text", "text": text}]}]
    return {"id": "x", "status": "completed", "output": items, "usage": {"input_tokens": 10, "output_tokens": 5}}


@contextmanager
def batch_endpoint(answer: Callable[[dict[str, Any]], Any], **behaviour: Any) -> Iterator[BatchServer]:
    """Serve until left."""
    state = BatchServer(answer, **behaviour)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            address = urlparse(self.path)
            parts = address.path.removeprefix("/v1/").split("/")
            if parts[0] == "batches" and len(parts) == 1:
                self._do("list", lambda: state.listed(parse_qs(address.query)))
            elif parts[0] == "batches":
                self._do("get", lambda: state.get(next(batch for batch in state.batches if batch.id == parts[1])))
            elif parts[0] == "files":
                self._do("content", lambda: (200, state.files[parts[1]]))
            else:
                self._send(200, {"object": "list", "data": []})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers["Content-Length"]))
            parts = urlparse(self.path).path.removeprefix("/v1/").split("/")
            if parts[0] == "files":
                message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + raw)
                body = next(part.get_payload(decode=True) for part in message.iter_parts() if part.get_filename())
                self._do("upload", lambda: state.upload(body))
            elif parts[0] == "batches" and len(parts) == 3:
                batch = next(batch for batch in state.batches if batch.id == parts[1])
                batch.status = "cancelling"
                self._do("cancel", lambda: (200, batch.shown()))
            elif parts[0] == "batches":
                self._do("create", lambda: state.create(json.loads(raw)))
            else:
                self._ask(json.loads(raw))

        def _ask(self, body: dict[str, Any]) -> None:
            call = Call(body, time.time())
            with state.lock:
                state.journal.append(call)
            said = state.answer(body)
            status, sent = (said[0], said[2]) if isinstance(said, tuple) else (200, completion(said))
            call.status, call.ended = status, time.time()
            self._send(status, sent)

        def _do(self, call: str, act: Callable[[], tuple[int, Any]]) -> None:
            with state.lock:
                state.counts[call] += 1
                times = state.counts[call]
                refused = state.refuses(call, times)
                status, sent = (refused, {"error": {"message": "not now", "code": None}}) if refused else act()
                lost = state.loses(call, times)
            if lost:
                with suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self._send(status, sent)

        def _send(self, status: int, body: Any) -> None:
            raw = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            with suppress(ConnectionError):
                self.wfile.write(raw)

    with serving(Handler) as url:
        state.url = f"{url}/v1"
        yield state
