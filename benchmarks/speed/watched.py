"""A command run to its end, with what it and all its descendants used, from /proc."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EVERY_S = 0.1
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")
LEAVE_S = 10.0
"""Seconds that processes of a command have to end after it."""


@dataclass(frozen=True)
class Used:
    """What a command took."""

    wall_s: float
    cpu_s: float
    """Of all its processes; the last tenth of a second of one that was killed may be missing."""
    peak_mb: float
    """Resident memory of all its processes together; pages that they share count for each."""
    driver_mb: float
    """The same of the command's own process."""
    workers_mb: float
    """The same of Ray's worker processes; 0 for others."""
    said: dict[str, Any]
    """The JSON that it printed last."""


@dataclass
class Family:
    """A process and all that descend from it, also those whose parents are gone."""

    root: int
    cpu: dict[tuple[int, str], float] = field(default_factory=dict)
    """Process number and time of start to seconds of CPU."""
    peaks: dict[str, float] = field(default_factory=lambda: {"all": 0.0, "driver": 0.0, "workers": 0.0})
    alive: list[int] = field(default_factory=list)

    def look(self) -> None:
        """See who is there and what they have used so far."""
        found = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdecimal():
                with contextlib.suppress(OSError, ValueError):
                    words = Path(entry.path, "stat").read_text()
                    name, fields = words[words.index("(") + 1 : words.rindex(")")], words[words.rindex(")") + 2 :].split()
                    if fields[0] != "Z":
                        found[int(entry.name)] = name, fields
        children: dict[int, list[int]] = {}
        for pid, (_, fields) in found.items():
            children.setdefault(int(fields[1]), []).append(pid)
        known = [pid for pid, (_, fields) in found.items() if pid == self.root or (pid, fields[19]) in self.cpu]
        self.alive = []
        sums = dict.fromkeys(self.peaks, 0.0)
        while known:
            pid = known.pop()
            if pid in self.alive:
                continue
            self.alive.append(pid)
            known += children.get(pid, [])
            name, fields = found[pid]
            self.cpu[pid, fields[19]] = (int(fields[11]) + int(fields[12])) / TICKS
            size = int(fields[21]) * PAGE / 1e6
            sums["all"] += size
            sums["driver"] += size if pid == self.root else 0.0
            sums["workers"] += size if name.startswith("ray::") else 0.0
        self.peaks = {name: max(self.peaks[name], size) for name, size in sums.items()}

    @property
    def cpu_s(self) -> float:
        """Seconds of CPU of all of them, when last looked at."""
        return sum(self.cpu.values())

    def end(self) -> None:
        """Kill whoever is left."""
        for pid in self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def watched(command: list[str], folder: Path, *, timeout_s: float = 900, codes: tuple[int, ...] = (0,), **environment: str) -> Used:
    """
    Run the command in *folder* to its end, and wait until all its processes are gone.

    Raises:
        RuntimeError: it failed, or took longer than *timeout_s* seconds; with what it said.
    """
    before, began = _waited_for_s(), time.monotonic()
    # with bytecode, as whoever uses a tool more than once has it
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, cwd=folder, env={**given, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    family, over = Family(process.pid), threading.Event()

    def watch() -> None:
        while not over.is_set():
            family.look()
            over.wait(EVERY_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    late = False
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        late = True
        family.end()
        out, err = process.communicate()
    finally:
        wall = time.monotonic() - began
        over.set()
        watcher.join()
        _leave(family)
    if late or process.returncode not in codes:
        ended = f"took longer than {timeout_s:g} s" if late else f"left with {process.returncode}"
        raise RuntimeError(f"{' '.join(command)} {ended}\n{err[-3000:]}")
    # a process that waited for its children knows best what they used; those that nobody waits for are seen only by us
    return Used(wall, max(family.cpu_s, _waited_for_s() - before), *family.peaks.values(), said=last_json(out))


def last_json(out: str) -> dict[str, Any]:
    """What a command printed as JSON, on its last line or laid out over several."""
    start = out.rfind("\n{") + 1
    return dict(json.loads(out[start:])) if out[start:].strip().startswith("{") else {}


def _leave(family: Family) -> None:
    # what is left of one command would be on the next one's account
    deadline = time.monotonic() + LEAVE_S
    while family.alive and time.monotonic() < deadline:
        family.look()
        time.sleep(EVERY_S if family.alive else 0)
    family.end()


def _waited_for_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
