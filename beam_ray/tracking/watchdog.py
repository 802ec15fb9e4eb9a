"""
A bound on what MLflow may cost: its work is done by a child that is ended when nothing moves.

A thread could not be ended, and MLflow's own waiting adds up: a single call to a server
that is away blocks for four minutes with its default settings. The child says so whenever
MLflow has answered; what counts is the silence between two answers, not the whole.
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
from typing import IO, Any

from beam_ray.errors import TrackingUnavailable
from beam_ray.tracking.location import shown

PATIENCE_S = 25.0
"""Seconds without an answer after which MLflow is given up; with the start of the child, less than 30."""

_START_S = 120.0
"""Seconds in which Python must have started and imported mlflow, which is no fault of any server."""

_SLOW_S = 5.0

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_CONFIGURE_LOGGING": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_MODEL_CATALOG_URI": "",
    "GIT_PYTHON_REFRESH": "quiet",
}
"""Settings under which mlflow neither talks to the terminal nor to anybody else."""

# Four tries with waits of 0, 2, 4 and 8 s: a server that is being restarted is back by then.
_PATIENT = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "4", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}

_log = logging.getLogger("beam_ray")


def in_child(hand_over: Callable[[Path], None], *, uri: str, sync: str, patience_s: float) -> Any:
    """
    What the work that *hand_over* lays down in a folder comes to.

    Raises:
        TrackingUnavailable: it failed, or nothing moved for *patience_s* seconds.
    """
    if not uri:
        raise _unavailable("no MLflow is named, and a store on S3 has no disk for its database; set MLFLOW_TRACKING_URI", sync)
    with tempfile.TemporaryDirectory(prefix="beam-ray-mlflow-") as name:
        folder = Path(name)
        hand_over(folder)
        with (folder / "stderr").open("wb") as errors:
            process = _start(folder, uri, errors)
        try:
            result = _follow(process, uri, patience_s)
        except _GaveUp as error:
            _log.debug("MLflow's last words:\n%s%s", error.trace, (folder / "stderr").read_text(errors="replace"))
            raise _unavailable(str(error), sync) from None
        finally:
            process.kill()
            process.wait()
    return result


class _GaveUp(Exception):
    def __init__(self, message: str, trace: str = ""):
        self.trace = trace
        super().__init__(message)


def _unavailable(why: str, sync: str) -> TrackingUnavailable:
    later = f"the results are in the store, tell it later with  beam-ray mlflow-sync {sync}" if sync else "the version is published all the same"
    return TrackingUnavailable(f"MLflow was not told: {why}; {later}")


def _start(folder: Path, uri: str, errors: IO[bytes]) -> subprocess.Popen[bytes]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID", "MLFLOW_RUN_ID")}
    # Parts of mlflow ask the environment where they are, whatever a client was given.
    here = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_REGISTRY_URI": uri, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    command = [sys.executable, "-m", "beam_ray.tracking.worker", str(folder)]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, env=inherited | QUIET | _PATIENT | here)


def _follow(process: subprocess.Popen[bytes], uri: str, patience_s: float) -> Any:
    said: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_listen, args=(process, said), daemon=True).start()
    setting_up = _SettingUp(uri)
    allowed, last = _START_S, time.monotonic()
    while True:
        try:
            message = said.get(timeout=max(allowed - (time.monotonic() - last), 0.0))
        except queue.Empty:
            raise _GaveUp(f"{shown(uri)} gave no answer for {allowed:.0f} s") from None
        last = time.monotonic()
        if message is None:
            raise _GaveUp(f"the process that talks to {shown(uri)} ended with code {process.wait()}")
        if "failed" in message:
            raise _GaveUp(message["failed"], message["trace"])
        if "result" in message:
            return message["result"]
        allowed = _START_S if message["at"] == "start" else patience_s
        setting_up.saw(message["at"])


def _listen(process: subprocess.Popen[bytes], said: "queue.Queue[dict[str, Any] | None]") -> None:
    for message in _messages(process.stdout):
        said.put(message)
    said.put(None)


def _messages(stream: IO[bytes] | None) -> Iterator[dict[str, Any]]:
    for line in stream or ():
        yield json.loads(line)


class _SettingUp:
    """Says once that MLflow's database is being set up, when that takes long enough to be wondered at."""

    def __init__(self, uri: str):
        self.uri = uri
        self.since: float | None = None
        self.told = False

    def saw(self, at: str) -> None:
        if at != "migration":
            return
        self.since = self.since or time.monotonic()
        if not self.told and time.monotonic() - self.since > _SLOW_S:
            self.told = True
            _log.info("MLflow sets up its database in %s; this happens once", shown(self.uri))
