"""
Serve MLflow's UI over a local database, small and closed.

By default MLflow starts 15 processes that take 3 GB and accepts any host name. Here: one worker,
no background jobs, explicit allowed hosts, no telemetry.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from beam_ray.errors import Stopped, Unusable
from beam_ray.tracking.location import HOST, PORT, artifacts, is_server, prepare, shown
from beam_ray.tracking.watchdog import QUIET

_READY_S = 180.0
_SAFE = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}


def serve(uri: str, host: str = HOST, port: int = PORT, *, ready: Callable[[str], None] | None = None) -> int:
    """
    Serve the database at *uri* until interrupted; returns the server's exit code.

    Args:
        host: The address to listen on. Other machines can connect only if it is one that they
            reach, and only under that name.
        ready: Called with the URL once the UI can be opened.

    Raises:
        Unusable: *uri* is a server itself, or the port is in use.
        Stopped: the server ended before it was ready.
    """
    if is_server(uri):
        raise Unusable(f"MLFLOW_TRACKING_URI is a server already; open {shown(uri)}")
    if not uri:
        raise Unusable("a store on S3 has no local MLflow database\n  set MLFLOW_TRACKING_URI to the address of an MLflow server")
    _refuse_if_taken(host, port)
    prepare(uri)
    words = Path(artifacts(uri)).parent / "mlflow-server.log"
    with words.open("wb") as output, _stopped_by_sigterm():
        # A process group of its own, so that no worker process outlives us.
        process = subprocess.Popen(
            _command(uri, host, port), env=os.environ | QUIET | _SAFE, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait_until_ready(process, host, port, words)
            if ready is not None:
                ready(f"http://{host}:{port}")
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            _end(process)


def _command(uri: str, host: str, port: int) -> list[str]:
    names = list(dict.fromkeys([f"{host}:{port}", f"127.0.0.1:{port}", f"localhost:{port}"]))
    options = {
        "--backend-store-uri": uri,
        "--artifacts-destination": artifacts(uri),
        "--host": host,
        "--port": str(port),
        "--workers": "1",
        "--allowed-hosts": ",".join(names),
        "--cors-allowed-origins": ",".join(f"http://{name}" for name in names),
        "--uvicorn-opts": "--log-level warning",
    }
    return [sys.executable, "-m", "mlflow", "server", *(word for option in options.items() for word in option)]


def _refuse_if_taken(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unusable(f"{host}:{port} cannot be used ({error.strerror})\n  choose another port with --port") from None


def _wait_until_ready(process: "subprocess.Popen[bytes]", host: str, port: int, words: Path) -> None:
    end = time.monotonic() + _READY_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise Stopped(f"MLflow exited with code {process.returncode} before it was ready; see its log: {words}")
        try:
            with urllib.request.urlopen(f"http://{'127.0.0.1' if host == '0.0.0.0' else host}:{port}/health", timeout=3):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise Stopped(f"MLflow was not ready within {_READY_S:.0f} s")


@contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """Stop the server on SIGTERM as on Ctrl-C; signal handlers can be set in the main thread only."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            continue
