"""How Ray starts, ends and prints in our process, where it has no option for it."""

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import Stopped, Unusable

OBJECT_STORE_BYTES = 80_000_000
"""Size of a local Ray's object store; Ray takes no less than 75 MB."""


def _print_on_standard_error(data: Mapping[str, object], *rest: Any, **more: Any) -> None:
    _print({**data, "is_err": True}, *rest, **more)


# Ray reports a lost node on standard output, which is for our results alone
_print = ray._private.worker.print_to_stdstream
ray._private.worker.print_to_stdstream = _print_on_standard_error


@contextlib.contextmanager
def minimal_ray() -> Iterator[None]:
    """
    Start a local Ray without the dashboard's server, the autoscaler and the log monitor, which a short local run never uses.

    Ray waits for them at its start and its end, longer than for everything else, and has no option to leave them out.
    """
    # one worker for each CPU, of which a small run uses one
    os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    node = ray._private.node.Node
    originals = {name: getattr(node, name) for name in ("start_api_server", "start_monitor", "start_log_monitor") if hasattr(node, name)}
    for name in originals:
        setattr(node, name, lambda *_, **__: None)
    try:
        yield
    finally:
        for name, method in originals.items():
            setattr(node, name, method)


def kill_local_processes() -> None:
    """Kill the processes of a Ray that this process started, where its head is gone."""
    node = ray._private.worker._global_node
    if node is not None:
        node.kill_all_processes(check_alive=False, allow_graceful=False)


def exit_now() -> None:
    """End this process: Ray's own shutdown takes a minute, or crashes, when the cluster is gone; used only after we stopped."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(Stopped.exit_code)


def local_options() -> JsonObject:
    """
    What ``ray.init`` is told for a local Ray on this machine, which may be a container.

    Raises:
        Unusable: the machine lacks something without which Ray would wait for minutes, and not say why.
    """
    folder = _folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise Unusable(f"cannot start a local Ray: it cannot write to {folder} ({error.strerror})\n  set RAY_TMPDIR to a folder that can be written") from None
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), 5.0).close()
    except OSError as error:
        raise Unusable(f"cannot start a local Ray: its processes cannot reach each other at 127.0.0.1 ({error.strerror or error})") from None
    # nothing of a run goes through the object store
    options: JsonObject = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
    return options if os.access("/dev/shm", os.W_OK) else {**options, "_plasma_directory": str(folder)}


def cannot_start(error: Exception) -> str:
    """Why a local Ray did not start."""
    return f"cannot start a local Ray: {first_line(error)}\n  its log is in {_folder()}/session_latest/logs; --address uses a cluster that is running"


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _folder() -> Path:
    """Where a local Ray keeps its sockets and logs."""
    return Path(os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "/tmp") / "ray"
