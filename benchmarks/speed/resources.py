"""Run a command to its end, and measure what it and all its descendants use, from /proc."""

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
END_S = 10.0
"""Seconds that the descendants of a command have to end after it."""


@dataclass(frozen=True)
class Used:
    """What a command used."""

    wall_s: float
    cpu_s: float
    """Of all its processes; for a killed process, the last tenth of a second may be missing."""
    peak_mb: float
    """Resident memory of all its processes together; shared pages count once per process."""
    driver_mb: float
    """The same of the command's own process."""
    workers_mb: float
    """The same of Ray's worker processes; 0 for others."""
    printed: dict[str, Any]
    """The JSON that it printed last."""


@dataclass
class ProcessTree:
    """A process and all its descendants, including those whose parents have ended."""

    root: int
    cpu: dict[tuple[int, str], float] = field(default_factory=dict)
    """Process number and time of start to seconds of CPU."""
    peaks: dict[str, float] = field(default_factory=lambda: {"all": 0.0, "driver": 0.0, "workers": 0.0})
    alive: list[int] = field(default_factory=list)

    def sample(self) -> None:
        """Update the list of processes and what they have used so far."""
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
        """Seconds of CPU of all of them, at the last sample."""
        return sum(self.cpu.values())

    def end(self) -> None:
        """Kill all that still run."""
        for pid in self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run_measured(command: list[str], folder: Path, *, timeout_s: float = 900, codes: tuple[int, ...] = (0,), **environment: str) -> Used:
    """
    Run the command in *folder* to its end, and wait until all its processes have ended.

    Raises:
        RuntimeError: it failed, or took longer than *timeout_s* seconds; with what it printed.
    """
    before, began = _waited_for_s(), time.monotonic()
    # with bytecode, as after the first use of a tool
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    process = subprocess.Popen(command, cwd=folder, env={**given, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    tree, over = ProcessTree(process.pid), threading.Event()

    def watch() -> None:
        while not over.is_set():
            tree.sample()
            over.wait(EVERY_S)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    late = False
    try:
        out, err = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        late = True
        tree.end()
        out, err = process.communicate()
    finally:
        wall = time.monotonic() - began
        over.set()
        watcher.join()
        _wait_for_end(tree)
    if late or process.returncode not in codes:
        ended = f"took longer than {timeout_s:g} s" if late else f"exited with code {process.returncode}"
        raise RuntimeError(f"{' '.join(command)} {ended}\n{err[-3000:]}")
    # a parent that waited for its children has their exact usage; the others are only in our samples
    return Used(wall, max(tree.cpu_s, _waited_for_s() - before), *tree.peaks.values(), printed=last_json(out))


def last_json(out: str) -> dict[str, Any]:
    """What a command printed as JSON, on its last line or laid out over several."""
    start = out.rfind("\n{") + 1
    return dict(json.loads(out[start:])) if out[start:].strip().startswith("{") else {}


def _wait_for_end(tree: ProcessTree) -> None:
    # processes of one command would be counted with the next one
    deadline = time.monotonic() + END_S
    while tree.alive and time.monotonic() < deadline:
        tree.sample()
        time.sleep(EVERY_S if tree.alive else 0)
    tree.end()


def _waited_for_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
