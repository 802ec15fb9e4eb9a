"""A proxy before an S3 server that injects faults of networks and servers, at random with a seed or as configured."""

import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from tests.http_server import QuietHandler, serving

FAULTS = ("500", "503", "slow", "reset", "reply lost", "body cut", "409")
HANGS = {
    "silence": "the request is taken, and nothing is done with it",
    "no reply": "it is done, and nothing is said",
    "half a reply": "it is done, and in the middle of the answer nothing more comes",
}
"""Faults that happen only where they are requested: each lasts until the client gives up."""
SLOW_S = 0.02


@dataclass
class Proxy:
    """Address, rate of faults, and what was done."""

    url: str = ""
    rate: float = 0.0
    refuse: tuple[int, str] | None = None
    """A status and a code with which every request is answered."""
    lacks: str = ""
    """A method that the server does not have."""
    befalls: Iterator[str] = field(default_factory=lambda: iter(()))
    """Faults of the next requests, one by one; random faults follow."""
    careless: bool = False
    """Whether it forgets the condition of conditional writes, as old servers did."""
    chance: random.Random = field(default_factory=lambda: random.Random(5))
    done: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fault(self) -> str:
        """What becomes of the next request; nothing when it is spared."""
        with self.lock:
            word = next(self.befalls, None) or (self.chance.choice(FAULTS) if self.chance.random() < self.rate else "")
            self.done[word] += 1
            return word


@contextmanager
def proxy(server: str, key: str, secret: str) -> Iterator[Proxy]:
    """Forward requests to *server* while the block runs."""
    state, target = Proxy(), urlsplit(server)

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if state.refuse:
                return self._say(*state.refuse)
            if self.command == state.lacks:
                return self._say(501, "NotImplemented")
            fault = state.fault()
            if fault == "slow":
                time.sleep(SLOW_S)
            elif fault in ("500", "503"):
                return self._say(int(fault), {"500": "InternalError", "503": "SlowDown"}[fault])
            elif fault == "409" and self.command == "PUT":
                return self._say(409, "ConditionalRequestConflict")
            elif fault == "reset":
                return self._hang_up()
            elif fault == "silence":
                return self._wait()
            status, headers, answer = self._forward(body)
            if fault == "reply lost":
                return self._hang_up()
            elif fault == "no reply":
                return self._wait()
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                    self.send_header(name, value)
            length = next((value for name, value in headers if name.lower() == "content-length"), None) if self.command == "HEAD" else str(len(answer))
            if length is not None:
                self.send_header("Content-Length", length)
            self.end_headers()
            if fault == "body cut" and answer:
                self.wfile.write(answer[: len(answer) // 2])
                return self._hang_up()
            if fault == "half a reply":
                self.wfile.write(answer[: len(answer) // 2])
                return self._wait()
            self.wfile.write(answer)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _any

        def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "expect"}
            if state.careless and headers.pop("If-None-Match", None):
                headers = _signed(self.command, f"http://{headers['Host']}{self.path}", headers, body, key, secret)
            connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
            try:
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                return answer.status, answer.getheaders(), answer.read()
            finally:
                connection.close()

        def _say(self, status: int, code: str) -> None:
            answer = b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>said by the proxy</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def _wait(self) -> None:
            # the other side closes its end when it has had enough
            self.wfile.flush()
            self.close_connection = True
            self.rfile.read(1)

        def _hang_up(self) -> None:
            self.close_connection = True
            self.wfile.flush()

    with serving(Handler) as url:
        state.url = url
        yield state


def _signed(method: str, url: str, headers: dict[str, str], body: bytes, key: str, secret: str) -> dict[str, str]:
    """The headers with a signature that fits them, since a header that was signed was taken away."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    left = {name: value for name, value in headers.items() if name.lower() not in ("authorization", "x-amz-date", "x-amz-content-sha256")}
    request = AWSRequest(method=method, url=url, data=body, headers=left)
    S3SigV4Auth(Credentials(key, secret), "s3", "us-east-1").add_auth(request)
    return dict(request.headers.items())
