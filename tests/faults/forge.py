"""
Commands in processes that start in milliseconds: one process imports everything, and forks per command.

Reads a command a line, writes how it ended a line. It stays free of threads, so that
forking is safe; the model's endpoint and the test are in another process.
"""

import gc
import json
import os
import select
import signal
import sys
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

SPOOL_S = 0.2
"""Seconds between two spool files in a forked command: a quarter of the real ones, so that short runs tell something."""


TICK_S = 0.1
"""Seconds between two looks at how long a command has waited for a processor."""


def main() -> None:
    """Fork a command per line until standard input ends."""
    _import_all()
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    _say("ready")
    while line := sys.stdin.buffer.raw.readline():  # type: ignore[attr-defined]
        asked = json.loads(line)
        child = os.fork()
        if not child:
            _command(asked)
        _say(json.dumps(_watch(child, asked.get("signals", []), wake)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _watch(child: int, signals: list[tuple[float, int]], wake: int) -> dict[str, Any]:
    """Wait for the child, sending it signals at given seconds; how and when it ended."""
    started = time.monotonic()
    first = 0.0
    waits: deque[float] = deque([0.0], maxlen=int(1 / TICK_S))
    """Seconds that it had waited by each tick of the last second."""
    for at, number in [*signals, (float("inf"), 0)]:
        while True:
            left = started + at - time.monotonic()
            if left <= 0:
                break
            ended, status, used = os.wait4(child, os.WNOHANG)
            if ended:
                moment = time.monotonic()
                return {
                    "code": os.waitstatus_to_exitcode(status),
                    "at": time.time(),
                    "seconds": moment - started,
                    "stopped_in": moment - first if first else None,
                    "rss": used.ru_maxrss * 1024,
                    "waited": waits[-1] - waits[0],
                }
            if select.select([wake], [], [], min(left, TICK_S))[0]:
                os.read(wake, 512)
            else:
                waits.append(max(waits[-1], _waited(child)))
        os.kill(child, number)
        first = first or time.monotonic()
    raise AssertionError("unreachable")


def _waited(child: int) -> float:
    """Seconds for which the process's threads, those that ended left out, could have run and had no processor."""
    found = 0
    for thread in Path(f"/proc/{child}/task").glob("*/schedstat"):
        with suppress(OSError):  # it ended just now
            found += int(thread.read_text().split()[1])
    return found / 1e9


def _command(asked: dict[str, Any]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for descriptor, name in ((0, os.devnull), (1, asked["out"]), (2, asked["err"])):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644), descriptor)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w")
    os.chdir(asked["folder"])
    os.environ.update(asked["environment"])
    from beam_ray import failpoint
    from beam_ray.cli import main as command

    if "RUNNERS" in os.environ:
        from beam_ray.run import cluster
        from tests.faults.apart import Apart

        cluster.Cluster = Apart  # type: ignore[misc]
    if "IMPATIENT" in os.environ:
        import stamina

        stamina.set_testing(True, attempts=10_000)
    for place, number in asked["settings"].items():
        module, _, name = place.partition(":")
        assert hasattr(sys.modules[module], name), place
        setattr(sys.modules[module], name, number)
    code = 1
    try:
        failpoint.arm(asked["fail"])
        command(asked["words"])
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0
    except BaseException:
        import traceback

        traceback.print_exc()
    if failpoint.hits:
        with open(asked["hits"], "w") as file:
            json.dump(failpoint.hits, file)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _import_all() -> None:
    # every thread pool that an import starts would not survive a fork
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ARROW_IO_THREADS"):
        os.environ.setdefault(name, "1")
    import importlib

    import boto3  # noqa: F401
    import httpcore2  # noqa: F401
    import openai.resources.chat  # noqa: F401
    import pyarrow.dataset  # noqa: F401

    from beam_ray.cli import COMMANDS

    for module, _ in COMMANDS.values():
        importlib.import_module(module)
    from beam_ray import temporary  # noqa: F401
    from beam_ray.api import local_models, progress, runs, workflows  # noqa: F401
    from beam_ray.backtest import conclude  # noqa: F401
    from beam_ray.improve import exposure  # noqa: F401
    from beam_ray.llm import advice, client, embeddings_api, local, models_file, prices, probe  # noqa: F401
    from beam_ray.run import cluster, connection, execute, plan, runner, spool  # noqa: F401
    from beam_ray.store import model_findings  # noqa: F401
    from tests.faults import apart  # noqa: F401
    from tests.faults.here import Here

    cluster.Cluster = Here  # type: ignore[misc]
    spool.SPOOL_S = SPOOL_S
    gc.collect()
    gc.freeze()


if __name__ == "__main__":
    main()
