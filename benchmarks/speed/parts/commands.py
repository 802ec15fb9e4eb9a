"""Commands that do not start Ray (--help, check), and a cold run."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.endpoint import ROOT, endpoint
from benchmarks.speed.ours import models_file, tasks_file, workflow
from benchmarks.speed.report import Report
from benchmarks.speed.resources import run_measured

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
    """A cold run by the command line, including start and end of Ray, compared with the same run warm."""
    with endpoint() as model, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["run", str(workflow(folder)), "--tasks", str(tasks_file(folder, TASKS)), "--json"]
        models_file(folder, model.url)
        used = run_measured([*BEAM_RAY, *words, "--store", str(folder / "store"), "--models", str(folder / "models.yaml")], folder)
        warm = run_measured([sys.executable, "-m", "benchmarks.speed.ours", str(folder), model.url, str(TASKS)], ROOT)
    report.table(
        ["50 tasks", "seconds", "CPU s", "peak MB"],
        [
            ["cold: beam-ray run, including start and end of Ray", used.wall_s, used.cpu_s, used.peak_mb],
            ["warm: the run only", float(warm.printed["seconds"]), float(warm.printed["cpu_s"]), warm.peak_mb],
        ],
    )
    report.at_most(f"{TASKS} tasks: cold minus warm", used.wall_s - float(warm.printed["seconds"]), 3, " s")
    report.at_most(f"{TASKS} tasks: memory of all processes, with Ray", used.peak_mb, 700, " MB")
