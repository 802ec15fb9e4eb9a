"""How Ray starts, ends and prints in our process, where it has no option for it."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

import ray

from beam_ray.errors import Stopped


def _print_on_standard_error(data: dict[str, Any], *rest: Any, **more: Any) -> None:
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
