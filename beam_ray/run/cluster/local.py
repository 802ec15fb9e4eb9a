"""How Ray starts, ends and prints in our process, where it has no option for it."""

import contextlib
import functools
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ray

from beam_ray.define.fingerprint import JsonObject
from beam_ray.errors import Stopped, Unusable

OBJECT_STORE_BYTES = 80_000_000
"""Size of a local Ray's object store; Ray takes no less than 75 MB."""


AGENT_PORTS = ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME", "RUNTIME_ENV_AGENT_PORT_NAME")
"""Ray's names for the ports that a raylet's agents serve, by which the raylet knows that they are up."""

NODE_S = 30.0
"""Seconds that a node of a local Ray is waited for in short intervals."""


def _print_on_standard_error(data: Mapping[str, object], *rest: Any, **more: Any) -> None:
    _print({**data, "is_err": True}, *rest, **more)


# Ray reports a lost node on standard output, which is for our results alone
_print = ray._private.worker.print_to_stdstream
ray._private.worker.print_to_stdstream = _print_on_standard_error


@contextlib.contextmanager
def minimal_ray() -> Iterator[None]:
    """
    Start a local Ray without what a local run never uses (dashboard, autoscaler, log monitor, and the two agents of its raylet, for metrics and for runtime environments), and without Ray's long waits.

    Ray waits for them at its start and its end, longer than for everything else, and has no option to leave them out.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    node, services = ray._private.node.Node, ray._private.services
    replaced: list[tuple[Any, str, Any]] = [(node, name, _nothing) for name in ("start_api_server", "start_monitor", "start_log_monitor")]
    # it loads the dashboard's packages to see whether they are there
    replaced += [(ray._private.utils, "get_dashboard_dependency_error", _no_dashboard)]
    if all(hasattr(ray._raylet, name) for name in (*AGENT_PORTS, "persist_port")):
        replaced += [(node, "start_raylet", functools.partialmethod(_start_raylet, node.start_raylet))]
        replaced += [(services, "_build_python_executable_command_memory_profileable", _stand_in)]
    replaced += [(services, "get_node", functools.partial(_get_node, services.get_node))]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in replaced if hasattr(owner, name)]
    try:
        for owner, name, replacement in replaced:
            if hasattr(owner, name):
                setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


_ENVIRONMENT = {
    # one worker for each CPU, of which a small run uses one
    "RAY_prestart_worker_first_driver": "0",
    # how long a raylet waits before it looks for its object store again, which is up after milliseconds; by default 1,000, ten times
    "RAY_raylet_client_connect_timeout_milliseconds": "20",
    "RAY_raylet_client_num_connect_attempts": "500",
    # the raylet holds the other end of its agents' input, and nobody asks for metrics
    "RAY_enable_pipe_based_agent_to_parent_health_check": "1",
    "RAY_enable_metrics_collection": "0",
    # Arrow's own allocator and one arena for every thread keep 25 MB of a runner that nobody uses
    "ARROW_DEFAULT_MEMORY_POOL": "system",
    "MALLOC_ARENA_MAX": "2",
}


def _nothing(*_: Any, **__: Any) -> None:
    return None


def _no_dashboard() -> ImportError:
    return ImportError("a local run has no dashboard")


def _start_raylet(node: Any, original: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    """Start the raylet as *original* does, after noting that its agents serve no port, as Ray's own agents do without the dashboard's packages."""
    for name in AGENT_PORTS:
        ray._raylet.persist_port(node._session_dir, node._node_id, getattr(ray._raylet, name), -1)
    original(node, *arguments, **options)


def _stand_in(*_: Any, **__: Any) -> list[str]:
    """A process in place of a raylet's agent, which must be there: it waits, and ends with the raylet, which closes its input."""
    return [sys.executable, "-I", "-S", "-c", "import sys; sys.stdin.buffer.read()"]


def _get_node(original: Callable[..., Any], gcs_address: str, node_id: str) -> Any:
    """The node's record, as *original* gives it, which looks only once a second whether the node has registered."""
    gcs = ray._raylet.GcsClient(address=gcs_address)
    end = time.monotonic() + NODE_S
    while time.monotonic() < end and not any(node.hex() == node_id for node in gcs.get_all_node_info()):
        time.sleep(0.01)
    return original(gcs_address, node_id)


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
