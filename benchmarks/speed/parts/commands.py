"""Commands that do not start Ray (--help, check), a cold run, and one with a Ray that is kept up."""

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.speed.endpoint import ROOT, endpoint
from benchmarks.speed.ours import models_file, tasks_file, workflow
from benchmarks.speed.report import Report
from benchmarks.speed.resources import Used, run_measured

BEAM_RAY = [str(Path(sys.executable).parent / "beam-ray")]
TASKS = 50


def prompt(report: Report) -> None:
    """Time --help and check."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        path = workflow(Path(name))
        for words, limit in ((["--help"], 0.3), (["check", str(path)], 1.0)):
            taken = []
            for _ in range(5):
                began = time.monotonic()
                subprocess.run([*BEAM_RAY, *words], capture_output=True, check=True)
                taken.append(time.monotonic() - began)
            middle = sorted(taken)[2]
            rows.append([f"beam-ray {words[0]}", middle, min(taken), max(taken)])
            report.at_most(f"beam-ray {words[0]}", middle, limit, " s")
    report.table(["command", "median of 5, s", "minimum", "maximum"], rows)


def cold(report: Report) -> None:
    """A run by the command line, with and without a Ray that is kept up, compared with the same run warm: scripted, and with an endpoint."""
    with tempfile.TemporaryDirectory() as name:
        scripted = _starts(report, Path(name), "scripted")
    with endpoint() as model, tempfile.TemporaryDirectory() as name:
        called = _starts(report, Path(name), model.url)
    report.at_most(f"{TASKS} scripted tasks: cold minus warm", scripted.cold.wall_s - scripted.warm_s, 3, " s")
    report.at_most(f"{TASKS} scripted tasks: next command with a kept Ray, minus warm", scripted.kept.wall_s - scripted.warm_s, 1, " s")
    for each, words in ((scripted, "scripted tasks"), (called, "tasks with an endpoint")):
        report.at_most(f"{TASKS} {words}: memory of all processes, with Ray", each.cold.peak_mb, 700, " MB")


@dataclass(frozen=True)
class _Starts:
    cold: Used
    kept: Used
    warm_s: float


def _starts(report: Report, folder: Path, url: str) -> _Starts:
    """Medians of three."""
    models_file(folder, url)
    words = ["run", str(workflow(folder)), "--tasks", str(tasks_file(folder, TASKS)), "--json"]
    words += ["--store", str(folder / "store"), "--models", str(folder / "models.yaml")]
    own = _middle([run_measured([*BEAM_RAY, *words], folder, BEAM_RAY_KEEP="0") for _ in range(3)])
    with _kept_ray(folder):
        given = {"XDG_RUNTIME_DIR": str(folder), "BEAM_RAY_KEEP": "10m"}
        run_measured([*BEAM_RAY, *words], folder, **given)
        kept = _middle([run_measured([*BEAM_RAY, *words], folder, **given) for _ in range(3)])
    runs = [run_measured([sys.executable, "-m", "benchmarks.speed.ours", str(folder), url, str(TASKS)], ROOT, BEAM_RAY_KEEP="0") for _ in range(3)]
    warm = sorted(runs, key=lambda used: float(used.printed["seconds"]))[1]
    warm_s = float(warm.printed["seconds"])
    report.table(
        [f"{TASKS} tasks, {'scripted' if url == 'scripted' else 'endpoint of 200 ms'}", "seconds", "more than warm, s", "CPU s", "peak MB"],
        [
            ["cold: beam-ray run, including start and end of Ray", own.wall_s, own.wall_s - warm_s, own.cpu_s, own.peak_mb],
            ["kept: the next beam-ray run after beam-ray up, without the processes that stay up", kept.wall_s, kept.wall_s - warm_s, kept.cpu_s, kept.peak_mb],
            ["warm: the run only", warm_s, 0, float(warm.printed["cpu_s"]), warm.peak_mb],
        ],
    )
    return _Starts(own, kept, warm_s)


def _middle(runs: list[Used]) -> Used:
    return sorted(runs, key=lambda used: used.wall_s)[len(runs) // 2]


@contextlib.contextmanager
def _kept_ray(runtime: Path) -> Iterator[None]:
    """A local Ray that stays up, known to the commands whose XDG_RUNTIME_DIR is *runtime*."""
    given = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "BEAM_RAY_KEEP": "10m"}
    subprocess.run([*BEAM_RAY, "up"], env=given, capture_output=True, check=True)
    try:
        yield
    finally:
        subprocess.run([*BEAM_RAY, "down"], env=given, capture_output=True, check=True)
