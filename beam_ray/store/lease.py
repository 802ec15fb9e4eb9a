"""Who drives a run, and whether they look alive: see ``runs`` for where it is kept."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterable
from typing import Literal, TypedDict

from beam_ray.errors import RunIsTaken, Stopped
from beam_ray.store.objects import NotThere
from beam_ray.store.runs import Run

BEAT_S = 10.0
"""Seconds between two signs of life of a driver."""

RELEASE_S = 1.0
"""Seconds for which releasing a lease may block; another driver can also see by itself that this one is gone."""

_IDENTITY: tuple[Literal["host", "pid", "process"], ...] = ("host", "pid", "process")

DEAD_S = 60.0
"""Seconds without a sign of life after which a driver on another machine is taken for dead."""


class LeaseOwner(TypedDict):
    """The process that owns a lease."""

    host: str
    pid: int
    started_at: str
    process: str | None
    """When the process began, in the kernel's words; tells it from a later one of the same number."""


class StoredLease(LeaseOwner):
    """The content of lease/<epoch>.json."""

    at: float
    """When the lease was taken, in seconds since 1970."""


class Driver(StoredLease):
    """A process that drives a run, and looks alive."""

    age: float
    """Seconds since its last sign of life."""


class Lease:
    """
    The right to drive a run: the highest epoch has it.

    Time only tells whether the last owner looks alive. It never authorises a write: parts are
    created if absent, so a driver that wakes up late loses every race and can harm nothing.
    """

    def __init__(self, run: Run, *, takeover: bool = False, names: Iterable[str] | None = None):
        """
        Args:
            names: What the run had a moment ago, where that is known; None lists its drivers.

        Raises:
            RunIsTaken: somebody else drives it, or took it in the same moment.
        """
        from beam_ray.store.run_record import now

        self.run = run
        self.prefix = f"{run.prefix}/lease/"
        self.me: LeaseOwner = {"host": socket.gethostname(), "pid": os.getpid(), "started_at": now(), "process": _process_start(os.getpid())}
        last = self._last() if names is None else _last_of(names)
        if last and not takeover:
            self._refuse_if_alive()
        self.epoch, self.released = last + 1, False
        taken: StoredLease = {**self.me, "at": time.time()}
        if not run.objects.create(f"{self.prefix}{self.epoch:06d}.json", json.dumps(taken).encode()):
            raise RunIsTaken(f"run {run.run_id} was taken by another driver at the same time; when it is done, run the same command again")

    def beat(self) -> None:
        """
        Give a sign of life.

        Raises:
            RunIsTaken: another driver has taken the run over.
        """
        if self._last() > self.epoch:
            raise RunIsTaken(f"run {self.run.run_id} was taken over by another driver; this one stops, and nothing is lost")
        self.run.objects.put(f"{self.prefix}{self.epoch:06d}.beat", json.dumps({"at": time.time()}).encode())

    def release(self) -> None:
        """Let the next driver begin at once; a store that no longer answers is not waited for."""
        self.released = True
        releasing = threading.Thread(target=self._release, daemon=True)
        releasing.start()
        releasing.join(RELEASE_S)

    def _release(self) -> None:
        with contextlib.suppress(Stopped):
            self.run.objects.put(f"{self.prefix}{self.epoch:06d}.beat", json.dumps({"at": 0}).encode())

    def _last(self) -> int:
        return last_epoch(self.run)

    def _refuse_if_alive(self) -> None:
        found = driver_of(self.run)
        if found and any(found[name] != self.me[name] for name in _IDENTITY):
            raise RunIsTaken(
                f"run {self.run.run_id} is driven by process {found['pid']} on {found['host']}, last active {found['age']:.0f} s ago\n"
                "  wait for it, or take it over with --takeover if it is known to be dead"
            )


def driver_of(run: Run) -> Driver | None:
    """Who drives the run; None when nobody does who looks alive."""
    epoch = last_epoch(run)
    try:
        owner: StoredLease = json.loads(run.objects.read(f"{run.prefix}/lease/{epoch:06d}.json"))
        try:
            beat = json.loads(run.objects.read(f"{run.prefix}/lease/{epoch:06d}.beat"))["at"]
        except NotThere:
            beat = owner["at"]  # it has taken the run in this moment, and not yet given a sign of life
        age = time.time() - beat
        if owner["host"] == socket.gethostname():
            alive = beat > 0 and _process_start(owner["pid"]) == owner["process"] and owner["process"] is not None
        else:
            alive = beat > 0 and age < DEAD_S
        return {**owner, "age": max(age, 0.0)} if alive else None
    except (NotThere, ValueError, KeyError, TypeError):
        return None


def last_epoch(run: Run) -> int:
    """The epoch of the last driver; 0 where none ever was."""
    return _last_of(key.removeprefix(f"{run.prefix}/") for key, _ in run.objects.keys(f"{run.prefix}/lease/"))


def _last_of(names: Iterable[str]) -> int:
    epochs = [name.removeprefix("lease/") for name in names if name.startswith("lease/")]
    return max((int(name.removesuffix(".json")) for name in epochs if name.endswith(".json")), default=0)


def _process_start(pid: int) -> str | None:
    """When the process began; None where it is gone."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            fields = stat.read().rpartition(")")[2].split()
            return None if fields[0] == "Z" else fields[19]
    except (OSError, IndexError):
        try:
            os.kill(pid, 0)
        except OSError:
            return None
        return "running"
