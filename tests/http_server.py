"""An HTTP server on a thread of this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_COUNTING = threading.Lock()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1_000
    connections = 0
    """How many are open, accepted in the order in which they were made."""

    def process_request(self, *arguments: Any) -> None:
        """Count it before the next is accepted."""
        with _COUNTING:
            self.connections += 1
        super().process_request(*arguments)

    def shutdown_request(self, *arguments: Any) -> None:
        """All that came by it is read."""
        super().shutdown_request(*arguments)
        with _COUNTING:
            self.connections -= 1

    def handle_error(self, *arguments: Any) -> None:
        """Print nothing: clients that hang up are part of the tests."""


class QuietHandler(BaseHTTPRequestHandler):
    """A request handler that logs nothing."""

    server: _Server

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port until the block ends; yields the URL, without a path."""
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
