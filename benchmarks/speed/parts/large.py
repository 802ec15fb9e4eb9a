"""Zero latency, scripted answers inside the workers: what our own machinery costs as runs grow."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.endpoint import ROOT
from benchmarks.speed.ours import models_file
from benchmarks.speed.parts.commands import BEAM_RAY
from benchmarks.speed.told import Told
from benchmarks.speed.watched import Used, watched
from benchmarks.speed.work import STEPS


def measure(told: Told, sizes: list[int]) -> None:
    """One run of each size; the largest is killed half-way first, and gone on with."""
    rows, costs = [], []
    for tasks in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder, last = Path(name), tasks == sizes[-1]
            used = _run(name, tasks)
            told.progress(f"{tasks} tasks: {used.said['seconds']:.1f} s")
            cost = 1000 * float(used.said["cpu_s"]) / (tasks * STEPS)
            costs.append(cost)
            files = sum(1 for _ in (folder / "store" / "runs" / str(used.said["run_id"])).rglob("*.parquet"))
            size = sum(path.stat().st_size for path in (folder / "store" / "runs" / str(used.said["run_id"])).rglob("*.parquet")) / 1e6
            times = _commands(told, folder, str(used.said["run_id"]))
        rows.append([f"{tasks:,} tasks", float(used.said["seconds"]), cost, cost / costs[0], used.driver_mb, used.workers_mb, files, size, *times])
        if last:
            told.at_most(f"{tasks:,} x {STEPS} steps: the driver's memory", used.driver_mb, 400, " MB")
            told.at_most(f"{tasks:,} x {STEPS} steps: all workers' memory", used.workers_mb, 1_000, " MB")
            told.at_most(f"{tasks:,} x {STEPS} steps: Parquet files", files, 200)
            told.at_most(f"beam-ray tasks of {tasks:,}", times[0], 5, " s")
            told.at_most(f"beam-ray compare of {tasks:,}", times[1], 5, " s")
    told.table(
        ["zero latency", "seconds", "CPU ms/step", "x first", "driver MB", "workers MB", "files", "MB on disk", "tasks s", "compare s"],
        rows,
    )
    told.at_most(f"CPU per step of {sizes[-1]:,} tasks, of {sizes[0]:,} being 1", costs[-1] / costs[0], 1.15)
    _resume(told, sizes[-1])


def _run(folder: str, tasks: int, die_at: int = 0) -> Used:
    codes = (0, -signal.SIGKILL) if die_at else (0,)
    words = [folder, "scripted", str(tasks), *(["--die-at", str(die_at)] if die_at else [])]
    return watched([sys.executable, "-m", "benchmarks.speed.ours", *words], ROOT, codes=codes)


def _commands(told: Told, folder: Path, run: str) -> list[float]:
    models_file(folder, "http://127.0.0.1:9", 1)
    times = []
    for words in (["tasks", "--run", run], ["compare", run, run]):
        began = time.monotonic()
        done = subprocess.run([*BEAM_RAY, *words, "--store", str(folder / "store")], capture_output=True, text=True, check=False)
        times.append(time.monotonic() - began)
        if done.returncode:
            told.note(f"beam-ray {words[0]} left with {done.returncode}: {done.stderr.strip()[:300]}")
    return times


def _resume(told: Told, tasks: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        _run(name, tasks, die_at=tasks * STEPS // 2)
        used = _run(name, tasks)
    kept = int(used.said["rows_before"])
    told.note(
        f"Killed with SIGKILL half-way and begun again: {kept:,} of {tasks * STEPS:,} steps were in committed parts, "
        f"the first new ones were done {used.said['news_s']:.1f} s after it went on (looked at once a second; reading the tasks file, which resume does not, and starting Ray left out), "
        f"the rest took {used.said['seconds']:.1f} s; the driver had {used.driver_mb:.0f} MB."
    )
    told.at_most(f"resume of {tasks:,} tasks killed half-way: to the first new step", float(used.said["news_s"]), 10, " s")
