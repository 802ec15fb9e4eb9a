"""Processes that start in milliseconds: one has imported what they need, and forks for each of them. Run as ``python -m tests.forks MODULE…``."""

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


class Forked:
    """A process that does one call; it may be a grandchild, so its exit code is not known."""

    def __init__(self, pid: int):
        self.pid = pid

    @property
    def alive(self) -> bool:
        """Whether it is there."""
        return Path(f"/proc/{self.pid}").exists()

    def terminate(self) -> None:
        """Send SIGTERM."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self, seconds: float = 60) -> None:
        """Wait for its end."""
        until = time.monotonic() + seconds
        while self.alive:
            assert time.monotonic() < until, f"process {self.pid} does not end"
            time.sleep(0.01)


class Forks:
    """Starts processes that have these modules; the first start imports them."""

    def __init__(self, *modules: str, environment: Mapping[str, str] | None = None):
        self._modules, self._environment = modules, environment or {}
        self._server: subprocess.Popen[bytes] | None = None

    def start(self, function: str, *arguments: Any, folder: Path | str, environment: Mapping[str, str], out: str = os.devnull, err: str = os.devnull) -> Forked:
        """A process that calls *function*, as ``module:name``, in *folder*; what it prints goes to these files."""
        if self._server is None:
            place = {**os.environ, **self._environment, "PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
            self._server = subprocess.Popen([sys.executable, "-m", "tests.forks", *self._modules], env=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            atexit.register(self._end)
        assert self._server.stdin and self._server.stdout
        asked = {"function": function, "arguments": arguments, "folder": str(folder), "environment": dict(environment), "out": out, "err": err}
        self._server.stdin.write(json.dumps(asked).encode() + b"\n")
        self._server.stdin.flush()
        return Forked(int(self._server.stdout.readline()))

    def _end(self) -> None:
        assert self._server and self._server.stdin
        self._server.stdin.close()
        self._server.wait(10)


STOPS = {signal.SIGINT, signal.SIGTERM}


def main() -> None:
    """Fork a process per line until standard input ends."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")  # a pool of threads that an import starts would not survive a fork
    for module in sys.argv[1:]:
        importlib.import_module(module)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who has ended is gone
    # a child that is stopped before its command has begun would end in a traceback of ours
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    gc.collect()
    gc.freeze()
    while line := sys.stdin.buffer.raw.readline():  # type: ignore[attr-defined]
        child = os.fork()
        if not child:
            _call(json.loads(line))
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def _call(asked: dict[str, Any]) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["folder"])
    for descriptor, name, how in ((0, os.devnull, os.O_RDONLY), (1, asked["out"], os.O_WRONLY | os.O_CREAT), (2, asked["err"], os.O_WRONLY | os.O_CREAT)):
        os.dup2(os.open(name, how, 0o600), descriptor)
    sys.stdin, sys.stdout, sys.stderr = os.fdopen(0), os.fdopen(1, "w"), os.fdopen(2, "w", buffering=1)
    module, _, name = asked["function"].partition(":")
    code = 1
    try:
        command = getattr(importlib.import_module(module), name)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        command(*asked["arguments"])
        code = 0
    except SystemExit as left:
        code = left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
