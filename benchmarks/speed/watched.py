"""A command run to its end, with what it and all its descendants used."""

import json
import os
import subprocess
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

EVERY_S = 0.1


@dataclass(frozen=True)
class Used:
    """What a command took."""

    wall_s: float
    cpu_s: float
    """Of all its processes; the last tenth of a second of one that ended may be missing."""
    peak_mb: float
    """Resident memory of all its processes together; pages that they share count for each."""
    driver_mb: float
    """The same of the command's own process."""
    workers_mb: float
    """The same of Ray's worker processes; 0 for others."""
    said: dict[str, Any]
    """The JSON that it printed."""


def watched(command: list[str], folder: Path, **environment: str) -> Used:
    """
    Run the command in *folder* to its end.

    Raises:
        RuntimeError: it failed; with what it said.
    """
    began = time.monotonic()
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    cpu: dict[tuple[int, float], float] = {}
    peaks = {"all": 0.0, "driver": 0.0, "workers": 0.0}
    over = threading.Event()

    def look() -> None:
        root = psutil.Process(process.pid)
        while not over.is_set():
            sums = {"all": 0.0, "driver": 0.0, "workers": 0.0}
            try:
                family = [root, *root.children(recursive=True)]
            except psutil.Error:
                break
            for each in family:
                try:
                    with each.oneshot():
                        times, rss = each.cpu_times(), each.memory_info().rss / 1e6
                        cpu[each.pid, each.create_time()] = times.user + times.system
                        sums["all"] += rss
                        sums["driver"] += rss if each.pid == root.pid else 0.0
                        sums["workers"] += rss if each.name().startswith("ray::") else 0.0
                except psutil.Error:
                    continue
            for name, value in sums.items():
                peaks[name] = max(peaks[name], value)
            over.wait(EVERY_S)

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    out, err = process.communicate()
    wall = time.monotonic() - began
    over.set()
    watcher.join()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} left with {process.returncode}\n{err[-3000:]}")
    said = json.loads(out) if out.strip() else {}
    return Used(wall, sum(cpu.values()), peaks["all"], peaks["driver"], peaks["workers"], said)
