"""Branches, parallel nodes, judges, auto-reruns, trials, long prompts and tools that compute, beside the time that nothing could be faster than."""

import os
import sys
import tempfile

from benchmarks.speed.endpoint import ROOT, Endpoint, endpoint, span_s
from benchmarks.speed.report import Report
from benchmarks.speed.resources import run_measured
from benchmarks.speed.shapes import SHAPES


def measure(report: Report, *, repeats: int = 3) -> None:
    """Run each shape a few times; the median of the makespans."""
    rows = []
    with endpoint() as model:
        for name, shape in SHAPES.items():
            ideal = shape.ideal_s(len(os.sched_getaffinity(0)))
            seconds, span, cpu_s, calls = sorted(_run(model, name) for _ in range(repeats))[repeats // 2]
            wrong = calls - shape.expected_calls
            told = shape.what if not wrong else f"{shape.what} ({abs(wrong)} calls {'missing' if wrong < 0 else 'too many'})"
            rows.append([told, shape.tasks, calls, ideal, seconds, seconds / ideal, span / ideal if calls else "", cpu_s])
            report.progress(f"{name}: {seconds:.2f} s, {seconds / ideal:.2f} x ideal")
            report.at_most(f"{shape.what}: warm makespan / ideal", seconds / ideal, shape.limit)
    report.table(["200 ms per call", "tasks", "calls", "ideal s", "makespan s", "x ideal", "calls x ideal", "CPU s"], rows)


def _run(model: Endpoint, name: str) -> tuple[float, float, float, int]:
    """Makespan, seconds from the first call to the last answer, CPU seconds, and the calls."""
    model.forget()
    with tempfile.TemporaryDirectory() as folder:
        used = run_measured([sys.executable, "-m", "benchmarks.speed.ours", folder, model.url, str(SHAPES[name].tasks), "--shape", name], ROOT)
    if used.printed["passed"] != SHAPES[name].tasks * SHAPES[name].trials:
        raise RuntimeError(f"{name}: {used.printed['passed']} tasks passed")
    calls = [call for call in model.calls() if 0 <= call.task < SHAPES[name].tasks]
    return float(used.printed["seconds"]), span_s(calls), float(used.printed["cpu_s"]), len(calls)
