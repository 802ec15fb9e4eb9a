"""
Branches, parallel nodes, judges, auto-reruns, trials, long prompts and tools that compute.

Beside the time that nothing could be faster than, and beside the plain loop over the same calls: it
neither plans nor stores, and shares the machine with the endpoint just as beam_ray does.
"""

import os
import sys
import tempfile
from dataclasses import dataclass
from statistics import median

from benchmarks.speed.endpoint import ROOT, Endpoint, endpoint, span_s
from benchmarks.speed.report import Report
from benchmarks.speed.resources import run_measured
from benchmarks.speed.shapes import SHAPES

LOOP_LIMIT = 1.02
"""Largest allowed ratio of the span, from the first call to the last answer, to that of the loop."""


@dataclass(frozen=True)
class Seen:
    """One run of a shape."""

    seconds: float
    span_s: float
    """From the first call to the last answer; 0 without calls."""
    cpu_s: float
    calls: int
    before_s: float = 0.0
    """Until the first call."""
    after_s: float = 0.0
    """After the last answer."""


def measure(report: Report, *, repeats: int = 3) -> None:
    """Run the loop and beam_ray in turn, a few times for each shape; medians."""
    rows, edges = [], []
    with endpoint() as model:
        for name, shape in SHAPES.items():
            ideal = shape.ideal_s(len(os.sched_getaffinity(0)))
            loops, ours = list[Seen](), list[Seen]()
            for _ in range(repeats):
                loops += [_loop(model, name)] if shape.calls else []
                ours.append(_ours(model, name))
            seen = _middle(ours)
            wrong = next((run.calls - shape.expected_calls for run in ours if run.calls != shape.expected_calls), 0)
            told = shape.what if not wrong else f"{shape.what} ({abs(wrong)} calls {'missing' if wrong < 0 else 'too many'})"
            report.progress(f"{name}: {seen.seconds:.2f} s, {seen.seconds / ideal:.2f} x ideal")
            report.at_most(f"{shape.what}: warm makespan / ideal", seen.seconds / ideal, shape.limit)
            rows.append([told, shape.tasks, seen.calls, ideal, seen.seconds, seen.seconds / ideal, "", "", "", seen.cpu_s])
            if not loops:
                continue
            loop = _middle(loops)
            ratio = median(mine.span_s / each.span_s for mine, each in zip(ours, loops, strict=True))
            rows[-1][6:9] = loop.seconds / ideal, ratio, loop.cpu_s
            edges.append([shape.what, *(1000 * median(times) for times in ([run.before_s for run in ours], [run.after_s for run in ours]))])
            report.at_most(f"{shape.what}: span / the loop's, median of {repeats} pairs", ratio, LOOP_LIMIT)
    report.table(["200 ms per call", "tasks", "calls", "ideal s", "makespan s", "x ideal", "loop x ideal", "span x loop", "loop: CPU s", "CPU s"], rows)
    report.table(["of the makespan, ms", "before the first call", "after the last answer"], edges)
    report.note("The CPU time of the loop includes its start, about a second.")


def _middle(runs: list[Seen]) -> Seen:
    return sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]


def _loop(model: Endpoint, name: str) -> Seen:
    model.forget()
    with tempfile.TemporaryDirectory() as folder:
        used = run_measured([sys.executable, "-m", "benchmarks.speed.shape_loop", model.url, name, f"{folder}/out"], ROOT)
    calls = [call for call in model.calls() if 0 <= call.task < SHAPES[name].tasks]
    return Seen(float(used.printed["seconds"]), span_s(calls), used.cpu_s, len(calls))


def _ours(model: Endpoint, name: str) -> Seen:
    model.forget()
    with tempfile.TemporaryDirectory() as folder:
        used = run_measured([sys.executable, "-m", "benchmarks.speed.ours", folder, model.url, str(SHAPES[name].tasks), "--shape", name], ROOT)
    if used.printed["passed"] != SHAPES[name].tasks * SHAPES[name].trials:
        raise RuntimeError(f"{name}: {used.printed['passed']} tasks passed")
    calls = [call for call in model.calls() if 0 <= call.task < SHAPES[name].tasks]
    seconds, began = float(used.printed["seconds"]), float(used.printed["began"])
    first, last = min((call.began for call in calls), default=began), max((call.ended for call in calls), default=began + seconds)
    return Seen(seconds, span_s(calls), float(used.printed["cpu_s"]), len(calls), first - began, began + seconds - last)
