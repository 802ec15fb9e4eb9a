"""
The process that keeps a local Ray up: started in the background by a command, and ended when no command has used the Ray for a while.

    python -m beam_ray.run.cluster.keeper FOLDER SECONDS
"""

import contextlib
import fcntl
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

TICK_S = 1.0
SPARE_RUNNERS = 1
"""Runners started ahead; a small run uses one."""


def main(folder: Path, keep_s: float) -> int:
    """Keep a local Ray up until nobody has used it for *keep_s* seconds, or SIGTERM."""
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0  # another command was first
        from beam_ray.errors import BeamRayError

        try:
            _keep(folder, keep_s, ended)
        except BeamRayError as error:
            raise SystemExit(str(error)) from None  # into the log, which the command reads
    return 0


def _keep(folder: Path, keep_s: float, ended: threading.Event) -> None:
    import ray

    from beam_ray.run import kept_ray
    from beam_ray.run.cluster.limiter_actor import NAMESPACE
    from beam_ray.run.cluster.local import local_options, minimal_ray
    from beam_ray.run.cluster_auth import ensure_token

    ensure_token()
    with minimal_ray():
        ray.init(address="local", namespace=NAMESPACE, logging_level=logging.ERROR, log_to_driver=False, configure_logging=True, **local_options())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())  # Ray installed a handler of its own
    names = [f"spare-runner-{number}" for number in range(1, SPARE_RUNNERS + 1)]
    spares = [_spare(name) for name in names]
    kept_ray.write(
        folder,
        {
            "address": ray.get_runtime_context().gcs_address,
            "token": os.environ.get("RAY_AUTH_TOKEN", ""),
            "keeper": os.getpid(),
            "keep_s": keep_s,
            "started_at": time.time(),
            "python": kept_ray.fingerprint(),
            "runners": names,
        },
    )
    users = (folder / "users").open("w")
    used_at = time.monotonic()
    try:
        while not ended.is_set():
            if _in_use(users):
                used_at = time.monotonic()
            else:
                spares = [_spare(name) for name in names]
                if time.monotonic() - used_at > keep_s and _nobody_comes(users):
                    break
            ended.wait(TICK_S)
    finally:
        (folder / "ray.json").unlink(missing_ok=True)
        del spares
        ray.shutdown()


def _in_use(users: Any) -> bool:
    """Whether a command uses the Ray."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    fcntl.flock(users, fcntl.LOCK_UN)
    return False


def _nobody_comes(users: Any) -> bool:
    """Whether nobody uses the Ray, nor can from now on: the lock is kept."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _spare(name: str) -> Any:
    """The runner of that name, started where there is none."""
    import ray

    from beam_ray.run.cluster.limiter_actor import NAMESPACE
    from beam_ray.run.cluster.runner_actor import RUNNER_OPTIONS, RunnerActor

    actor = ray.remote(RunnerActor).options(name=name, namespace=NAMESPACE, get_if_exists=True, lifetime="detached", **RUNNER_OPTIONS)
    spare = actor.remote()
    spare.preload.remote()
    return spare


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), float(sys.argv[2])))
