"""A backtest that changes the last of four nodes, compared with the run that it borrows from."""

import json
import subprocess
import tempfile
from pathlib import Path

from benchmarks.speed.endpoint import endpoint, span_s
from benchmarks.speed.ours import models_file, tasks_file, workflow
from benchmarks.speed.parts.commands import BEAM_RAY
from benchmarks.speed.report import Report
from benchmarks.speed.resources import run_measured
from benchmarks.speed.work import STEPS

TASKS = 2_000


def measure(report: Report) -> None:
    """Compare the calls with those of the plan, and their time with a quarter of the full run's."""
    with endpoint() as model, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models_file(folder, model.url)
        options = ["--store", str(folder / "store"), "--models", str(folder / "models.yaml"), "--json"]
        before, path, after = workflow(folder), tasks_file(folder, TASKS), workflow(folder, changed="again ")
        (folder / "gate.yaml").write_text("gate: g\nrules: {compared: {at_least: 95}}\n")
        (folder / "spec.yaml").write_text(
            f"backtest: b\nworkflow: {before.name}\nbaseline: {before.name}\ntasks: {path.name}\ncandidates: {{last: {after.name}}}\ngate: gate.yaml\n"
        )
        whole = run_measured([*BEAM_RAY, "run", before.name, "--tasks", path.name, *options], folder)
        full = model.calls()
        plan = subprocess.run([*BEAM_RAY, "backtest", "spec.yaml", "--plan", *options], cwd=folder, capture_output=True, text=True, check=True)
        planned = sum(side["calls"] for side in json.loads(plan.stdout)["sides"])
        model.forget()
        used = run_measured([*BEAM_RAY, "backtest", "spec.yaml", "--mlflow", "none", *options], folder)
        part = model.calls()
    share = span_s(part) / (span_s(full) / STEPS)
    report.table(
        [f"{TASKS:,} tasks", "calls", "planned", "model time s", "x quarter", "command s", "CPU s"],
        [
            ["all four nodes", len(full), TASKS * STEPS, span_s(full), "", whole.wall_s, whole.cpu_s],
            ["the last one changed", len(part), planned, span_s(part), share, used.wall_s, used.cpu_s],
        ],
    )
    report.at_most("last of 4 nodes changed: model time / quarter of the full run's", share, 1.15)
    report.at_most("last of 4 nodes changed: difference between planned and actual calls", abs(len(part) - planned), 0)
