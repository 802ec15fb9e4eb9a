"""
Run MLflow calls in a worker process and kill it when MLflow stops answering.

A thread could not be killed, and with its default settings MLflow blocks for four minutes per
call to an unreachable server. The worker sends a heartbeat whenever MLflow answered; the time
limit applies between two heartbeats, not to the whole job.
"""

import json
import logging
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, TypedDict

from beam_ray.define.fingerprint import Json
from beam_ray.errors import TrackingUnavailable
from beam_ray.tracking.location import shown

PATIENCE_S = 25.0
"""Seconds without a heartbeat after which the worker is killed; together with its start, less than 30."""

_START_S = 120.0
"""Seconds for the worker to start Python and import mlflow, which does not depend on the server."""

_SLOW_S = 5.0

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Environment that keeps mlflow from writing to the terminal and from sending telemetry."""

# Four retries after 0, 2, 4 and 8 s: enough for a server that is restarting.
_PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}

Heartbeat = Callable[[str], None]
"""Called whenever MLflow answered, with what it was asked."""

_log = logging.getLogger("beam_ray")


class WorkerMessage(TypedDict, total=False):
    """A line of the worker process: ``at`` whenever MLflow answered, finally ``result``, or ``failed`` with its ``trace``."""

    at: str
    result: Json
    failed: str
    trace: str


def run_worker(write_job: Callable[[Path], None], *, uri: str, retry: str, patience_s: float, failed: str = "not logged to MLflow") -> Any:
    """
    Run the job that *write_job* writes into a folder, and return its result.

    Args:
        retry: What the error tells the user to do.
        failed: What did not happen, as the error begins.

    Raises:
        TrackingUnavailable: The job failed, or MLflow did not answer for *patience_s* seconds.
    """
    if not uri:
        raise _unavailable("a store on S3 has no local MLflow database; set MLFLOW_TRACKING_URI to the address of a server", retry, failed)
    with tempfile.TemporaryDirectory(prefix="beam-ray-mlflow-") as name:
        folder = Path(name)
        write_job(folder)
        with (folder / "stderr").open("wb") as errors:
            process = _start(folder, uri, errors)
        try:
            result = _follow(process, uri, patience_s)
        except _WorkerFailed as error:
            _log.debug("Output of the MLflow worker:\n%s%s", error.trace, (folder / "stderr").read_text(errors="replace"))
            raise _unavailable(str(error), retry, failed) from None
        finally:
            process.kill()
            process.wait()
    return result


class _WorkerFailed(Exception):
    def __init__(self, message: str, trace: str = ""):
        self.trace = trace
        super().__init__(message)


def _unavailable(why: str, retry: str, failed: str) -> TrackingUnavailable:
    return TrackingUnavailable(f"{failed}: {why}; {retry}")


def _start(folder: Path, uri: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")}
    # Parts of mlflow read the URI from the environment, whatever URI the client was given.
    here = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    command = [sys.executable, "-m", "beam_ray.tracking.worker", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=inherited | QUIET | _PATIENT | here)


def _follow(process: subprocess.Popen[bytes], uri: str, patience_s: float) -> Any:
    messages: queue.Queue[WorkerMessage | None] = queue.Queue()
    threading.Thread(target=_listen, args=(process, messages), daemon=True).start()
    notice = _MigrationNotice(uri)
    allowed, last = _START_S, time.monotonic()
    while True:
        try:
            message = messages.get(timeout=max(allowed - (time.monotonic() - last), 0.0))
        except queue.Empty:
            raise _WorkerFailed(f"{shown(uri)} did not answer for {allowed:.0f} s") from None
        last = time.monotonic()
        if message is None:
            raise _WorkerFailed(f"the MLflow worker process exited with code {process.wait()}")
        if "failed" in message:
            raise _WorkerFailed(message["failed"], message["trace"])
        if "result" in message:
            return message["result"]
        allowed = _START_S if message["at"] == "start" else patience_s
        notice.saw(message["at"])


def _listen(process: subprocess.Popen[bytes], messages: "queue.Queue[WorkerMessage | None]") -> None:
    for message in _messages(process.stdout):
        messages.put(message)
    messages.put(None)


def _messages(stream: IO[bytes] | None) -> Iterator[WorkerMessage]:
    for line in stream or ():
        yield json.loads(line)


class _MigrationNotice:
    """Logs once that MLflow's database is being created, when that takes long."""

    def __init__(self, uri: str):
        self.uri = uri
        self.since: float | None = None
        self.logged = False

    def saw(self, at: str) -> None:
        if at != "migration":
            return
        self.since = self.since or time.monotonic()
        if not self.logged and time.monotonic() - self.since > _SLOW_S:
            self.logged = True
            _log.info("creating the MLflow database in %s; this happens only once", shown(self.uri))
