"""Zero latency and scripted answers inside the workers: our own overhead for large runs."""

import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.endpoint import ROOT
from benchmarks.speed.ours import models_file, workflow
from benchmarks.speed.parts.commands import BEAM_RAY
from benchmarks.speed.report import Report
from benchmarks.speed.resources import Used, run_measured
from benchmarks.speed.work import STEPS

MILLION_STEPS = 2


def measure(report: Report, sizes: list[int]) -> None:
    """One run of each size; the largest is then killed half-way and resumed."""
    rows, costs = [], []
    for tasks in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder, last = Path(name), tasks == sizes[-1]
            used = _run(name, tasks)
            report.progress(f"{tasks} tasks: {used.printed['seconds']:.1f} s")
            cost = 1000 * float(used.printed["cpu_s"]) / (tasks * STEPS)
            costs.append(cost)
            files = sum(1 for _ in (folder / "store" / "runs" / str(used.printed["run_id"])).rglob("*.parquet"))
            size = sum(path.stat().st_size for path in (folder / "store" / "runs" / str(used.printed["run_id"])).rglob("*.parquet")) / 1e6
            times = _commands(report, folder, str(used.printed["run_id"]))
        rows.append([f"{tasks:,} tasks", float(used.printed["seconds"]), cost, cost / costs[0], used.driver_mb, used.workers_mb, files, size, *times])
        if last:
            report.at_most(f"{tasks:,} x {STEPS} steps: memory of the driver", used.driver_mb, 400, " MB")
            report.at_most(f"{tasks:,} x {STEPS} steps: memory of all workers", used.workers_mb, 1_000, " MB")
            report.at_most(f"{tasks:,} x {STEPS} steps: Parquet files", files, 200)
            report.at_most(f"beam-ray tasks of {tasks:,}", times[0], 5, " s")
            report.at_most(f"beam-ray compare of {tasks:,}", times[1], 5, " s")
    report.table(
        ["zero latency", "seconds", "CPU ms/step", "x first", "driver MB", "workers MB", "files", "MB on disk", "tasks s", "compare s"],
        rows,
    )
    report.at_most(f"CPU per step: {sizes[-1]:,} tasks / {sizes[0]:,} tasks", costs[-1] / costs[0], 1.15)
    _resume(report, sizes[-1])


def _run(folder: str, tasks: int, die_at: int = 0, steps: int = STEPS) -> Used:
    codes = (0, -signal.SIGKILL) if die_at else (0,)
    words = [folder, "scripted", str(tasks), "--steps", str(steps), *(["--die-at", str(die_at)] if die_at else [])]
    return run_measured([sys.executable, "-m", "benchmarks.speed.ours", *words], ROOT, codes=codes, timeout_s=3_600)


def _commands(report: Report, folder: Path, run: str) -> list[float]:
    models_file(folder, "http://127.0.0.1:9", 1)
    return [_time(report, folder, words) for words in (["tasks", "--run", run], ["compare", run, run])]


def _resume(report: Report, tasks: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        _run(name, tasks, die_at=tasks * STEPS // 2)
        used = _run(name, tasks)
    kept = int(used.printed["rows_before"])
    report.note(
        f"Resumed after a kill (SIGKILL) half-way: {kept:,} of {tasks * STEPS:,} steps were in committed parts. "
        f"The first new step was done {used.printed['news_s']:.1f} s after the resume (checked once per second; without starting Ray and reading the tasks file). "
        f"The resumed run took {used.printed['seconds']:.1f} s; its driver used {used.driver_mb:.0f} MB."
    )
    report.at_most(f"resume of {tasks:,} tasks after a kill: time to the first new step", float(used.printed["news_s"]), 10, " s")


def million(report: Report, tasks: int) -> None:
    """A run of two steps that is killed half-way and resumed, and the commands that read all of it."""
    with tempfile.TemporaryDirectory() as name:
        folder, half = Path(name), tasks * MILLION_STEPS // 2
        killed = _run(name, tasks, die_at=half, steps=MILLION_STEPS)
        report.progress(f"killed after {killed.wall_s:.0f} s")
        used = _run(name, tasks, steps=MILLION_STEPS)
        run, steps = str(used.printed["run_id"]), tasks * MILLION_STEPS - int(used.printed["rows_before"])
        cost = 1000 * float(used.printed["cpu_s"]) / steps
        models_file(folder, "http://127.0.0.1:9", 1)
        path = workflow(folder, steps=MILLION_STEPS)
        times = {}
        for words in (
            ["tasks", "--run", run],
            ["compare", run, run],
            ["health", str(path)],
            ["library", "add", "all", "--tasks", f"run:{run}"],
            ["library", "check", "all", "--workflow", str(path)],
        ):
            times[" ".join(word for word in words[:2] if word.isalpha())] = _time(report, folder, words)
    report.table(
        [f"{tasks:,} tasks x {MILLION_STEPS} steps", "seconds", "CPU ms/step", "all MB", "driver MB", "workers MB"],
        [
            ["until the kill, half-way", killed.wall_s, "", killed.peak_mb, killed.driver_mb, killed.workers_mb],
            ["resumed to the end", float(used.printed["seconds"]), cost, used.peak_mb, used.driver_mb, used.workers_mb],
        ],
    )
    report.table(["command", "seconds"], [[f"beam-ray {what}", seconds] for what, seconds in times.items()])
    what = f"{tasks:,} x {MILLION_STEPS} steps"
    report.at_most(f"{what}: memory of all processes", max(killed.peak_mb, used.peak_mb), 1_500, " MB")
    report.at_most(f"{what}: time to the first new step after a kill", float(used.printed["news_s"]), 20, " s")
    for command in ("tasks", "compare", "health", "library check"):
        report.at_most(f"beam-ray {command} of {tasks:,}", times[command], 10, " s")


def _time(report: Report, folder: Path, words: list[str]) -> float:
    began = time.monotonic()
    done = subprocess.run([*BEAM_RAY, *words, "--store", str(folder / "store")], capture_output=True, text=True, check=False)
    if done.returncode:
        report.note(f"beam-ray {words[0]} exited with code {done.returncode}: {done.stderr.strip()[:300]}")
    return time.monotonic() - began
