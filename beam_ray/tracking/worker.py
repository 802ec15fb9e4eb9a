"""
The process that talks to MLflow: ``python -m beam_ray.tracking.worker FOLDER``, started by ``watchdog``.

It writes one JSON document per line to standard output: ``at`` whenever MLflow answered, finally
``result`` or ``failed``. Whatever mlflow prints goes to standard error.
"""

import json
import logging
import os
import ssl
import sys
import time
import traceback
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from beam_ray.errors import BeamRayError
from beam_ray.tracking.location import is_server, prepare, shown
from beam_ray.tracking.snapshot import read
from beam_ray.tracking.watchdog import Heartbeat, WorkerMessage

_PROBE_S = 3.0
_PROBES = 2


class ServerUnreachable(Exception):
    """The MLflow server cannot be reached."""


def main(folder: Path) -> None:
    """Do the job in *folder* and report the result."""
    with os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8") as channel:
        os.dup2(2, 1)

        def say(message: WorkerMessage) -> None:
            channel.write(json.dumps(message) + "\n")

        work, uri, subject = read(folder)
        try:
            result = _do(work, uri, subject, lambda at: say({"at": at}))
        except Exception as error:
            say({"failed": _one_line(error, uri), "trace": traceback.format_exc()})
        else:
            say({"result": result})


def _do(work: str, uri: str, subject: Any, beat: Heartbeat) -> Any:
    beat("probe")
    _probe(uri)
    prepare(uri)
    beat("start")
    from beam_ray.tracking import (
        evaluation_datasets,
        experiments,
        prompts,
        trace_search,
    )  # importing mlflow takes seconds: not before the server is known to answer

    logging.getLogger("alembic.runtime.migration").addHandler(_Migrations(beat))
    logging.getLogger("alembic.runtime.migration").setLevel(logging.INFO)
    beat("open")
    works: dict[str, Callable[..., Any]] = {
        "log_backtest": experiments.log_backtest,
        "production_alias": prompts.production_alias,
        "search_traces": trace_search.search_traces,
        "export_dataset": evaluation_datasets.export_dataset,
    }
    return works[work](uri, subject, beat)


class _Migrations(logging.Handler):
    """Sends a heartbeat for every migration step of the database: its first use needs dozens."""

    def __init__(self, beat: Heartbeat):
        super().__init__()
        self.beat = beat

    def emit(self, record: logging.LogRecord) -> None:
        self.beat("migration")


def _probe(uri: str) -> None:
    if not is_server(uri):
        return
    for left in reversed(range(_PROBES)):
        try:
            with urllib.request.urlopen(f"{uri.rstrip('/')}/health", timeout=_PROBE_S):
                return
        except urllib.error.HTTPError as error:
            # A proxy may not forward /health although the server behind it is healthy.
            if error.code < 500:
                return
            why = f"{shown(uri)} returned HTTP {error.code}"
        except OSError as error:
            # mlflow uses the user's own certificates; urllib does not.
            if isinstance(getattr(error, "reason", None), ssl.SSLError):
                return
            why = f"cannot connect to {shown(uri)} ({getattr(error, 'reason', None) or error})"
        if not left:
            raise ServerUnreachable(why)
        time.sleep(1)


def _one_line(error: Exception, uri: str) -> str:
    text = " ".join(str(error).split())
    if "HTTPConnectionPool" in text or "HTTPSConnectionPool" in text:
        return f"lost the connection to {shown(uri)}"
    text = text if isinstance(error, ServerUnreachable | BeamRayError) else f"{shown(uri)}: {type(error).__name__}: {text}"
    return text if len(text) <= 300 else text[:299] + "…"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
