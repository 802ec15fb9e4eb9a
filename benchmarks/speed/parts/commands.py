"""What one waits for at the prompt: --help, check, and the first run of the day."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.speed.endpoint import ROOT, endpoint
from benchmarks.speed.ours import models_file, tasks_file, workflow
from benchmarks.speed.told import Told
from benchmarks.speed.watched import watched

BEAM_RAY = [str(Path(sys.executable).parent / "beam-ray")]
TASKS = 50


def prompt(told: Told) -> None:
    """The commands that start nothing."""
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
            told.at_most(f"beam-ray {words[0]}", middle, limit, " s")
    told.table(["command", "median of 5, s", "least", "most"], rows)


def cold(told: Told) -> None:
    """The command line from nothing, Ray's start and end included, against the same run warm."""
    with endpoint() as model, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        words = ["run", str(workflow(folder)), "--tasks", str(tasks_file(folder, TASKS)), "--json"]
        models_file(folder, model.url)
        used = watched([*BEAM_RAY, *words, "--store", str(folder / "store"), "--models", str(folder / "models.yaml")], folder)
        warm = watched([sys.executable, "-m", "benchmarks.speed.ours", str(folder), model.url, str(TASKS)], ROOT)
    told.table(
        ["50 tasks", "seconds", "CPU s", "peak MB"],
        [
            ["cold: beam-ray run, start of Ray to its end", used.wall_s, used.cpu_s, used.peak_mb],
            ["warm: the run alone", float(warm.said["seconds"]), float(warm.said["cpu_s"]), warm.peak_mb],
        ],
    )
    told.at_most(f"{TASKS} tasks cold, more than warm", used.wall_s - float(warm.said["seconds"]), 6, " s")
